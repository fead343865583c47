"""Documents flow in, hashes of chosen stretches of text flow out: long copies share one of them.

Winnowing (Schleimer, Wilkerson & Aiken, SIGMOD 2003, the robust variant): of every `spacing`
consecutive places the one whose stretch of `length` bytes has the smallest rolling hash is chosen.
So two texts that share `length + spacing - 1` bytes anywhere have a chosen stretch in common, and
about one place in `spacing / 2` is chosen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .hashing import check_offsets
from .jit import as_readonly, kernel
from .mixing import mix64

_BASE = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)
_EIGHT = np.uint64(8)
_NOWHERE = np.uint64(0xFFFFFFFFFFFFFFFF)


def winnow(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], length: int, spacing: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Choose stretches of each document by their content.

    Args:
        data: uint8[num_bytes], UTF-8 texts one after another.
        offsets: int64[num_documents + 1], non-decreasing, within `data`.
        length: bytes of a stretch, 4 or more.
        spacing: places of which one is chosen, 4 or more (a character has as many bytes).

    Returns:
        documents int64[n], starts int64[n], ends int64[n] (places in `data`; both between
        characters, so a stretch may be up to 3 bytes shorter than `length`) and hashes uint64[n]
        of the bytes between them, in order. Documents shorter than length + spacing - 1 have none.
    """
    if length < 4 or spacing < 4:
        raise ValueError(f"length {length} and spacing {spacing}: both are 4 bytes or more")
    data, offsets = as_readonly(data, np.uint8), as_readonly(offsets, np.int64)
    check_offsets(data, offsets)
    room = 4 * len(data) // spacing + len(offsets) + 16
    while True:
        places = np.empty((3, room), np.int64)
        hashes = np.empty(room, np.uint64)
        count = _winnow(data, offsets, length, spacing, places, hashes)
        if count <= room:
            documents, starts, ends = places[:, :count].copy()
            return documents, starts, ends, hashes[:count].copy()
        room = count


@kernel
def _winnow(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    length: int,
    spacing: int,
    places: NDArray[np.int64],
    hashes: NDArray[np.uint64],
) -> int:
    """Fill the arrays as far as they reach; return how many stretches there are."""
    ring = np.empty(spacing, np.uint64)
    leaving = _ONE  # _BASE ** length
    for _ in range(length):
        leaving *= _BASE
    count = 0
    for document in range(len(offsets) - 1):
        first, end = offsets[document], offsets[document + 1]
        num_places = end - first - length + 1
        if num_places < spacing:
            continue
        rolling = np.uint64(0)
        for index in range(length - 1):
            rolling = rolling * _BASE + (np.uint64(data[first + index]) + _ONE)
        chosen, smallest = np.int64(-1), _NOWHERE
        slot = np.int64(-1)  # of `place` in the ring
        for place in range(num_places):
            slot = slot + 1 if slot + 1 < spacing else np.int64(0)
            entering = data[first + place + length - 1]
            rolling = rolling * _BASE + (np.uint64(entering) + _ONE)
            if place > 0:
                rolling -= leaving * (np.uint64(data[first + place - 1]) + _ONE)
            value = _NOWHERE
            if not _is_inside(data[first + place]):
                value = mix64(rolling)
            ring[slot] = value
            if place < spacing - 1:
                continue
            if chosen <= place - spacing:  # it has left: the last of the smallest is chosen
                smallest = _NOWHERE
                for back in range(spacing):
                    other = slot - back if back <= slot else slot - back + spacing
                    if ring[other] < smallest:
                        chosen, smallest = np.int64(place - back), ring[other]
            elif value < smallest:
                chosen, smallest = np.int64(place), value
            else:
                continue
            if smallest == _NOWHERE:
                continue
            if count < len(hashes):
                start = first + chosen
                stop = start + length
                while stop < end and _is_inside(data[stop]):
                    stop -= 1
                places[0, count] = document
                places[1, count] = start
                places[2, count] = stop
                hashes[count] = _hash(data, start, stop)
            count += 1
    return count


@kernel
def _is_inside(byte: np.uint8) -> bool:
    """Return whether a byte continues a character of UTF-8."""
    return bool(128 <= byte < 192)


@kernel
def _hash(data: NDArray[np.uint8], start: int, stop: int) -> np.uint64:
    """Hash a stretch eight bytes at a time, each word mixed into what came before."""
    total = np.uint64(stop - start)
    position = start
    while position < stop:
        word = np.uint64(0)
        for index in range(min(8, stop - position)):
            word |= np.uint64(data[position + index]) << (_EIGHT * np.uint64(index))
        total = mix64(total ^ word) + _BASE
        position += 8
    return total
