"""Byte-level BPE: segments of a text, rank tables and a memo flow in, token ids out.

A batch of pieces at a time: their bounds (`pieces.py`), then their keys and the cache lines of the
memo that they need (`piece_memo.py`), then what the memo does not have is merged (`lanes.py`), and
the ids are written in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import borrowing_kernel as kernel
from .intrinsics import load_u64, prefetch, store_i32
from .lanes import merge_side_by_side
from .merges import merge_piece
from .piece_memo import (
    LONGEST_KEY,
    find_known,
    find_slots,
    hash_bytes,
    long_line,
    remember,
    short_key,
    short_line,
)
from .pieces import fill_bounds

_ID = np.uint64((1 << 28) - 1)
_28, _32, _40, _56 = (np.uint64(i) for i in (28, 32, 40, 56))


@kernel
def _merge_missed(
    data: Any, misses: Any, tables: Any, known: Any, memo: Any, scratch: Any, lanes: Any
) -> None:
    """Give ids to the pieces that the memo does not have."""
    missed = memo.missed
    memo.counts[2] += misses
    if len(known.slots):
        for i in range(misses):
            token = find_known(data, missed[0, i], missed[1, i], known, memo.masks)
            if token >= 0:
                memo.ids[missed[2, i]] = np.int32(token)
                missed[3, i] = 1
    merge_side_by_side(
        data,
        missed[0],
        missed[1],
        misses,
        tables,
        scratch,
        lanes,
        memo.ids,
        missed[2],
        missed[3],
    )


@kernel
def _write_batch(
    data: Any,
    begin: Any,
    count: Any,
    tables: Any,
    known: Any,
    memo: Any,
    scratch: Any,
    out: Any,
    total: Any,
) -> Any:
    """Write the ids of a batch to out[total:]; return their end."""
    short, long, lines, missed, arena = memo.short, memo.long, memo.lines, memo.missed, memo.arena
    start = begin
    for i in range(count):
        stop = np.int64(load_u64(memo.bounds, i))
        size = stop - start
        slot = np.int64(load_u64(lines, i))
        if size < 16 and slot >= 0:
            first, second = load_u64(short, slot + 2), load_u64(short, slot + 3)
            found = np.int64(first >> _56)
            if found <= 4:
                store_i32(out, total, np.int64(first & _ID))
                store_i32(out, total + 1, np.int64((first >> _28) & _ID))
                store_i32(out, total + 2, np.int64(second & _ID))
                store_i32(out, total + 3, np.int64(second >> _28))
            else:
                place = np.int64(second)
                for j in range(found):
                    store_i32(out, total + j, np.int64(arena[place + j]))
        elif size > LONGEST_KEY:
            token = np.int64(-1)
            if len(known.slots):
                token = find_known(data, start, stop, known, memo.masks)
            if token >= 0:
                out[total] = np.int32(token)
                found = np.int64(1)
            else:
                found = np.int64(merge_piece(data, start, stop, tables, scratch))
                for j in range(found):
                    store_i32(out, total + j, np.int64(scratch.symbols[j]))
        elif slot >= 0:
            meta = load_u64(long, slot + 1)
            found = np.int64(meta >> _40)
            place = np.int64(meta & np.uint64(0xFFFFFFFF)) + (size + 7) // 8 * 2
            for j in range(found):
                store_i32(out, total + j, np.int64(arena[place + j]))
        else:
            place, found = missed[2, -1 - slot], missed[3, -1 - slot]
            for j in range(found):
                store_i32(out, total + j, np.int64(memo.ids[place + j]))
        total += found
        start = stop
    return total


@kernel
def encode_byte_level(
    data: Any,
    starts: Any,
    ends: Any,
    tokens: Any,
    stage1: Any,
    stage2: Any,
    rules: Any,
    tables: Any,
    known: Any,
    memo: Any,
    scratch: Any,
    lanes: Any,
    out: Any,
    segment_ids: Any,
) -> Any:
    """Encode segments with byte-level BPE; return the number of ids.

    Args:
        data: uint8[n], valid UTF-8, readable for 64 bytes behind the last segment.
        starts, ends: int64[num_segments], byte ranges.
        tokens: int32[num_segments]: -1, or an id that stands for the segment.
        stage1, stage2: classes of code points (`classes.py`).
        rules: how text is cut into pieces (`scan.py`).
        tables, known, memo, scratch, lanes: see their classes; scratch for the longest segment.
        out: int32[at least bytes + num_segments + 16], the ids.
        segment_ids: int64[num_segments + 1]: ids before each segment.
    """
    total = np.int64(0)
    bounds, keys, lines = memo.bounds, memo.keys, memo.lines
    masks, short, long, missed = memo.masks, memo.short, memo.long, memo.missed
    segment_ids[0] = 0
    for segment in range(len(starts)):
        if tokens[segment] >= 0:
            out[total] = tokens[segment]
            total += 1
            segment_ids[segment + 1] = total
            continue
        begin, end = np.int64(starts[segment]), np.int64(ends[segment])
        while begin < end:
            count, behind = fill_bounds(data, begin, end, stage1, stage2, rules, bounds)
            start = begin
            for i in range(count):
                stop = np.int64(load_u64(bounds, i))
                size = stop - start
                if size < 16:
                    low, high = short_key(data, start, size, masks)
                    keys[2 * i] = low
                    keys[2 * i + 1] = high
                    line = short_line(low, high, short)
                    prefetch(short, line)
                    lines[i] = line
                elif size <= LONGEST_KEY:
                    key = hash_bytes(data, start, stop, masks)
                    keys[2 * i] = key
                    line = long_line(key, long)
                    prefetch(long, line)
                    lines[i] = line
                start = stop
            misses = find_slots(data, begin, count, memo)
            if misses > 0:
                _merge_missed(data, misses, tables, known, memo, scratch, lanes)
            total = _write_batch(data, begin, count, tables, known, memo, scratch, out, total)
            for i in range(misses):
                remember(
                    data, missed[0, i], missed[1, i], missed[4, i], missed[2, i], missed[3, i], memo
                )
            begin = behind
        segment_ids[segment + 1] = total
    return total
