"""Memory for tables that are read at random: a size flows in, zeros on huge pages out."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HUGE_PAGE = 1 << 21


def huge_zeros(size: int, dtype: Any) -> NDArray[Any]:
    """Return zeros of `dtype`, on huge pages where the system gives them.

    One entry of the processor's address cache then serves 2 MB instead of 4 KB. Pages that are
    never touched take no memory.
    """
    num_bytes = size * np.dtype(dtype).itemsize
    if num_bytes < _HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.zeros(size, dtype)
    memory = mmap.mmap(
        -1, num_bytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    )  # not shared, as it is by default: shared memory has no huge pages
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel without them
        pass
    array = np.frombuffer(memory, np.uint8)
    shift = -array.ctypes.data % _HUGE_PAGE
    return array[shift : shift + num_bytes].view(dtype)
