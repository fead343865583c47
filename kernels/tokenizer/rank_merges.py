"""Symbols of one word flow in, the same symbols after all byte-pair merges flow out, in place.

The rule of byte-pair encoding (Sennrich et al. 2016): join the adjacent pair with the lowest rank,
the leftmost of equals, until no adjacent pair has a rank. A short word is scanned for its minimum
each time; a long one keeps its pairs in a binary heap, so that n symbols take O(n log n) time and
36 bytes each, however long the word is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..jit import kernel

SHORT_SYMBOLS = 32
"""Up to here scanning beats a heap."""

NO_MERGE = np.uint64(0xFFFFFFFFFFFFFFFF)
"""What `pair_value` returns for a pair that does not merge; marks a free place of the table."""

_HASH = np.uint64(0x9E3779B97F4A7C15)
_ONE, _TWO, _THIRTY_TWO = np.uint64(1), np.uint64(2), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)


@kernel
def pair_value(pairs: NDArray[np.uint64], left: np.int32, right: np.int32) -> np.uint64:
    """Return rank << 32 | merged id of two symbols, or NO_MERGE.

    pairs: uint64[2 * size], open addressing: left << 32 | right, then the value.
    """
    mask = np.uint64(len(pairs) - 2)
    key = np.uint64(left) << _THIRTY_TWO | np.uint64(right)
    mixed = key * _HASH
    at = (mixed ^ mixed >> _THIRTY_TWO) << _ONE & mask
    while True:
        kept = pairs[at]
        if kept == key:
            return pairs[at + _ONE]
        if kept == NO_MERGE:
            return NO_MERGE
        at = (at + _TWO) & mask


@kernel
def fill_pairs(
    pairs: NDArray[np.uint64],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    merged: NDArray[np.int32],
) -> None:
    """Put merge number i, left[i] + right[i] -> merged[i], into `pairs` (all NO_MERGE before).

    A pair listed twice keeps its last rank.
    """
    mask = np.uint64(len(pairs) - 2)
    for rank in range(len(left)):
        key = np.uint64(left[rank]) << _THIRTY_TWO | np.uint64(right[rank])
        mixed = key * _HASH
        at = (mixed ^ mixed >> _THIRTY_TWO) << _ONE & mask
        while pairs[at] != NO_MERGE and pairs[at] != key:
            at = (at + _TWO) & mask
        pairs[at] = key
        pairs[at + _ONE] = np.uint64(rank) << _THIRTY_TWO | np.uint64(merged[rank])


@kernel
def merge_symbols(
    pairs: NDArray[np.uint64],
    symbols: NDArray[np.int32],
    begin: int,
    count: int,
    values: NDArray[np.uint64],
) -> int:
    """Merge symbols[begin:begin + count] in place and return how many are left.

    values: uint64[SHORT_SYMBOLS], scratch.
    """
    if count > SHORT_SYMBOLS:
        return _merge_long(pairs, symbols, begin, count)
    last = count - 1
    for index in range(last):
        values[index] = pair_value(pairs, symbols[begin + index], symbols[begin + index + 1])
    while last > 0:
        best, at = NO_MERGE, 0
        for index in range(last):
            if values[index] < best:
                best, at = values[index], index
        if best == NO_MERGE:
            break
        symbols[begin + at] = np.int32(best & _LOW)
        last -= 1
        for index in range(at + 1, last + 1):
            symbols[begin + index] = symbols[begin + index + 1]
        for index in range(at + 1, last):
            values[index] = values[index + 1]
        if at < last:
            values[at] = pair_value(pairs, symbols[begin + at], symbols[begin + at + 1])
        if at > 0:
            values[at - 1] = pair_value(pairs, symbols[begin + at - 1], symbols[begin + at])
    return last + 1


@kernel
def _merge_long(
    pairs: NDArray[np.uint64], symbols: NDArray[np.int32], begin: int, count: int
) -> int:
    """Merge with a heap of rank << 32 | place; an entry whose pair has changed is passed over.

    A merge takes one entry off and puts two on at most, so there are never more than 2 * count.
    """
    following = np.empty(count, np.int32)
    previous = np.empty(count, np.int32)
    heap = np.empty(2 * count, np.uint64)
    size = 0
    for index in range(count):
        following[index] = index + 1 if index + 1 < count else -1
        previous[index] = index - 1
    for index in range(count - 1):
        value = pair_value(pairs, symbols[begin + index], symbols[begin + index + 1])
        if value != NO_MERGE:
            size = _push(heap, size, (value & ~_LOW) | np.uint64(index))
    while size > 0:
        top = heap[0]
        size = _pop(heap, size)
        at = np.int64(top & _LOW)
        right = np.int64(following[at])
        if symbols[begin + at] < 0 or right < 0:
            continue
        value = pair_value(pairs, symbols[begin + at], symbols[begin + right])
        if value == NO_MERGE or value >> _THIRTY_TWO != top >> _THIRTY_TWO:
            continue
        symbols[begin + at] = np.int32(value & _LOW)
        symbols[begin + right] = np.int32(-1)
        after = np.int64(following[right])
        following[at] = after
        if after >= 0:
            previous[after] = at
            value = pair_value(pairs, symbols[begin + at], symbols[begin + after])
            if value != NO_MERGE:
                size = _push(heap, size, (value & ~_LOW) | np.uint64(at))
        before = np.int64(previous[at])
        if before >= 0:
            value = pair_value(pairs, symbols[begin + before], symbols[begin + at])
            if value != NO_MERGE:
                size = _push(heap, size, (value & ~_LOW) | np.uint64(before))
    left = 0
    for index in range(count):
        if symbols[begin + index] >= 0:
            symbols[begin + left] = symbols[begin + index]
            left += 1
    return left


@kernel
def _push(heap: NDArray[np.uint64], size: int, entry: np.uint64) -> int:
    """Add an entry to the binary heap and return its new size."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if heap[parent] <= entry:
            break
        heap[at] = heap[parent]
        at = parent
    heap[at] = entry
    return size + 1


@kernel
def _pop(heap: NDArray[np.uint64], size: int) -> int:
    """Take the least entry, heap[0], off and return the new size."""
    size -= 1
    entry = heap[size]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = entry
    return size
