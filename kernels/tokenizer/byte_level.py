"""Byte-level BPE: segments of a text, rank tables and a memo flow in, token ids out.

A batch of pieces at a time: their bounds (`pieces.py`), then their keys and the cache lines of the
memo that they need, then the ids, remembered or merged anew. The memo has a line of 64 bytes for
each hash; which pieces it holds changes speed, never ids.

Pieces of up to 15 bytes: two slots a line, `bytes 0-7, bytes 8-14 | length << 56, ids, ids`.
Pieces of 16 to 255 bytes: four slots a line, `hash, place in the arena | length << 32 | ids << 40`.
The arena holds ids that do not fit in a slot, and the bytes of the longer pieces before them. When
it is full, everything is forgotten.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..jit import borrowing_kernel as kernel
from .intrinsics import load_u64, prefetch, store_i32
from .merges import merge_piece
from .pieces import fill_bounds

BATCH = 512
LONGEST_KEY = 255
_0, _1, _8, _28, _32, _40, _56 = (np.uint64(i) for i in (0, 1, 8, 28, 32, 40, 56))
_ID = np.uint64((1 << 28) - 1)
_FACTOR_1 = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_FACTOR_3 = np.uint64(0x165667B19E3779F9)


class Memo(NamedTuple):
    """One worker's memory of pieces; zeros when new."""

    short: Any  # uint64[8 * lines]
    long: Any  # uint64[8 * lines]
    arena: Any  # int32[n]
    counts: Any  # int64[4]: ids and bytes used in the arena; pieces that were merged; wipes
    bounds: Any  # int64[BATCH + 64]
    keys: Any  # uint64[2 * (BATCH + 64)]
    lines: Any  # int64[BATCH + 64]
    masks: Any  # uint64[32]: of bytes 0-7 and 8-15 by length


@kernel
def _mix(value: Any) -> Any:
    value = (value ^ (value >> _32)) * _FACTOR_3
    return value ^ (value >> np.uint64(29))


@kernel
def hash_bytes(data: Any, start: Any, end: Any, masks: Any) -> Any:
    """Return a 64-bit hash of data[start:end], never 0."""
    value = np.uint64(end - start) * _FACTOR_2
    at = start
    while end - at > 8:
        value = (value ^ load_u64(data, at)) * _FACTOR_1
        value ^= value >> _32
        at += 8
    return _mix((value ^ (load_u64(data, at) & masks[end - at])) * _FACTOR_1) | _1


@kernel
def _same(data: Any, start: Any, end: Any, arena: Any, place: Any, masks: Any) -> Any:
    at = start
    while end - at > 8:
        if load_u64(data, at) != load_u64(arena, place):
            return False
        at += 8
        place += 2
    return load_u64(data, at) & masks[end - at] == load_u64(arena, place)


@kernel
def _reserve(memo: Any, size: Any) -> Any:
    """Return a place for `size` numbers in the arena; forget everything if there is none."""
    place = memo.counts[0]
    if place + size + 8 > len(memo.arena):
        memo.short[:] = _0
        memo.long[:] = _0
        memo.counts[3] += 1
        place = np.int64(0)
    memo.counts[0] = place + size
    return place


@kernel
def _merge(
    data: Any,
    start: Any,
    end: Any,
    tables: Any,
    known: Any,
    memo: Any,
    scratch: Any,
    out: Any,
    at: Any,
) -> Any:
    """Write the ids of a piece to out[at:], without the memo; return how many."""
    memo.counts[2] += 1
    if len(known.slots):
        token = _find_known(data, start, end, known, memo.masks)
        if token >= 0:
            out[at] = np.int32(token)
            return np.int64(1)
    count = merge_piece(data, start, end, tables, scratch)
    for i in range(count):
        store_i32(out, at + i, np.int64(scratch.symbols[i]))
    return count


class KnownPieces(NamedTuple):
    """Pieces that have an id whatever the merges say (`ignore_merges`); arrays may be empty."""

    slots: Any  # uint64[2 * power of two]: hash, place in `arena` | length << 32
    arena: Any  # int32[n]: the bytes, padded with zeros to 8, then the id


