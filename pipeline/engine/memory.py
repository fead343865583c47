"""Memory for tables that are read at random: a size or tables flow in, huge pages flow out."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

_HUGE_PAGE = 1 << 21
_ALIGNMENT = 64  # a cache line

Tables = TypeVar("Tables", bound=tuple[Any, ...])  # a named tuple


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
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    array = np.frombuffer(memory, np.uint8)
    shift = -array.ctypes.data % _HUGE_PAGE
    return array[shift : shift + num_bytes].view(dtype)


def on_huge_pages(tables: Tables) -> Tables:
    """Return a named tuple of arrays with copies of all of them side by side on huge pages.

    A table of megabytes on pages of 4 KB costs a walk through the page tables with each look, and
    processors drop a prefetch that would need one.
    """
    sizes = [-array.nbytes // _ALIGNMENT * -_ALIGNMENT for array in tables]
    room = huge_zeros(sum(sizes), np.uint8)
    copies, at = [], 0
    for array, size in zip(tables, sizes, strict=True):
        copy = room[at : at + array.nbytes].view(array.dtype).reshape(array.shape)
        copy[...] = array
        copy.flags.writeable = array.flags.writeable
        copies.append(copy)
        at += size
    return type(tables)(*copies)
