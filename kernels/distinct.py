"""Documents flow in, the shingle hashes of each one flow out: what is stored to be compared.

A list has a document's shingles in their order. It is exact up to `max_size` shingles (the default
of 131,072 is about a megabyte of English). Of a larger document the distinct hashes below a power
of two are kept, sorted, the largest power that fits: a uniform sample by value (Bar-Yossef et al.,
2002), the same for the same text, in bounded memory. Two sets of different powers are compared
below the smaller one, with a standard error of 0.2 % or less.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .folding import fold_table
from .hashing import check_offsets
from .jit import as_readonly, kernel
from .shingling import (
    BLOCK_SHINGLES,
    longest_window,
    new_state,
    next_shingles,
    start_document,
    word_seed,
)

MAX_SET_SIZE = 1 << 17

_SIXTY_FOUR = np.uint64(64)
_ONE = np.uint64(1)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


def shingle_lists(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    seed: int = 0,
    max_size: int = MAX_SET_SIZE,
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the shingles of each document.

    Args:
        data: uint8[num_bytes], UTF-8 of the documents one after another.
        offsets: int64[num_documents + 1], non-decreasing, within `data`.
        seed: any integer; shingles of different seeds cannot be compared.
        max_size: shingles kept of one document, 1 or more.

    Returns:
        values: uint64[num_shingles], each document's hashes in the order of its text, one that is
            equal to the one before it left out; of a document with more than `max_size` the
            distinct ones in ascending order.
        list_offsets: int64[num_documents + 1] into `values`.
        shifts: uint8[num_documents]; the document's hashes below 2^(64 - shift) are there, so 0
            says that all are.
        windows: uint8[num_documents], tokens of the document's longest shingle; 0 where the order
            of the text is lost.
    """
    if max_size < 1:
        raise ValueError(f"max_size is {max_size}: a set must be allowed one shingle at least")
    data, offsets = as_readonly(data, np.uint8), as_readonly(offsets, np.int64)
    check_offsets(data, offsets)
    # Each shingle ends at a byte of its own, so there are never more shingles than bytes.
    bounds = np.minimum(np.diff(offsets), max_size)
    values = np.empty(int(bounds.sum()), np.uint64)
    scratch = np.empty(2 * int(bounds.max(initial=0)) + BLOCK_SHINGLES, np.uint64)
    list_offsets = np.zeros(len(offsets), np.int64)
    shifts = np.zeros(len(offsets) - 1, np.uint8)
    windows = np.zeros(len(offsets) - 1, np.uint8)
    _shingle_lists(
        data,
        offsets,
        fold_table(),
        word_seed(seed),
        max_size,
        scratch,
        values,
        list_offsets,
        shifts,
        windows,
    )
    return values[: list_offsets[-1]].copy(), list_offsets, shifts, windows


@kernel
def value_limit(shift: int) -> np.uint64:
    """Return the largest value of a set of this shift."""
    return _ALL if shift == 0 else (_ONE << (_SIXTY_FOUR - np.uint64(shift))) - _ONE


@kernel
def _shingle_lists(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint32],
    seed: np.uint64,
    max_size: int,
    scratch: NDArray[np.uint64],
    values: NDArray[np.uint64],
    list_offsets: NDArray[np.int64],
    shifts: NDArray[np.uint8],
    windows: NDArray[np.uint8],
) -> None:
    block = np.empty(BLOCK_SHINGLES, np.uint64)
    state = new_state()
    stored = 0
    for document in range(len(offsets) - 1):
        start_document(state, offsets[document], seed)
        size = 0
        shift = 0
        limit = value_limit(shift)
        in_order = True
        while True:
            count = next_shingles(data, offsets[document + 1], table, state, block)
            for index in range(count):
                if block[index] <= limit:
                    scratch[size] = block[index]
                    size += 1
            is_full = size + BLOCK_SHINGLES > len(scratch)
            if is_full or (count == 0 and (size > max_size or not in_order)):
                # The set only grows, so a shift that is needed now is needed at the end too:
                # the last shift does not depend on when the scratch was full.
                in_order = False
                size = sort_unique(scratch, size)
                while size > max_size:
                    shift += 1
                    limit = value_limit(shift)
                    size = int(np.searchsorted(scratch[:size], limit, side="right"))
            if count == 0:
                break
        values[stored : stored + size] = scratch[:size]
        stored += size
        list_offsets[document + 1] = stored
        shifts[document] = shift
        windows[document] = longest_window(state) if in_order else 0


@kernel
def sort_unique(values: NDArray[np.uint64], size: int) -> int:
    """Sort `values[:size]` in place without repetitions; return how many are left."""
    values[:size].sort()
    kept = 0
    for index in range(size):
        if kept == 0 or values[index] != values[kept - 1]:
            values[kept] = values[index]
            kept += 1
    return kept
