"""Byte-pair merges of many short pieces side by side: pieces and rank tables flow in, ids out.

A merge waits for memory: its two new pairs are looked up in a table of megabytes, and which merge
comes next depends on what is found. So 16 pieces take turns. Each asks for the cache lines that it
needs next, and by the time it is its turn again they have come. (The idea is from hash joins:
asynchronous memory access chaining, Kocberber et al. 2015, VLDB.) The merges are those of
`merges.py`, in the same order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..jit import inner_kernel as inner
from .intrinsics import leading_zeros, prefetch, trailing_zeros
from .merges import (
    NO_RANK,
    SHORT,
    WIDTH,
    answer,
    ask,
    first_keys,
    first_symbols,
    left_of,
    merge_long,
    merge_lowest,
    pair_rank,
    rank_key,
    right_of,
)

NUM_LANES = 16
_WIDTH = np.int64(WIDTH)
_1 = np.uint64(1)


class Lanes(NamedTuple):
    """Pieces that take turns."""

    symbols: Any  # int32[NUM_LANES * WIDTH]
    keys: Any  # int32[NUM_LANES * WIDTH], see `merges.merge_lowest`
    alive: Any  # uint64[NUM_LANES], places where a symbol still stands
    places: Any  # int64[NUM_LANES], of the merge that was made last
    pieces: Any  # int64[NUM_LANES], which one it is
    order: Any  # int64[NUM_LANES], the lanes that are not finished


def new_lanes() -> Lanes:
    """Return lanes."""
    wide = NUM_LANES * WIDTH
    numbers = (np.zeros(NUM_LANES, np.int64) for _ in range(3))
    alive = np.zeros(NUM_LANES, np.uint64)
    return Lanes(np.zeros(wide, np.int32), np.zeros(wide, np.int32), alive, *numbers)


@inner
def _find_key(tables: Any, lanes: Any, base: Any, left: Any, right: Any) -> None:
    """Write the key of two neighbours of a lane, and ask for the id of their merge."""
    symbols = lanes.symbols
    rank = pair_rank(tables.slots, symbols[base + left], symbols[base + right])
    lanes.keys[base + left] = rank_key(rank, left)
    if rank != NO_RANK:
        prefetch(tables.rank_ids, np.int64(rank))


@inner
def merge_side_by_side(
    data: Any,
    starts: Any,
    ends: Any,
    num_pieces: Any,
    tables: Any,
    scratch: Any,
    lanes: Any,
    out: Any,
    places: Any,
    counts: Any,
) -> None:
    """Encode pieces that have no ids yet (counts[i] < 0).

    Args:
        data: uint8[n], readable for 64 bytes behind.
        starts, ends: int64[num_pieces], the pieces' bytes.
        tables, scratch, lanes: see their classes.
        out: int32[n], ids; places: int64[num_pieces], where those of a piece begin: as much room
            as it has bytes; counts: int64[num_pieces], filled.
    """
    symbols, order = lanes.symbols, lanes.order
    own, ranks = scratch.symbols, scratch.ranks
    piece = np.int64(0)
    while piece < num_pieces:
        active = np.int64(0)
        while piece < num_pieces and active < NUM_LANES:
            if counts[piece] >= 0:
                piece += 1
                continue
            count = first_symbols(data, starts[piece], ends[piece], tables, own, ranks)
            merged = count <= 1
            if count > SHORT:
                answer(own, ranks, count, tables.slots)
                count = merge_long(scratch, count, tables.slots, tables.rank_ids)
                merged = True
            if merged:
                for i in range(count):
                    out[places[piece] + i] = own[i]
                counts[piece] = count
            else:
                base = active * _WIDTH
                for i in range(count):
                    symbols[base + i] = own[i]
                first_keys(ranks, count, lanes.keys, base)
                lanes.alive[active] = (_1 << np.uint64(count)) - _1
                lanes.pieces[active] = piece
                order[active] = active
                active += 1
            piece += 1
        for lane in range(active):
            base = lane * _WIDTH
            last = np.int64(63) - leading_zeros(lanes.alive[lane])
            for i in range(last):
                if lanes.keys[base + i] < 0:
                    _find_key(tables, lanes, base, np.int64(i), np.int64(i) + 1)
        while active > 0:
            turn: Any = np.int64(0)
            while turn < active:
                lane = order[turn]
                base = lane * _WIDTH
                alive, place = merge_lowest(
                    symbols, lanes.keys, base, lanes.alive[lane], tables.rank_ids
                )
                if place < 0:
                    done = lanes.pieces[lane]
                    count = np.int64(0)
                    while alive:
                        out[places[done] + count] = symbols[base + trailing_zeros(alive)]
                        count += 1
                        alive &= alive - _1
                    counts[done] = count
                    active -= 1
                    order[turn] = order[active]
                    continue
                lanes.alive[lane] = alive
                lanes.places[lane] = place
                right, left = right_of(alive, place), left_of(alive, place)
                symbol = symbols[base + place]
                if right < SHORT:
                    ask(tables.slots, symbol, symbols[base + right])
                if left >= 0:
                    ask(tables.slots, symbols[base + left], symbol)
                turn += 1
            for turn in range(active):
                lane = order[turn]
                base, place, alive = lane * _WIDTH, lanes.places[lane], lanes.alive[lane]
                right, left = right_of(alive, place), left_of(alive, place)
                if right < SHORT:
                    _find_key(tables, lanes, base, place, right)
                if left >= 0:
                    _find_key(tables, lanes, base, left, place)
