"""What a worker remembers of pieces: keys flow in, slots of a table with their ids out.

Pieces of up to 15 bytes: two slots a line, `bytes 0-7, bytes 8-14 | length << 56, id 0 | number of
ids << 28 | id 1 << 32, id 2 | id 3 << 32`. Ids have 20 bits; the bits that four of them leave free
hold a fifth and a sixth one (`_pack_six`). More stand in the arena, at the place that the last word
gives. What finds its line full goes to the other line of its pair.
Pieces of 16 to 255 bytes: four slots a line, `hash, place in the arena | length << 32 | ids << 40`.
The arena holds ids that do not fit in a slot, and the bytes of the longer pieces before them. When
it is full, everything is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .intrinsics import leading_zeros, load_u64, store_u64

BATCH = 512
LONGEST_KEY = 255
_0, _1, _8, _12, _20, _28, _32 = (np.uint64(i) for i in (0, 1, 8, 12, 20, 28, 32))
_40, _52, _56 = (np.uint64(i) for i in (40, 52, 56))
_EIGHT_BITS, _TWELVE_BITS = np.uint64(0xFF), np.uint64(0xFFF)
_TWO_IDS = np.uint64(0x000FFFFF000FFFFF)
_FACTOR_1 = np.uint64(0x9E3779B97F4A7C15)
_FACTOR_2 = np.uint64(0xC2B2AE3D27D4EB4F)
_FACTOR_3 = np.uint64(0x165667B19E3779F9)


START, END, PLACE, COUNT, PIECE, OUT = range(6)
"""Rows of `Memo.missed`: the piece's bytes, its place in `ids` and how many ids, its number in the
batch, and where among the ids of the others they belong."""


KEY, HIGH, LINE, STOP = range(4)
"""Words of `Memo.entries`: the key of a short piece in two words, or hash and slot of a longer one
(0: the memo does not have it), where its line begins, and where the piece ends."""
FEW = 6
"""Up to so many ids stand in a short piece's slot."""


class Memo(NamedTuple):
    """One worker's memory of pieces; zeros when new."""

    short: Any  # uint64[8 * lines]
    long: Any  # uint64[8 * lines]
    arena: Any  # int32[n]
    counts: Any  # int64[4]: ids and bytes used in the arena; pieces that were merged; wipes
    bounds: Any  # int64[BATCH + 64]
    entries: Any  # uint64[4 * (BATCH + 64)]: of each piece of the batch, see KEY to STOP
    longs: Any  # int64[BATCH + 64]: which pieces of the batch are longer than 15 bytes
    missed: Any  # int64[6, BATCH + 64]: of each miss what START to OUT say
    ids: Any  # int32[(BATCH + 64) * 256]: of the misses
    masks: Any  # uint64[32]: of bytes 0-7 and 8-15 by length


def new_memo(
    short_lines: int, long_lines: int, arena: int, zeros: Callable[..., Any] = np.zeros
) -> Memo:
    """Return an empty memo.

    Args:
        short_lines, long_lines: lines of 64 bytes of its tables, powers of two, at least 2.
        arena: numbers in its arena.
        zeros: as `numpy.zeros`; memory on huge pages makes it faster.
    """
    masks = np.zeros(32, np.uint64)
    for size in range(16):
        masks[size] = (1 << 8 * min(size, 8)) - 1
        masks[16 + size] = (1 << 8 * max(size - 8, 0)) - 1
    return Memo(
        short=zeros(8 * short_lines, np.uint64),
        long=zeros(8 * long_lines, np.uint64),
        arena=zeros(arena, np.int32),
        counts=np.zeros(4, np.int64),
        bounds=np.zeros(BATCH + 64, np.int64),
        entries=np.zeros(4 * (BATCH + 64), np.uint64),
        longs=np.zeros(BATCH + 64, np.int64),
        missed=np.zeros((6, BATCH + 64), np.int64),
        ids=np.zeros((BATCH + 64) * 256, np.int32),
        masks=masks,
    )


@inner
def _mix(value: Any) -> Any:
    value = (value ^ (value >> _32)) * _FACTOR_3
    return value ^ (value >> np.uint64(29))


@inner
def short_key(data: Any, start: Any, size: Any, masks: Any) -> Any:
    """Return the two words of a piece of up to 15 bytes."""
    low = load_u64(data, start) & load_u64(masks, size)
    high = load_u64(data, start + 8) & load_u64(masks, 16 + size)
    return low, high | np.uint64(size) << _56


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


@inner
def _same(data: Any, start: Any, end: Any, arena: Any, place: Any, masks: Any) -> Any:
    at = start
    while end - at > 8:
        if load_u64(data, at) != load_u64(arena, place):
            return False
        at += 8
        place += 2
    return load_u64(data, at) & masks[end - at] == load_u64(arena, place)


@inner
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


class KnownPieces(NamedTuple):
    """Pieces that have an id whatever the merges say (`ignore_merges`); arrays may be empty."""

    slots: Any  # uint64[2 * power of two]: hash, place in `arena` | length << 32
    arena: Any  # int32[n]: the bytes, padded with zeros to 8, then the id


@inner
def find_known(data: Any, start: Any, end: Any, known: Any, masks: Any) -> Any:
    """Return the id of a piece in a table of known ones, or -1."""
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


