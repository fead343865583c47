"""Byte-pair merges of one piece: its bytes and the rank table flow in, token ids out.

The definition (Sennrich et al. 2016, arXiv:1508.07909, as `tokenizers` runs it): begin with one
symbol per byte; while any two neighbours can be merged, merge the pair of lowest rank, the leftmost
of several.

The rank table is open addressing over 64-bit slots, `left << 44 | right << 24 | rank`, of which the
8 of a cache line are compared at once; the merged id stands in `rank_ids[rank]`. Ids are below
2**20 - 1 and ranks below 2**24 - 1.

Whole characters of two and three bytes begin as one symbol where that provably changes nothing.
Let r be the highest rank among the merges that make character c out of its bytes. Where no merge of
rank below r joins an unfinished part of c to its neighbour (`risk_before`, `risk_behind`: lowest
rank by neighbouring bytes), and none of rank below r has all of c as an operand (checked when the
tables are built), the lowest pair of the text is never one that crosses the edge of c before c is
whole; and once it is whole, whatever takes it has a higher rank than all merges that were skipped.
So the other merges happen in the same order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..jit import as_readonly
from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .intrinsics import (
    leading_zeros,
    load_u64,
    lowest32,
    match8,
    prefetch,
    trailing_zeros,
)

RANK_BITS, ID_BITS = 24, 20
NO_RANK = np.int32((1 << RANK_BITS) - 1)
NO_KEY = np.int32((1 << 31) - 1)
ASKED = np.int32(-1)
"""A rank whose slot has been asked for, and not been looked at yet; its key is negative too."""
ALWAYS = np.int32(1 << 30)
"""In `char_ids`: this character may begin as one symbol whatever its neighbours."""
SHORT = 63
"""Up to so many symbols the lowest rank is found by looking at all of them."""
WIDTH = SHORT + 1
"""Keys of so many symbols, of which the first half is enough for a piece that fits into it."""

_RANK_MASK = np.uint64((1 << RANK_BITS) - 1)
_RANK_BITS, _ID_BITS = np.uint64(RANK_BITS), np.uint64(ID_BITS)
_PAIR_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_1 = np.uint64(1)
_HALF = np.int64(WIDTH // 2)


class MergeTables(NamedTuple):
    """What merges need; all arrays are read-only."""

    byte_ids: Any  # int32[256]: id of the symbol of each byte, -1: the byte is dropped
    byte_pairs: Any  # int32[65536]: rank of the pair of two bytes' symbols (first << 8 | second)
    char_ids: Any  # int32[65536]: id of a whole character by code point (ALWAYS added), or -1
    char_ranks: Any  # int32[65536]: highest rank inside it
    risk_before: Any  # int32[65536]: by byte before << 8 | first byte of the character
    risk_behind: Any  # int32[65536]: by last byte of the character << 8 | byte behind
    slots: Any  # uint64[power of two]: the rank table
    rank_ids: Any  # int32[num_ranks]: merged id of each rank


class Scratch(NamedTuple):
    """Where merges happen: arrays as long as the longest piece has bytes and 2 more, or WIDTH."""

    symbols: Any  # int32[n]
    ranks: Any  # int32[n]
    before: Any  # int32[n]
    behind: Any  # int32[n]
    heap: Any  # int64[2 * n]


def empty_tables() -> MergeTables:
    """Return tables without merges, in which each byte is its own id."""
    none = np.full(65536, NO_RANK, np.int32)
    return MergeTables(
        byte_ids=as_readonly(np.arange(256, dtype=np.int32), np.int32),
        byte_pairs=as_readonly(none, np.int32),
        char_ids=as_readonly(np.full(65536, -1, np.int32), np.int32),
        char_ranks=as_readonly(none, np.int32),
        risk_before=as_readonly(none, np.int32),
        risk_behind=as_readonly(none, np.int32),
        slots=as_readonly(np.full(16, _EMPTY, np.uint64), np.uint64),
        rank_ids=as_readonly(np.zeros(1, np.int32), np.int32),
    )


@inner
def ask(slots: Any, left: Any, right: Any) -> None:
    """Ask for the line at which the search for a pair begins."""
    prefetch(slots, _line((np.uint64(left) << _ID_BITS) | np.uint64(right), len(slots)))


@inner
def _line(key: Any, num_slots: Any) -> Any:
    mixed = key * _PAIR_FACTOR
    return np.int64((mixed ^ (mixed >> np.uint64(32))) & (np.uint64(num_slots >> 3) - _1)) << 3


@inner
def pair_rank(slots: Any, left: Any, right: Any) -> Any:
    """Return the rank of the pair of two ids, NO_RANK if they do not merge."""
    key = (np.uint64(left) << _ID_BITS) | np.uint64(right)
    line = _line(key, len(slots))
    while True:
        found = match8(slots, line, key, _RANK_BITS)
        if found != np.uint64(0):
            return np.int32(load_u64(slots, line + trailing_zeros(found)) & _RANK_MASK)
        if load_u64(slots, line + 7) == _EMPTY:
            return NO_RANK
        line = (line + 8) & np.int64(len(slots) - 1)


@kernel
def insert_pairs(slots: Any, left: Any, right: Any, ranks: Any) -> None:
    """Fill an empty rank table (all bits set); a pair given again keeps its last rank.

    slots: uint64[power of two, at least 16], lines of 8, each filled from its beginning.
    """
    last = np.int64(len(slots) - 1)
    for i in range(len(left)):
        key = (np.uint64(left[i]) << _ID_BITS) | np.uint64(right[i])
        place = _line(key, len(slots))
        while slots[place] != _EMPTY and slots[place] >> _RANK_BITS != key:
            place = (place + 1) & last
        slots[place] = (key << _RANK_BITS) | np.uint64(ranks[i])


@inner
def first_symbols(data: Any, start: Any, end: Any, tables: Any, symbols: Any, ranks: Any) -> Any:
    """Write the symbols that a piece begins with, and the ranks of neighbours; return how many.

    symbols, ranks: int32[at least end - start + 1]; the last symbol has rank NO_RANK. Pairs other
    than of two bytes have rank ASKED, and the lines of their slots have been asked for.
    """
    count = np.int64(0)
    at = start
    last_byte = np.int64(-1)  # of the symbol before, if it is a single byte
    while at < end:
        first = np.int64(data[at])
        symbol = np.int32(-1)
        size = np.int64(1)
        if first >= 0xC0 and first < 0xF0:
            code = (first & 0x1F) << 6 | (np.int64(data[at + 1]) & 0x3F)
            size = np.int64(2)
            if first >= 0xE0:
                code = ((code & 0x3FF) << 6) | (np.int64(data[at + 2]) & 0x3F)
                size = np.int64(3)
            symbol = tables.char_ids[code]
            if symbol >= ALWAYS:
                symbol = np.int32(symbol - ALWAYS)
            elif symbol >= 0:
                highest = tables.char_ranks[code]
                if (
                    at > start and highest > tables.risk_before[np.int64(data[at - 1]) << 8 | first]
                ) or (
                    at + size < end
                    and highest
                    > tables.risk_behind[
                        np.int64(data[at + size - 1]) << 8 | np.int64(data[at + size])
                    ]
                ):
                    symbol = np.int32(-1)
        if symbol >= 0:
            if count > 0:
                ask(tables.slots, symbols[count - 1], symbol)
                ranks[count - 1] = ASKED
            symbols[count] = symbol
            count += 1
            last_byte = np.int64(-1)
            at += size
            continue
        stop = at + size
        while at < stop:
            byte = np.int64(data[at])
            symbol = tables.byte_ids[byte]
            at += 1
            if symbol < 0:
                continue
            if last_byte >= 0:
                ranks[count - 1] = tables.byte_pairs[last_byte << 8 | byte]
            elif count > 0:
                ask(tables.slots, symbols[count - 1], symbol)
                ranks[count - 1] = ASKED
            symbols[count] = symbol
            count += 1
            last_byte = byte
    if count > 0:
        ranks[count - 1] = NO_RANK
    return count


@inner
def answer(symbols: Any, ranks: Any, count: Any, slots: Any) -> None:
    """Look up the ranks that `first_symbols` has asked for."""
    for i in range(count - 1):
        if ranks[i] == ASKED:
            ranks[i] = pair_rank(slots, symbols[i], symbols[i + 1])


@inner
def first_keys(ranks: Any, count: Any, keys: Any, base: Any) -> None:
    """Write keys[base:base + WIDTH] of `count` symbols with these ranks; see `merge_lowest`."""
    for i in range(count - 1):
        keys[base + i] = rank_key(ranks[i], i)
    for i in range(count - 1, _HALF if count <= _HALF else np.int64(WIDTH)):
        keys[base + i] = NO_KEY


@inner
def rank_key(rank: Any, place: Any) -> Any:
    """Return what is lower for a lower rank, and of equal ranks for the one further left."""
    return np.int32(np.int64(rank) << 6 | np.int64(place)) if rank != NO_RANK else NO_KEY


@inner
def merge_lowest(symbols: Any, keys: Any, base: Any, alive: Any, rank_ids: Any) -> Any:
    """Make the next merge of up to SHORT symbols, which keep their places; nothing is moved.

    symbols, keys: int32 from `base` on, of each symbol and of it with the next one; alive: the mask
    of the places where a symbol still stands. Returns (alive, place); the place is -1 where nothing
    merges. The keys of the two new pairs are left to the caller, and are NO_KEY until then.
    """
    lowest = lowest32(keys, base)
    if alive >> np.uint64(32):
        lowest = min(lowest, lowest32(keys, base + _HALF))
    if lowest == np.int64(NO_KEY):
        return alive, np.int64(-1)
    place = lowest & 63
    gone = right_of(alive, place)
    symbols[base + place] = rank_ids[lowest >> 6]
    keys[base + place] = NO_KEY
    keys[base + gone] = NO_KEY
    return alive & ~(_1 << np.uint64(gone)), place


@inner
def right_of(alive: Any, place: Any) -> Any:
    """Return the place of the next symbol; 64 and more: there is none."""
    return place + np.int64(1) + trailing_zeros(alive >> np.uint64(place + 1))


@inner
def left_of(alive: Any, place: Any) -> Any:
    """Return the place of the symbol before; -1: there is none."""
    return np.int64(63) - leading_zeros(alive & ((_1 << np.uint64(place)) - _1))


@inner
def merge_short(symbols: Any, ranks: Any, count: Any, slots: Any, rank_ids: Any) -> Any:
    """Merge in place until nothing merges, looking at all ranks each time; return how many stay.

    symbols, ranks: int32[at least WIDTH], 1 <= count <= SHORT.
    """
    first_keys(ranks, count, ranks, np.int64(0))
    alive = (_1 << np.uint64(count)) - _1
    while True:
        alive, place = merge_lowest(symbols, ranks, np.int64(0), alive, rank_ids)
        if place < 0:
            break
        right, left = right_of(alive, place), left_of(alive, place)
        if right < SHORT:
            ranks[place] = rank_key(pair_rank(slots, symbols[place], symbols[right]), place)
        if left >= 0:
            ranks[left] = rank_key(pair_rank(slots, symbols[left], symbols[place]), left)
    kept = np.int64(0)
    while alive:
        symbols[kept] = symbols[trailing_zeros(alive)]
        kept += 1
        alive &= alive - _1
    return kept


@inner
def _sift_down(heap: Any, at: Any, size: Any) -> None:
    moved = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if moved <= heap[child]:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = moved


@inner
def merge_long(scratch: Any, count: Any, slots: Any, rank_ids: Any) -> Any:
    """Merge in place with a heap of (rank, place): n log n for n symbols; return how many stay.

    An entry whose rank is no longer the one at its place is stale and skipped. A merge takes one
    entry away and adds two at most, so the heap never holds more than 2 * count.
    """
    symbols, ranks, heap = scratch.symbols, scratch.ranks, scratch.heap
    before, behind = scratch.before, scratch.behind
    size = np.int64(0)
    for i in range(count):
        before[i] = np.int32(i - 1)
        behind[i] = np.int32(i + 1)
        if ranks[i] != NO_RANK:
            heap[size] = (np.int64(ranks[i]) << 32) | np.int64(i)
            size += 1
    for i in range(size // 2 - 1, -1, -1):
        _sift_down(heap, np.int64(i), size)
    while size > 0:
        top = heap[0]
        size -= 1
        heap[0] = heap[size]
        if size > 1:
            _sift_down(heap, np.int64(0), size)
        rank, place = np.int32(top >> 32), np.int64(top & 0xFFFFFFFF)
        if ranks[place] != rank:
            continue
        right = np.int64(behind[place])
        merged = rank_ids[rank]
        symbols[place] = merged
        symbols[right] = np.int32(-1)
        ranks[right] = NO_RANK
        follower = np.int64(behind[right])
        behind[place] = np.int32(follower)
        ranks[place] = NO_RANK
        for side in range(2):
            at = place
            if side == 0:
                if follower >= count:
                    continue
                before[follower] = np.int32(place)
                ranks[at] = pair_rank(slots, merged, symbols[follower])
            else:
                at = np.int64(before[place])
                if at < 0:
                    continue
                ranks[at] = pair_rank(slots, symbols[at], merged)
            if ranks[at] != NO_RANK:
                entry = (np.int64(ranks[at]) << 32) | at
                hole = size
                size += 1
                while hole > 0 and heap[(hole - 1) >> 1] > entry:
                    heap[hole] = heap[(hole - 1) >> 1]
                    hole = (hole - 1) >> 1
                heap[hole] = entry
    kept = np.int64(0)
    for i in range(count):
        if symbols[i] >= 0:
            symbols[kept] = symbols[i]
            kept += 1
    return kept


@inner
def merge_piece(data: Any, start: Any, end: Any, tables: Any, scratch: Any) -> Any:
    """Write the ids of the piece data[start:end] to `scratch.symbols`; return how many."""
    symbols, ranks = scratch.symbols, scratch.ranks
    count = first_symbols(data, start, end, tables, symbols, ranks)
    if count <= 1:
        return count
    answer(symbols, ranks, count, tables.slots)
    if count <= SHORT:
        return merge_short(symbols, ranks, count, tables.slots, tables.rank_ids)
    return merge_long(scratch, count, tables.slots, tables.rank_ids)
