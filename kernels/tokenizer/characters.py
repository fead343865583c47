"""Whole characters as merges make them: the rank table flows in, ids and ranks by code point out."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import borrowing_kernel as kernel
from .merges import NO_RANK, merge_piece, pair_rank


@kernel
def measure_characters(
    byte_ids: Any, slots: Any, rank_ids: Any, char_ids: Any, char_ranks: Any
) -> None:
    """Find the characters of two and three bytes that merge into one symbol.

    Args:
        byte_ids: int32[256], the symbol of each byte.
        slots, rank_ids: the rank table (`merges.py`).
        char_ids: int32[65536], filled with the id by code point, or -1.
        char_ranks: int32[65536], filled with the highest rank among its merges.
    """
    for code in range(65536):
        char_ids[code] = np.int32(-1)
        char_ranks[code] = NO_RANK
        if code < 0x80 or (code >= 0xD800 and code < 0xE000):
            continue
        last = byte_ids[0x80 | (code & 0x3F)]
        if code < 0x800:
            rank = pair_rank(slots, byte_ids[0xC0 | code >> 6], last)
            if rank != NO_RANK:
                char_ids[code], char_ranks[code] = rank_ids[rank], rank
            continue
        first, middle = byte_ids[0xE0 | code >> 12], byte_ids[0x80 | (code >> 6 & 0x3F)]
        front, back = pair_rank(slots, first, middle), pair_rank(slots, middle, last)
        if front == NO_RANK and back == NO_RANK:
            continue
        if front < back:
            rank = pair_rank(slots, rank_ids[front], last)
        else:
            rank = pair_rank(slots, first, rank_ids[back])
        if rank != NO_RANK:
            char_ids[code] = rank_ids[rank]
            char_ranks[code] = max(rank, min(front, back))


@kernel
def find_unmerged(
    data: Any, offsets: Any, ids: Any, tables: Any, scratch: Any, unmerged: Any
) -> None:
    """Find strings whose merges do not give their own id alone.

    Args:
        data, offsets: uint8[n], int64[num_strings + 1], readable for 64 bytes behind.
        ids: int32[num_strings].
        tables, scratch: MergeTables; Scratch for the longest string.
        unmerged: bool[num_strings], filled.
    """
    for i in range(len(ids)):
        start, end = offsets[i], offsets[i + 1]
        count = merge_piece(data, start, end, tables, scratch)
        unmerged[i] = count != 1 or scratch.symbols[0] != ids[i]
