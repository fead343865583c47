"""Bytes of UTF-8 flow in, code points flow out: what the kernels of this folder step with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jit import inner_kernel as inner
from .intrinsics import load_u64

_8, _255 = np.uint64(8), np.uint64(255)


@inner
def decode(data: NDArray[np.uint8], at: int) -> tuple[Any, int]:
    """Return (code point, bytes it takes) of the valid UTF-8 at data[at].

    data: readable for 8 bytes from there (one load, and no index that could be negative).
    """
    word = np.int64(load_u64(data, at))
    byte = word & 0xFF
    if byte < 0x80:
        return byte, 1
    second = word >> 8 & 0x3F
    if byte < 0xE0:
        return (byte & 0x1F) << 6 | second, 2
    third = word >> 16 & 0x3F
    if byte < 0xF0:
        return (byte & 0x0F) << 12 | second << 6 | third, 3
    return (byte & 0x07) << 18 | second << 12 | third << 6 | word >> 24 & 0x3F, 4


@inner
def encode(code_point: Any, out: NDArray[np.uint8], at: int) -> int:
    """Write a code point as UTF-8 to out[at:] and return how many bytes it takes."""
    if code_point < 0x80:
        out[at] = np.uint8(code_point)
        return 1
    if code_point < 0x800:
        out[at] = np.uint8(0xC0 | code_point >> 6)
        out[at + 1] = np.uint8(0x80 | code_point & 0x3F)
        return 2
    if code_point < 0x10000:
        out[at] = np.uint8(0xE0 | code_point >> 12)
        out[at + 1] = np.uint8(0x80 | code_point >> 6 & 0x3F)
        out[at + 2] = np.uint8(0x80 | code_point & 0x3F)
        return 3
    out[at] = np.uint8(0xF0 | code_point >> 18)
    out[at + 1] = np.uint8(0x80 | code_point >> 12 & 0x3F)
    out[at + 2] = np.uint8(0x80 | code_point >> 6 & 0x3F)
    out[at + 3] = np.uint8(0x80 | code_point & 0x3F)
    return 4


@inner
def place(stage1: NDArray[np.uint16], code_point: int) -> Any:
    """Return the index of a code point in a table folded into blocks of 256 (see `fold`)."""
    return np.uint64(stage1[np.uint64(code_point >> 8)]) << _8 | np.uint64(code_point) & _255


def fold(table: NDArray[np.int32]) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Fold int32[0x110000] into (stage1: uint16[4352], values: int32[256 * blocks])."""
    blocks, stage1 = np.unique(table.reshape(-1, 256), axis=0, return_inverse=True)
    return stage1.astype(np.uint16).reshape(-1), np.ascontiguousarray(blocks.reshape(-1))