@kernel
def _find_known(data: Any, start: Any, end: Any, known: Any, masks: Any) -> Any:
    size = end - start
    wanted = hash_bytes(data, start, end, masks)
    mask = np.int64(len(known.slots)) // 2 - 1
    at = np.int64(wanted >> np.uint64(8)) & mask
    while known.slots[2 * at] != _0:
        if known.slots[2 * at] == wanted:
            place = np.int64(known.slots[2 * at + 1] & np.uint64(0xFFFFFFFF))
            if np.int64(known.slots[2 * at + 1] >> _32) == size and _same(
                data, start, end, known.arena, place, masks
            ):
                return np.int64(known.arena[place + (size + 7) // 8 * 2])
        at = (at + 1) & mask
    return np.int64(-1)


@kernel
def _remember_short(memo: Any, line: Any, low: Any, high: Any, out: Any, at: Any, count: Any) -> None:
    if count <= 4:
        first = np.uint64(count) << _56
        second = _0
        if count > 0:
            first |= np.uint64(out[at])
        if count > 1:
            first |= np.uint64(out[at + 1]) << _28
        if count > 2:
            second |= np.uint64(out[at + 2])
        if count > 3:
            second |= np.uint64(out[at + 3]) << _28
    else:
        place = _reserve(memo, count)
        for i in range(count):
            memo.arena[place + i] = out[at + i]
        first, second = np.uint64(count) << _56, np.uint64(place)
    if memo.short[line + 1] != _0:
        line += 4
    memo.short[line] = low
    memo.short[line + 1] = high
    memo.short[line + 2] = first
    memo.short[line + 3] = second


@kernel
def _remember_long(
    memo: Any, line: Any, key: Any, data: Any, start: Any, end: Any, out: Any, at: Any, count: Any
) -> None:
    size = end - start
    words = (size + 7) // 8
    place = _reserve(memo, 2 * words + count)
    to = place
    for i in range(words):
        rest = size - 8 * i
        word = load_u64(data, start + 8 * i)
        if rest < 8:
            word &= memo.masks[rest]
        memo.arena[to] = np.int32(np.uint32(word & np.uint64(0xFFFFFFFF)))
        memo.arena[to + 1] = np.int32(np.uint32(word >> _32))
        to += 2
    for i in range(count):
        memo.arena[to + i] = out[at + i]
    slot = line
    for i in range(4):
        if memo.long[line + 2 * i] == _0:
            slot = line + 2 * i
            break
        if i == 3:
            slot = line + 2 * np.int64((key >> _40) & np.uint64(3))
    memo.long[slot] = key
    memo.long[slot + 1] = np.uint64(place) | np.uint64(size) << _32 | np.uint64(count) << _40


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
        tables, known, memo, scratch: see their classes; scratch for the longest segment.
        out: int32[at least bytes + num_segments + 16], the ids.
        segment_ids: int64[num_segments + 1]: ids before each segment.
    """
    total = np.int64(0)
    bounds, keys, lines = memo.bounds, memo.keys, memo.lines
    masks, short, long = memo.masks, memo.short, memo.long
    short_mask = np.uint64(len(short) // 8 - 1)
    long_mask = np.uint64(len(long) // 8 - 1)
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
                    low = load_u64(data, start) & load_u64(masks, size)
                    high = (load_u64(data, start + 8) & load_u64(masks, 16 + size)) | np.uint64(size) << _56
                    keys[2 * i] = low
                    keys[2 * i + 1] = high
                    line = np.int64(_mix(low * _FACTOR_1 + high * _FACTOR_2) & short_mask) * 8
                    prefetch(short, line)
                    lines[i] = line
                elif size <= LONGEST_KEY:
                    key = hash_bytes(data, start, stop, masks)
                    keys[2 * i] = key
                    line = np.int64((key >> _8) & long_mask) * 8
                    prefetch(long, line)
                    lines[i] = line
                start = stop
            start = begin
            for i in range(count):
                stop = np.int64(load_u64(bounds, i))
                size = stop - start
                if size < 16:
                    line = np.int64(load_u64(lines, i))
                    low, high = load_u64(keys, 2 * i), load_u64(keys, 2 * i + 1)
                    if load_u64(short, line) != low or load_u64(short, line + 1) != high:
                        line += 4
                    if load_u64(short, line) == low and load_u64(short, line + 1) == high:
                        first, second = load_u64(short, line + 2), load_u64(short, line + 3)
                        found = np.int64(first >> _56)
                        if found <= 4:
                            store_i32(out, total, np.int64(first & _ID))
                            store_i32(out, total + 1, np.int64((first >> _28) & _ID))
                            store_i32(out, total + 2, np.int64(second & _ID))
                            store_i32(out, total + 3, np.int64(second >> _28))
                        else:
                            place = np.int64(second)
                            for j in range(found):
                                out[total + j] = memo.arena[place + j]
                    else:
                        found = _merge(data, start, stop, tables, known, memo, scratch, out, total)
                        _remember_short(memo, np.int64(load_u64(lines, i)), low, high, out, total, found)
                elif size <= LONGEST_KEY:
                    key = keys[2 * i]
                    line = lines[i]
                    found = np.int64(-1)
                    for j in range(4):
                        if long[line + 2 * j] == key:
                            meta = long[line + 2 * j + 1]
                            place = np.int64(meta & np.uint64(0xFFFFFFFF))
                            if np.int64((meta >> _32) & np.uint64(0xFF)) == size and _same(
                                data, start, stop, memo.arena, place, masks
                            ):
                                found = np.int64(meta >> _40)
                                place += (size + 7) // 8 * 2
                                for k in range(found):
                                    out[total + k] = memo.arena[place + k]
                                break
                    if found < 0:
                        found = _merge(data, start, stop, tables, known, memo, scratch, out, total)
                        _remember_long(memo, line, key, data, start, stop, out, total, found)
                else:
                    found = _merge(data, start, stop, tables, known, memo, scratch, out, total)
                total += found
                start = stop
            begin = behind
        segment_ids[segment + 1] = total
    return total
