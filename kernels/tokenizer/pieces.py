"""All pieces of many segments: segments of a text flow in, the ends of their pieces out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jit import as_readonly
from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .classes import load_classes
from .intrinsics import store_u64, trailing_zeros
from .scan import SCHEME, WHOLE, next_piece
from .windows import window_starts

SLACK = 64
"""Bytes behind the last one of a text that the kernels may read (they may hold anything)."""

_0, _1 = np.uint64(0), np.uint64(1)


@inner
def fill_bounds(
    data: Any, at: Any, end: Any, stage1: Any, stage2: Any, rules: Any, bounds: Any
) -> Any:
    """Write the ends of the pieces that begin at data[at] to `bounds`, as many as fit.

    Returns (count, where the next piece begins); `bounds` holds more than 64.
    """
    count = np.int64(0)
    room = np.int64(len(bounds)) - np.int64(SLACK)
    if rules & SCHEME == WHOLE:
        bounds[0] = end
        return np.int64(1), end
    while at < end and count < room:
        starts, size = window_starts(data, at, end, stage1, stage2, rules)
        begin = at
        while starts != _0:
            at = begin + trailing_zeros(starts)
            store_u64(bounds, count, at)
            count += 1
            starts &= starts - _1
        if begin + size >= end:
            at = end
            bounds[count] = at
            count += 1
        elif at == begin:
            at = next_piece(data, at, end, stage1, stage2, rules)
            bounds[count] = at
            count += 1
    return count, at


@kernel
def prefix_spaces(
    data: Any, starts: Any, ends: Any, tokens: Any, out: Any, new_starts: Any, new_ends: Any
) -> None:
    """Copy segments to `out`, each with a space before it unless it begins with one."""
    total = np.int64(0)
    for segment in range(len(starts)):
        new_starts[segment] = total
        if tokens[segment] < 0 and starts[segment] < ends[segment]:
            if data[starts[segment]] != 0x20:
                out[total] = np.uint8(0x20)
                total += 1
            for i in range(starts[segment], ends[segment]):
                out[total] = data[i]
                total += 1
        new_ends[segment] = total


@kernel
def _scan_segments(
    data: Any,
    starts: Any,
    ends: Any,
    stage1: Any,
    stage2: Any,
    rules: Any,
    windows: Any,
    bounds: Any,
    piece_ends: Any,
) -> Any:
    total = np.int64(0)
    for segment in range(len(starts)):
        at, end = np.int64(starts[segment]), np.int64(ends[segment])
        while at < end:
            if windows:
                count, at = fill_bounds(data, at, end, stage1, stage2, rules, bounds)
                for i in range(count):
                    piece_ends[total + i] = bounds[i]
                total += count
            else:
                at = next_piece(data, at, end, stage1, stage2, rules)
                piece_ends[total] = at
                total += 1
    return total


def scan_pieces(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    rules: int,
    windows: bool = True,
) -> NDArray[np.int64]:
    """Cut segments into pieces as a pre-tokenizer does.

    Args:
        data: uint8[num_bytes], valid UTF-8.
        starts, ends: int64[num_segments], byte ranges in `data`, none empty.
        rules: a scheme and flags of `scan.py`.
        windows: look at 64 bytes at a time (else one piece at a time: the same, slower).

    Returns:
        int64[num_pieces]: the end of each piece; a segment's first piece begins with the segment,
        every other where the one before it ends.

    "don't 12345" under CL100K with CONTRACTIONS: pieces "don" "'t" " " "123" "45".
    """
    padded = np.zeros(len(data) + SLACK, np.uint8)
    padded[: len(data)] = data
    piece_ends = np.empty(len(data), np.int64)
    stage1, stage2 = load_classes()
    total = _scan_segments(
        as_readonly(padded, np.uint8),
        as_readonly(starts, np.int64),
        as_readonly(ends, np.int64),
        stage1,
        stage2,
        np.int64(rules),
        windows,
        np.empty(256, np.int64),
        piece_ends,
    )
    return piece_ends[:total]
