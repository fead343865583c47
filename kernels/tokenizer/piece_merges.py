"""Byte-pair merges of many pieces without a memo: pieces and rank tables flow in, ids out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jit import as_readonly
from ..jit import borrowing_kernel as kernel
from .merges import SHORT, MergeTables, Scratch, merge_piece


@kernel
def _merge_all(
    data: Any, offsets: Any, tables: Any, scratch: Any, ids: Any, id_offsets: Any
) -> Any:
    total = np.int64(0)
    for piece in range(len(offsets) - 1):
        count = merge_piece(data, offsets[piece], offsets[piece + 1], tables, scratch)
        for i in range(count):
            ids[total + i] = scratch.symbols[i]
        total += count
        id_offsets[piece + 1] = total
    return total


def new_scratch(size: int) -> Scratch:
    """Return scratch for pieces of up to size - 2 bytes; untouched pages cost nothing."""
    size = max(size, SHORT)
    merged = (np.empty(size, np.int32) for _ in range(4))
    return Scratch._make([*merged, np.empty(2 * size, np.int64)])


def merge_pieces(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], tables: MergeTables
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Encode pieces of text, each by itself, with byte-level BPE.

    Args:
        data: uint8[num_bytes]; offsets: int64[num_pieces + 1].
        tables: MergeTables.

    Returns:
        (ids: int32[num_ids], id_offsets: int64[num_pieces + 1]).
    """
    padded = np.zeros(len(data) + 64, np.uint8)
    padded[: len(data)] = data
    longest = int(np.diff(offsets).max(initial=0))
    ids, id_offsets = np.empty(len(data) + 1, np.int32), np.zeros(len(offsets), np.int64)
    total = _merge_all(
        as_readonly(padded, np.uint8),
        as_readonly(offsets, np.int64),
        tables,
        new_scratch(longest + 2),
        ids,
        id_offsets,
    )
    return ids[:total], id_offsets
