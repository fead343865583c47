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

from ..jit import borrowing_kernel as kernel
from .intrinsics import prefetch
from .merges import NO_RANK, SHORT, first_symbols, merge_long, pair_place, pair_rank

NUM_LANES = 16
_WIDTH = np.int64(SHORT)
_ASKED = np.int32(-1)  # a rank whose slot has been asked for


class Lanes(NamedTuple):
    """Pieces that take turns."""

    symbols: Any  # int32[NUM_LANES * SHORT]
    ranks: Any  # int32[NUM_LANES * SHORT]
    counts: Any  # int64[NUM_LANES], symbols
    places: Any  # int64[NUM_LANES], of the merge that was made last
    pieces: Any  # int64[NUM_LANES], which one it is
    order: Any  # int64[NUM_LANES], the lanes that are not finished


def new_lanes() -> Lanes:
    """Return lanes."""
    wide = NUM_LANES * SHORT
    numbers = (np.zeros(NUM_LANES, np.int64) for _ in range(4))
    return Lanes(np.zeros(wide, np.int32), np.zeros(wide, np.int32), *numbers)


@kernel
def _look_up(tables: Any, symbols: Any, ranks: Any, at: Any) -> None:
    if ranks[at] == _ASKED:
        rank = pair_rank(tables.slots, symbols[at], symbols[at + 1])
        ranks[at] = rank
        if rank != NO_RANK:
            prefetch(tables.rank_ids, np.int64(rank))


@kernel
def _merge_lowest(tables: Any, symbols: Any, ranks: Any, base: Any, count: Any) -> Any:
    """Make the next merge of a lane and ask for the slots of its new pairs; -1: there is none."""
    lowest, place = NO_RANK, np.int64(-1)
    for i in range(base, base + count - 1):
        if ranks[i] < lowest:
            lowest, place = ranks[i], np.int64(i)
    if place < 0:
        return place
    merged = tables.rank_ids[lowest]
    symbols[place] = merged
    last = base + count - 1
    for i in range(place + 1, last):
        symbols[i] = symbols[i + 1]
        ranks[i] = ranks[i + 1]
    ranks[place] = NO_RANK
    if place + 1 < last:
        ranks[place] = _ASKED
        prefetch(tables.slots, pair_place(tables.slots, merged, symbols[place + 1]))
    if place > base:
        ranks[place - 1] = _ASKED
        prefetch(tables.slots, pair_place(tables.slots, symbols[place - 1], merged))
    return place


@kernel
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
    symbols, ranks, order = lanes.symbols, lanes.ranks, lanes.order
    piece = np.int64(0)
    while piece < num_pieces:
        active = np.int64(0)
        while piece < num_pieces and active < NUM_LANES:
            if counts[piece] >= 0:
                piece += 1
                continue
            count = first_symbols(
                data, starts[piece], ends[piece], tables, scratch.symbols, scratch.ranks, True
            )
            if count > SHORT:
                for i in range(count - 1):
                    _look_up(tables, scratch.symbols, scratch.ranks, i)
                count = merge_long(scratch, count, tables.slots, tables.rank_ids)
                for i in range(count):
                    out[places[piece] + i] = scratch.symbols[i]
                counts[piece] = count
            else:
                base = active * _WIDTH
                for i in range(count):
                    symbols[base + i] = scratch.symbols[i]
                    ranks[base + i] = scratch.ranks[i]
                lanes.counts[active] = count
                lanes.pieces[active] = piece
                order[active] = active
                active += 1
            piece += 1
        for lane in range(active):
            base = lane * _WIDTH
            for i in range(base, base + lanes.counts[lane] - 1):
                _look_up(tables, symbols, ranks, i)
        while active > 0:
            turn: Any = np.int64(0)
            while turn < active:
                lane = order[turn]
                base = lane * _WIDTH
                count = lanes.counts[lane]
                place = _merge_lowest(tables, symbols, ranks, base, count)
                if place < 0:
                    done = lanes.pieces[lane]
                    for i in range(count):
                        out[places[done] + i] = symbols[base + i]
                    counts[done] = count
                    active -= 1
                    order[turn] = order[active]
                    continue
                lanes.places[lane] = place
                lanes.counts[lane] = count - 1
                turn += 1
            for turn in range(active):
                lane = order[turn]
                place = lanes.places[lane]
                _look_up(tables, symbols, ranks, place)
                if place > lane * _WIDTH:
                    _look_up(tables, symbols, ranks, place - 1)
