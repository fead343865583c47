"""Shingle sets as Python sets, sampled by the smallest shift that fits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..distinct import MAX_SET_SIZE
from .hashing import document_ranges
from .shingling import shingles


def shingle_sets(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    seed: int = 0,
    max_size: int = MAX_SET_SIZE,
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint8]]:
    """Return (values, set_offsets, shifts) as the kernel does."""
    text = data.tobytes()
    values: list[int] = []
    set_offsets, shifts = [0], []
    for start, end in document_ranges(offsets):
        whole = shingles(text[start:end], seed)
        shift = 0
        while sum(value < 1 << 64 - shift for value in whole) > max_size:
            shift += 1
        values += sorted(value for value in whole if value < 1 << 64 - shift)
        set_offsets.append(len(values))
        shifts.append(shift)
    return (
        np.array(values, np.uint64),
        np.array(set_offsets, np.int64),
        np.array(shifts, np.uint8),
    )