@inner
def _pack_six(out: Any, at: Any, count: Any) -> Any:
    """Return the two words of a slot with `count` ids, up to FEW; see `write_six`."""
    first, second = np.uint64(count) << _28, _0
    if count > 0:
        first |= np.uint64(out[at])
    if count > 1:
        first |= np.uint64(out[at + 1]) << _32
    if count > 2:
        second |= np.uint64(out[at + 2])
    if count > 3:
        second |= np.uint64(out[at + 3]) << _32
    if count > 4:
        fifth = np.uint64(out[at + 4])
        first |= (fifth & _EIGHT_BITS) << _20 | (fifth >> _8) << _52
    if count > 5:
        sixth = np.uint64(out[at + 5])
        second |= (sixth & _TWELVE_BITS) << _20 | (sixth >> _12) << _52
    return first, second


@inner
def write_six(out: Any, at: Any, first: Any, second: Any) -> None:
    """Write the ids of a slot that holds more than four: the other two from the bits between."""
    store_u64(out, at, first & _TWO_IDS)
    store_u64(out, at + 2, second & _TWO_IDS)
    fifth = (first >> _20) & _EIGHT_BITS | (first >> _52) << _8
    sixth = (second >> _20) & _TWELVE_BITS | (second >> _52) << _12
    store_u64(out, at + 4, fifth | sixth << _32)


@inner
def _remember_short(
    memo: Any, line: Any, low: Any, high: Any, out: Any, at: Any, count: Any
) -> None:
    short = memo.short
    if find_short(short, line, low, high) >= 0:
        return  # missed twice in one batch
    if count <= FEW:
        first, second = _pack_six(out, at, count)
    else:
        place = _reserve(memo, count)
        for i in range(count):
            memo.arena[place + i] = out[at + i]
        first, second = np.uint64(count) << _28, np.uint64(place)
    slot = line
    for candidate in (line, line + 4, line ^ 8, (line ^ 8) + 4):
        slot = candidate
        if short[candidate + 1] == _0:
            break
    short[slot] = low
    short[slot + 1] = high
    short[slot + 2] = first
    short[slot + 3] = second


@inner
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


@inner
def short_line(low: Any, high: Any, short: Any) -> Any:
    """Return where the line of a key begins: multiplication mixes upwards, so the top bits say."""
    lines = np.uint64(len(short) // 8 - 1)
    mixed = low * _FACTOR_1 + high * _FACTOR_2
    return np.int64((mixed >> np.uint64(leading_zeros(lines) & 63)) & lines) << 3


@inner
def long_line(key: Any, long: Any) -> Any:
    """Return where the line of a hash begins."""
    return np.int64((key >> _8) & np.uint64(len(long) // 8 - 1)) * 8


@inner
def _same_key(short: Any, slot: Any, low: Any, high: Any) -> Any:
    return (load_u64(short, slot) ^ low) | (load_u64(short, slot + 1) ^ high) == _0


@inner
def find_short(short: Any, line: Any, low: Any, high: Any) -> Any:
    """Return the slot of a key in its line or in the other one of the pair, or -1."""
    if _same_key(short, line, low, high):
        return line
    if _same_key(short, line + 4, low, high):
        return line + 4
    if load_u64(short, line + 5) != _0:
        line ^= 8
        if _same_key(short, line, low, high):
            return line
        if _same_key(short, line + 4, low, high):
            return line + 4
    return np.int64(-1)


@inner
def long_slot(long: Any, line: Any, key: Any) -> Any:
    """Return the second word of the slot with this hash, or 0."""
    for slot in range(line, line + 8, 2):
        if load_u64(long, slot) == key:
            return load_u64(long, slot + 1)
    return _0


@inner
def find_long(data: Any, start: Any, end: Any, slot: Any, memo: Any) -> Any:
    """Return (place of the ids in the arena, how many) of a longer piece; (0, -1): not there.

    `slot` is what `long_slot` returned for its hash.
    """
    place, size = np.int64(slot & np.uint64(0xFFFFFFFF)), end - start
    if np.int64((slot >> _32) & _EIGHT_BITS) == size and _same(
        data, start, end, memo.arena, place, memo.masks
    ):
        return place + ((size + 7) >> 3 << 1), np.int64(slot >> _40)
    return np.int64(0), np.int64(-1)


@inner
def remember(
    data: Any, start: Any, end: Any, piece: Any, place: Any, count: Any, memo: Any
) -> None:
    """Put the ids that a missed piece of the batch has got into the memo."""
    low, high = memo.entries[4 * piece + KEY], memo.entries[4 * piece + HIGH]
    if end - start < 16:
        line = short_line(low, high, memo.short)
        _remember_short(memo, line, low, high, memo.ids, place, count)
    else:
        line = long_line(low, memo.long)
        _remember_long(memo, line, low, data, start, end, memo.ids, place, count)


@kernel
def seed_memo(data: Any, offsets: Any, ids: Any, memo: Any) -> None:
    """Remember strings of up to 15 bytes that are one id each.

    data, offsets: uint8[n], readable for 64 bytes behind; int64[num_strings + 1].
    """
    for i in range(len(ids)):
        start, size = offsets[i], offsets[i + 1] - offsets[i]
        if size > 0 and size < 16:
            low, high = short_key(data, start, size, memo.masks)
            memo.ids[0] = ids[i]
            line = short_line(low, high, memo.short)
            _remember_short(memo, line, low, high, memo.ids, np.int64(0), np.int64(1))
