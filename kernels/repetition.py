"""The tokens of a document flow in, how much of it repeats flows out: Gopher's n-gram rules.

An n-gram is the shortest run of tokens that weighs n words: n tokens where words are spaced, some
more characters elsewhere, as for near duplicates. Its hash comes from prefix sums of a polynomial
over token hashes, so every n costs one look into a hash table a token.

Rae et al., "Scaling Language Models" (Gopher), 2021, table A1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .character_classes import WORD_WEIGHT
from .jit import borrowing_kernel as kernel
from .mixing import mix64, signed
from .shingling import WINDOW_BASE

MAX_WINDOW_TOKENS = 64
"""More than the tokens of ten words of the lightest kind (10 x 48 / 15)."""

_POWERS = np.array([pow(WINDOW_BASE, power, 1 << 64) for power in range(MAX_WINDOW_TOKENS)], "u8")
_WORD_WEIGHT = np.int64(WORD_WEIGHT)
_ONE = np.uint64(1)


@kernel
def table_size(entries: int) -> int:
    """Return a power of two that keeps a table of `entries` at most half full."""
    size = 16
    while size < 2 * entries:
        size *= 2
    return size


@kernel
def find_slot(keys: NDArray[np.uint64], key: np.uint64, mask: int) -> int:
    """Return the slot that holds `key`, or the empty one (0) where it belongs."""
    slot = signed(key & np.uint64(mask))
    while keys[slot] != np.uint64(0) and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@kernel
def _window_hash(hashes: NDArray[np.uint64], first: int, last: int) -> np.uint64:
    """Return the hash of tokens first..last-1, never 0."""
    word = hashes[last] - hashes[first] * _POWERS[last - first]
    return mix64(word + np.uint64(last - first)) | _ONE


@kernel
def top_characters(
    words: int,
    num_tokens: int,
    num_positions: int,
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
    keys: NDArray[np.uint64],
    values: NDArray[np.int32],
    positions: NDArray[np.int32],
) -> tuple[int, int]:
    """Count how often the commonest n-gram of `words` words occurs, times its length.

    Args:
        words: n.
        num_tokens: tokens remembered.
        num_positions: length of `positions` that counts; negative: all tokens.
        hashes, sums: what `words.count_token` remembered.
        keys, values: uint64[size] and int32[2, size], overwritten.
        positions: int32[2, num_tokens], where n-grams may occur twice, ascending; on return where
            those of this length do. An n-gram that repeats begins with a shorter one that does,
            so each length looks at fewer places than the one before.

    Returns:
        (characters, num_positions). The length counts a space between words. Of n-grams that are
        equally common the first counts.
    """
    weight = words * _WORD_WEIGHT
    looked_at = num_tokens if num_positions < 0 else num_positions
    size = table_size(looked_at)
    keys[:size] = np.uint64(0)
    last, used = 0, 0
    best_count, best_first, best_length = 1, 0, 0
    for index in range(looked_at):
        first = index if num_positions < 0 else int(positions[0, index])
        while last < num_tokens and sums[0, last] - sums[0, first] < weight:
            last += 1
        if sums[0, last] - sums[0, first] < weight:
            break
        key = _window_hash(hashes, first, last)
        slot = find_slot(keys, key, size - 1)
        if keys[slot] == np.uint64(0):
            keys[slot] = key
            values[0, slot] = 0
            values[1, slot] = first
        count = int(values[0, slot]) + 1
        values[0, slot] = count
        positions[0, index] = first
        positions[1, index] = slot
        used = index + 1
        earliest = int(values[1, slot])
        if count > best_count or (count == best_count and count > 1 and earliest < best_first):
            best_count, best_first, best_length = count, earliest, last - first
    if best_count == 1:  # none repeats: the first of all
        while best_length < num_tokens and sums[0, best_length] < weight:
            best_length += 1
        if sums[0, best_length] < weight:
            return 0, 0
    kept = 0
    for index in range(used):
        if values[0, positions[1, index]] > 1:
            positions[0, kept] = positions[0, index]
            kept += 1
    end = best_first + best_length
    length = int(sums[1, end] - sums[1, best_first])
    length += int(sums[2, end] - sums[2, best_first + 1])
    return best_count * length, kept


@kernel
def duplicate_characters(
    words: int,
    num_tokens: int,
    num_positions: int,
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
    keys: NDArray[np.uint64],
    positions: NDArray[np.int32],
) -> int:
    """Return the characters of n-grams of `words` words that occurred before, none counted twice.

    Spaces do not count. After a repeated n-gram the search goes on behind it. The arguments are
    those of `top_characters`; nothing but `keys` is overwritten.
    """
    size = table_size(num_positions)
    keys[:size] = np.uint64(0)
    weight = words * _WORD_WEIGHT
    repeated = 0
    last, next_first = 0, 0
    for index in range(num_positions):
        first = int(positions[0, index])
        if first < next_first:
            continue
        while last < num_tokens and sums[0, last] - sums[0, first] < weight:
            last += 1
        if sums[0, last] - sums[0, first] < weight:
            break
        key = _window_hash(hashes, first, last)
        slot = find_slot(keys, key, size - 1)
        if keys[slot] == key:
            repeated += int(sums[1, last] - sums[1, first])
            next_first = last
        else:
            keys[slot] = key
    return repeated
