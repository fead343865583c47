"""Byte-level BPE: segments of a text, rank tables and a memo flow in, token ids out.

A batch of pieces at a time: their bounds (`pieces.py`), then their keys and the cache lines of the
memo that they need (`piece_memo.py`; of long ones also where their ids stand), then the ids of
those that the memo has. What it does not have is merged (`lanes.py`), and put in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .intrinsics import load_u64, prefetch, store_i32, store_u64
from .lanes import merge_side_by_side
from .merges import merge_piece
from .piece_memo import (
    COUNT,
    END,
    FEW,
    HIGH,
    KEY,
    LINE,
    LONGEST_KEY,
    OUT,
    PIECE,
    PLACE,
    START,
    STOP,
    find_known,
    find_long,
    find_short,
    hash_bytes,
    long_line,
    long_slot,
    remember,
    short_key,
    short_line,
    write_six,
)
from .pieces import fill_bounds

_IDS = np.uint64(0xFFFFFFFF0FFFFFFF)  # all of a slot's word but the number of ids
_28, _15 = np.uint64(28), np.uint64(15)


@inner
def _copy_ids(arena: Any, place: Any, count: Any, out: Any, at: Any) -> None:
    """Copy ids two at a time: one more than asked for, where there is always room."""
    for i in range(0, count, 2):
        store_u64(out, at + i, load_u64(arena, place + i))


@inner
def _find_lines(data: Any, begin: Any, count: Any, memo: Any) -> None:
    """Write the entries of a batch of pieces, and ask for the cache lines that they lead to."""
    bounds, entries, longs = memo.bounds, memo.entries, memo.longs
    masks, short, long = memo.masks, memo.short, memo.long
    num_long, start = np.int64(0), begin
    for i in range(count):
        stop = np.int64(load_u64(bounds, i))
        size = stop - start
        store_u64(entries, 4 * i + STOP, stop)
        if size < 16:
            low, high = short_key(data, start, size, masks)
            line = short_line(low, high, short)
            prefetch(short, line)
            store_u64(entries, 4 * i + KEY, low)
            store_u64(entries, 4 * i + HIGH, high)
            store_u64(entries, 4 * i + LINE, line)
        elif size <= LONGEST_KEY:
            key = hash_bytes(data, start, stop, masks)
            line = long_line(key, long)
            prefetch(long, line)
            store_u64(entries, 4 * i + KEY, key)
            store_u64(entries, 4 * i + LINE, line)
            store_u64(longs, num_long, i)
            num_long += 1
        start = stop
    for i in range(num_long):
        entry = 4 * np.int64(load_u64(longs, i))
        line = np.int64(load_u64(entries, entry + LINE))
        slot = long_slot(long, line, load_u64(entries, entry + KEY))
        store_u64(entries, entry + HIGH, slot)
        place = np.int64(slot & np.uint64(0xFFFFFFFF))
        prefetch(memo.arena, place)
        prefetch(memo.arena, place + 16)


@inner
def _write_known(
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
    """Write the ids of those pieces of a batch that the memo has, and of those too long for it.

    Returns (their end in `out`, how many the memo does not have): these are listed in `missed`.
    """
    short, entries, missed, arena = memo.short, memo.entries, memo.missed, memo.arena
    misses, room, start = np.int64(0), np.int64(0), begin
    for i in range(count):
        stop = np.int64(load_u64(entries, 4 * i + STOP))
        size = stop - start
        found = np.int64(-1)
        if size < 16:
            slot = find_short(
                short,
                np.int64(load_u64(entries, 4 * i + LINE)),
                load_u64(entries, 4 * i + KEY),
                load_u64(entries, 4 * i + HIGH),
            )
            if slot >= 0:
                first, second = load_u64(short, slot + 2), load_u64(short, slot + 3)
                found = np.int64((first >> _28) & _15)
                if found <= 4:
                    store_u64(out, total, first & _IDS)
                    store_u64(out, total + 2, second)
                elif found <= FEW:
                    write_six(out, total, first, second)
                else:
                    _copy_ids(arena, np.int64(second), found, out, total)
        elif size <= LONGEST_KEY:
            place, found = find_long(data, start, stop, load_u64(entries, 4 * i + HIGH), memo)
            _copy_ids(arena, place, found, out, total)
        else:
            token = np.int64(-1)
            if len(known.slots):
                token = find_known(data, start, stop, known, memo.masks)
            if token >= 0:
                store_i32(out, total, token)
                found = np.int64(1)
            else:
                found = np.int64(merge_piece(data, start, stop, tables, scratch))
                for j in range(found):
                    store_i32(out, total + j, np.int64(scratch.symbols[j]))
        if found < 0:
            missed[START, misses] = start
            missed[END, misses] = stop
            missed[PLACE, misses] = room
            missed[COUNT, misses] = -1
            missed[PIECE, misses] = i
            missed[OUT, misses] = total
            misses += 1
            room += size
            found = np.int64(0)
        total += found
        start = stop
    return total, misses


@inner
def _merge_missed(
    data: Any, misses: Any, tables: Any, known: Any, memo: Any, scratch: Any, lanes: Any
) -> None:
    """Give ids to the pieces that the memo does not have."""
    missed = memo.missed
    memo.counts[2] += misses
    if len(known.slots):
        for i in range(misses):
            token = find_known(data, missed[START, i], missed[END, i], known, memo.masks)
            if token >= 0:
                memo.ids[missed[PLACE, i]] = np.int32(token)
                missed[COUNT, i] = 1
    merge_side_by_side(
        data,
        missed[START],
        missed[END],
        misses,
        tables,
        scratch,
        lanes,
        memo.ids,
        missed[PLACE],
        missed[COUNT],
    )


@inner
def _insert_missed(out: Any, end: Any, misses: Any, memo: Any) -> Any:
    """Move the ids before out[end] apart, put those of the missed pieces in; return the new end."""
    missed, ids = memo.missed, memo.ids
    shift = np.int64(0)
    for i in range(misses):
        shift += missed[COUNT, i]
    total = end + shift
    for miss in range(misses - 1, -1, -1):
        at = missed[OUT, miss]
        while end - at >= 2:
            end -= 2
            store_u64(out, end + shift, load_u64(out, end))
        if end > at:
            end -= 1
            store_i32(out, end + shift, np.int64(out[end]))
        place, count = missed[PLACE, miss], missed[COUNT, miss]
        shift -= count
        for j in range(count):
            store_i32(out, at + shift + j, np.int64(ids[place + j]))
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
    missed = memo.missed
    segment_ids[0] = 0
    for segment in range(len(starts)):
        if tokens[segment] >= 0:
            out[total] = tokens[segment]
            total += 1
            segment_ids[segment + 1] = total
            continue
        begin, end = np.int64(starts[segment]), np.int64(ends[segment])
        while begin < end:
            count, behind = fill_bounds(data, begin, end, stage1, stage2, rules, memo.bounds)
            _find_lines(data, begin, count, memo)
            total, misses = _write_known(
                data, begin, count, tables, known, memo, scratch, out, total
            )
            if misses > 0:
                _merge_missed(data, misses, tables, known, memo, scratch, lanes)
                total = _insert_missed(out, total, misses, memo)
                for i in range(misses):
                    remember(
                        data,
                        missed[START, i],
                        missed[END, i],
                        missed[PIECE, i],
                        missed[PLACE, i],
                        missed[COUNT, i],
                        memo,
                    )
            begin = behind
        segment_ids[segment + 1] = total
    return total
