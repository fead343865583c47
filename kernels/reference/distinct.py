"""Shingles of a document as a Python list, sampled by the smallest shift that fits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..distinct import MAX_SET_SIZE
from .hashing import document_ranges
from .shingling import shingle_list


def shingle_lists(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    seed: int = 0,
    max_size: int = MAX_SET_SIZE,
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return (values, list_offsets, shifts, windows) as the kernel does."""
    text = data.tobytes()
    values: list[int] = []
    list_offsets, shifts, windows = [0], [], []
    for start, end in document_ranges(offsets):
        whole, window = shingle_list(text[start:end], seed)
        shift = 0
        if len(whole) > max_size:
            whole, window = sorted(set(whole)), 0
            while sum(value < 1 << 64 - shift for value in whole) > max_size:
                shift += 1
        values += [value for value in whole if value < 1 << 64 - shift]
        list_offsets.append(len(values))
        shifts.append(shift)
        windows.append(window)
    return (
        np.array(values, np.uint64),
        np.array(list_offsets, np.int64),
        np.array(shifts, np.uint8),
        np.array(windows, np.uint8),
    )
