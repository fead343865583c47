"""Words flow in, the ids that an earlier word of the same bytes got flow out: a bounded memo.

One slot is 32 bytes, half a cache line. A word of up to 15 bytes is its own key, so that a hit
touches one line and compares no text; a longer one has a hash for key and its bytes in an arena,
which are compared. Up to three ids stand in the slot, more of them in a second arena.

    word 0   bytes 0 to 7 of the word               | hash
    word 1   bytes 8 to 14, top byte: the length    | top byte: the length
    word 2   id 0, id 1                             | place of the ids, place of the bytes
    word 3   number of ids, id 2

A full memo is wiped, not grown: the same text gives the same ids whatever the memo held.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import inner_kernel as inner
from .intrinsics import load_u64, store_u64

SHORT_BYTES = 15
"""Longest word that is its own key."""
LONG_BYTES = 127
"""Longest word that is kept."""

BATCH = 64
"""Words between asking for places and looking at them."""
STAGE = 33
"""Numbers that can be prepared of each."""

_SLOT_WORDS = 4
_ONE, _TWO, _THREE = np.uint64(1), np.uint64(2), np.uint64(3)
_EIGHT, _THIRTY_TWO, _FIFTY_SIX, _SIXTY_FOUR = (
    np.uint64(8),
    np.uint64(32),
    np.uint64(56),
    np.uint64(64),
)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)
_ZERO = np.uint64(0)
_HASH_1 = np.uint64(0x9E3779B97F4A7C15)
_HASH_2 = np.uint64(0xD6E8FEB86659FD93)


class Memo(NamedTuple):
    """What one worker remembers (see the module's docstring)."""

    slots: NDArray[np.uint64]
    """uint64[4 * number of slots]; the number is a power of two."""
    ids: NDArray[np.int32]
    """Ids that do not fit in their slots."""
    text: NDArray[np.uint8]
    """Bytes of words longer than `SHORT_BYTES`."""
    used: NDArray[np.int64]
    """int64[4]: slots, ids and bytes in use, and how often all was wiped."""


class Batch(NamedTuple):
    """Scratch: some words that were found and whose places in the memo were asked for."""

    begins: NDArray[np.int64]
    """int64[BATCH]: first byte of each word."""
    lengths: NDArray[np.int64]
    """int64[BATCH]: bytes of each word."""
    marks: NDArray[np.int32]
    """int32[BATCH]: whatever the kernel wants to know of each word."""
    keys: NDArray[np.uint64]
    """uint64[2 * BATCH]: key of each word."""
    staged: NDArray[np.int32]
    """int32[STAGE * BATCH]: what the kernel has prepared of each word."""


def new_memo(num_slots: int = 1 << 21, zeros: Callable[..., Any] = np.zeros) -> Memo:
    """Return an empty memo.

    Args:
        num_slots: a power of two, at least 16: what bounds its memory (56 bytes a slot).
        zeros: as `numpy.zeros`; memory on huge pages makes it faster.
    """
    assert num_slots >= 16
    assert num_slots & (num_slots - 1) == 0
    return Memo(
        zeros(_SLOT_WORDS * num_slots, np.uint64),
        zeros(4 * num_slots + 2 * LONG_BYTES, np.int32),
        zeros(8 * num_slots + 2 * LONG_BYTES, np.uint8),
        np.zeros(4, np.int64),
    )


def new_batch() -> Batch:
    """Return scratch for BATCH words."""
    return Batch(
        np.zeros(BATCH, np.int64),
        np.zeros(BATCH, np.int64),
        np.zeros(BATCH, np.int32),
        np.zeros(2 * BATCH, np.uint64),
        np.zeros(STAGE * BATCH, np.int32),
    )


@inner
def word_key(data: NDArray[np.uint8], start: int, length: int) -> tuple[np.uint64, np.uint64]:
    """Return the key of data[start:start + length]; 1 <= length <= LONG_BYTES."""
    size = np.uint64(length)
    if length <= SHORT_BYTES:
        first = np.uint64(min(length, 8))
        low = load_u64(data, start) & (_ALL >> (_SIXTY_FOUR - _EIGHT * first))
        high = load_u64(data, start + 8) & ((_ONE << _EIGHT * (size - first)) - _ONE)
        return low, high | size << _FIFTY_SIX
    mixed = size
    for index in range(start, start + length - 8, 8):
        mixed = (mixed ^ load_u64(data, index)) * _HASH_1
        mixed ^= mixed >> _THIRTY_TWO
    mixed = (mixed ^ load_u64(data, start + length - 8)) * _HASH_2
    return mixed ^ mixed >> _THIRTY_TWO, size << _FIFTY_SIX


@inner
def home_slot(slots: NDArray[np.uint64], low: np.uint64, high: np.uint64) -> np.uint64:
    """Return where the search for a key begins: prefetch it, some words before `find`."""
    mixed = (low ^ high * _HASH_2) * _HASH_1
    mixed ^= mixed >> _THIRTY_TWO
    return (mixed * _HASH_2 >> _THIRTY_TWO << _TWO) & np.uint64(len(slots) - _SLOT_WORDS)


@inner
def find(
    slots: NDArray[np.uint64],
    text: NDArray[np.uint8],
    data: NDArray[np.uint8],
    start: int,
    length: int,
    low: np.uint64,
    high: np.uint64,
) -> tuple[np.uint64, bool]:
    """Return (first word of the slot with this key or of the free one for it, whether found)."""
    mask = np.uint64(len(slots) - _SLOT_WORDS)
    at = home_slot(slots, low, high)
    while True:
        kept = slots[at + _ONE]
        if kept == high and slots[at] == low:
            if length <= SHORT_BYTES:
                return at, True
            place = np.int64(slots[at + _TWO] >> _THIRTY_TWO)
            last = np.int64(length - 8)
            differs = load_u64(text, place + last) ^ load_u64(data, start + last)
            for index in range(0, last, 8):
                differs |= load_u64(text, place + index) ^ load_u64(data, start + index)
            if differs == _ZERO:
                return at, True
        elif kept == _ZERO:
            return at, False
        at = (at + np.uint64(_SLOT_WORDS)) & mask


@inner
def recall(
    slots: NDArray[np.uint64],
    ids: NDArray[np.int32],
    at: np.uint64,
    length: int,
    out: NDArray[np.int32],
    cursor: int,
) -> Any:
    """Write the ids of the slot to out[cursor:] (3 places at least) and return the new cursor."""
    where, rest = slots[at + _TWO], slots[at + _THREE]
    count = np.int64(rest & _LOW)
    if count <= 3 and length <= SHORT_BYTES:
        out[cursor] = np.int32(where & _LOW)
        out[cursor + 1] = np.int32(where >> _THIRTY_TWO)
        out[cursor + 2] = np.int32(rest >> _THIRTY_TWO)
    else:
        place = np.int64(where & _LOW)
        for index in range(count):
            out[cursor + index] = ids[place + index]
    return cursor + count


@inner
def keep(
    slots: NDArray[np.uint64],
    ids: NDArray[np.int32],
    text: NDArray[np.uint8],
    used: NDArray[np.int64],
    at: np.uint64,
    data: NDArray[np.uint8],
    start: int,
    length: int,
    low: np.uint64,
    high: np.uint64,
    out: NDArray[np.int32],
    cursor: int,
    count: int,
) -> None:
    """Remember that the word of this key has the ids out[cursor:cursor + count].

    `at` is the free slot that `find` returned. `count` is at most LONG_BYTES.
    """
    if (
        used[0] * 16 >= len(slots) * 3
        or used[1] + LONG_BYTES > len(ids)
        or used[2] + LONG_BYTES > len(text)
    ):
        for index in range(len(slots)):
            slots[index] = _ZERO
        used[0] = used[1] = used[2] = 0
        used[3] += 1
        at, _ = find(slots, text, data, start, length, low, high)
    used[0] += 1
    slots[at] = low
    slots[at + _ONE] = high
    if count <= 3 and length <= SHORT_BYTES:
        first = np.uint64(out[cursor]) if count > 0 else _ZERO
        second = np.uint64(out[cursor + 1]) if count > 1 else _ZERO
        third = np.uint64(out[cursor + 2]) if count > 2 else _ZERO
        slots[at + _TWO] = first | second << _THIRTY_TWO
        slots[at + _THREE] = np.uint64(count) | third << _THIRTY_TWO
        return
    slots[at + _TWO] = np.uint64(used[1]) | np.uint64(used[2]) << _THIRTY_TWO
    slots[at + _THREE] = np.uint64(count)
    for index in range(count):
        ids[used[1] + index] = out[cursor + index]
    used[1] += count
    if length > SHORT_BYTES:
        for index in range(0, length - 8, 8):
            store_u64(text, used[2] + index, load_u64(data, start + index))
        store_u64(text, used[2] + length - 8, load_u64(data, start + length - 8))
        used[2] += length
