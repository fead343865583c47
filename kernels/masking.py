"""Token ids flow in, the same ids with some replaced flow out: masks for masked language models.

What becomes of a place is a pure function of (seed, sample number, position): it does not depend on
the other samples, on who reads them, or on what was masked before. Each word (or, without whole
words, each token) is chosen on its own with the same probability, as Hugging Face's collator and
ModernBERT do it: the share of a sample varies around the one asked for, and no place knows of any
other. A chosen token becomes the mask token, a random one, or stays (Devlin et al. 2018,
arXiv:1810.04805, section 3.1: 80 %, 10 %, 10 %).

One hash a place decides: the upper half of the hash of a word's first place whether it is chosen,
the lower half of a place's own hash what becomes of it; both are thresholds of 32 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel
from .mixing import mix64
from .reference.masking import CONTINUES as CONTINUES
from .reference.masking import NEVER as NEVER
from .reference.masking import check_masking, thresholds

_ONE, _THIRTY_TWO = np.uint64(1), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NEVER, _CONTINUES = np.uint8(NEVER), np.uint8(CONTINUES)


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
    """Return the tokens that a model is given, and the places whose tokens it is to predict.

    Args:
        tokens: int64[num_samples, length], ids from 0 to num_ids - 1.
        may_change: bool[num_samples, length], false where nothing is chosen (padding).
        numbers: int64[num_samples], what a sample's masks depend on beside the seed.
        seed: 0 to 2**63 - 1; another seed, other masks.
        flags: uint8[num_ids]: NEVER for ids that are neither chosen nor drawn (special tokens),
            CONTINUES for those that belong to the word of the token before them.
        mask_id: what 80 % of the chosen become; it may lie beyond num_ids.
        share: probability that a word is chosen, and so the expected share of tokens.
        mask_share: of the chosen tokens, those that become mask_id.
        random_share: those that become a random id that is not NEVER; the others stay.
        whole_words: choose all tokens of a word together.

    Returns:
        int64[num_samples, length], and bool[num_samples, length].

    Raises:
        ValueError: a share out of range, an id without a flag, shapes that differ.

    Example: seed 0, sample 0, share 0.5, the ids 1 to 4 of 8 and mask_id 9 give [9, 2, 9, 4] and
    [True, False, True, False].
    """
    check_masking(tokens, may_change, numbers, share, mask_share, random_share)
    masked = np.empty(tokens.shape, dtype=np.int64)
    chosen = np.empty(tokens.shape, dtype=np.bool_)
    if tokens.size == 0:
        return masked, chosen
    limits = np.array(thresholds(share, mask_share, random_share), dtype=np.uint64)
    tokens = as_readonly(tokens, np.int64)
    good = _mask(
        tokens,
        as_readonly(may_change, np.bool_),
        as_readonly(numbers, np.int64),
        np.uint64(seed),
        as_readonly(flags, np.uint8),
        mask_id,
        as_readonly(limits, np.uint64),
        whole_words,
        masked,
        chosen,
    )
    if not good:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise ValueError(f"the id {wrong} has no flag: there are {len(flags)} ids")
    return masked, chosen


@kernel
def _mask(
    tokens: NDArray[np.int64],
    may_change: NDArray[np.bool_],
    numbers: NDArray[np.int64],
    seed: np.uint64,
    flags: NDArray[np.uint8],
    mask_id: int,
    limits: NDArray[np.uint64],
    whole_words: bool,
    masked: NDArray[np.int64],
    chosen: NDArray[np.bool_],
) -> bool:
    """Fill `masked` and `chosen`; return whether every id has a flag."""
    num_ids = len(flags)
    for s in range(tokens.shape[0]):
        key = mix64(mix64(seed + _GOLDEN) ^ np.uint64(numbers[s]))
        is_open = False  # whether a token that continues a word has one to continue
        takes = False
        for t in range(tokens.shape[1]):
            token = tokens[s, t]
            if token < 0 or token >= num_ids:
                return False
            masked[s, t] = token
            flag = flags[token]
            if not may_change[s, t] or flag & _NEVER:
                chosen[s, t] = False
                is_open = False
                continue
            word = mix64(key + np.uint64(t) * _GOLDEN)
            if not (whole_words and is_open and flag & _CONTINUES):
                takes = (word >> _THIRTY_TWO) < limits[0]
            is_open = True
            chosen[s, t] = takes
            if takes:
                fate = word & _LOW
                if fate < limits[1]:
                    masked[s, t] = mask_id
                elif fate < limits[2]:
                    while True:  # ends: this token is one that may be drawn
                        word = mix64(word + _ONE)
                        drawn = np.int64(
                            ((word >> _THIRTY_TWO) * np.uint64(num_ids)) >> _THIRTY_TWO
                        )
                        if not flags[drawn] & _NEVER:
                            break
                    masked[s, t] = drawn
    return True
