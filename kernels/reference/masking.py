"""Masks for masked language models in Python integers, one place after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .permutation import _mix64

NEVER = 1
"""Flag of ids that are neither chosen nor drawn."""
CONTINUES = 2
"""Flag of ids that belong to the word of the token before them."""
_WORD = 0xFFFF_FFFF_FFFF_FFFF
_GOLDEN = 0x9E37_79B9_7F4A_7C15


def thresholds(share: float, mask_share: float, random_share: float) -> tuple[int, int, int]:
    """Return the shares as limits of 32-bit numbers: chosen; mask token; mask or random token.

    Example: thresholds(0.5, 0.5, 0.25) == (2**31, 2**31, 3 * 2**30).
    """
    whole = 2**32
    return (
        round(share * whole),
        round(mask_share * whole),
        round((mask_share + random_share) * whole),
    )


def check_masking(
    tokens: NDArray[np.int64],
    may_change: NDArray[np.bool_],
    numbers: NDArray[np.int64],
    share: float,
    mask_share: float,
    random_share: float,
) -> None:
    """Refuse shapes and shares that cannot be meant."""
    if tokens.ndim != 2 or may_change.shape != tokens.shape or numbers.shape != tokens.shape[:1]:
        raise ValueError(
            f"tokens {tokens.shape}, may_change {may_change.shape} and numbers {numbers.shape} do "
            "not go together: [samples, length] twice, and [samples]"
        )
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: it lies in 0..1")
    if min(mask_share, random_share) < 0 or mask_share + random_share > 1 + 1e-9:
        raise ValueError(
            f"mask_share is {mask_share} and random_share {random_share}: neither is negative, and "
            "together they are at most 1"
        )


def mask_tokens(
    tokens: NDArray[np.int64],
    may_change: NDArray[np.bool_],
    numbers: NDArray[np.int64],
    seed: int,
    flags: NDArray[np.uint8],
    mask_id: int,
    share: float = 0.3,
    mask_share: float = 0.8,
    random_share: float = 0.1,
    whole_words: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the masked tokens and the chosen places; see `kernels.mask_tokens`."""
    check_masking(tokens, may_change, numbers, share, mask_share, random_share)
    chosen_below, mask_below, random_below = thresholds(share, mask_share, random_share)
    masked, chosen = tokens.copy(), np.zeros(tokens.shape, dtype=np.bool_)
    for sample, number in enumerate(numbers.tolist()):
        key = _mix64(_mix64((seed + _GOLDEN) & _WORD) ^ (number & _WORD))
        hashes = [_mix64((key + place * _GOLDEN) & _WORD) for place in range(tokens.shape[1])]
        first = None  # place of the first token of the word that goes on
        for place, token in enumerate(tokens[sample].tolist()):
            if not 0 <= token < len(flags):
                raise ValueError(f"the id {token} has no flag: there are {len(flags)} ids")
            if not may_change[sample, place] or flags[token] & NEVER:
                first = None
                continue
            if first is None or not (whole_words and flags[token] & CONTINUES):
                first = place
            if hashes[first] >> 32 >= chosen_below:
                continue
            chosen[sample, place] = True
            fate = hashes[place] & 0xFFFF_FFFF
            if fate < mask_below:
                masked[sample, place] = mask_id
            elif fate < random_below:
                masked[sample, place] = _draw(hashes[place], flags)
    return masked, chosen


def _draw(word: int, flags: NDArray[np.uint8]) -> int:
    """Return a random id that is not NEVER."""
    while True:
        word = _mix64((word + 1) & _WORD)
        drawn = (word >> 32) * len(flags) >> 32
        if not flags[drawn] & NEVER:
            return drawn
