"""Winnowing with every stretch hashed from its own bytes and every window looked at whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .hashing import MASK, document_ranges, mix64

BASE = 0x9E3779B97F4A7C15
NOWHERE = MASK


def winnow(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], length: int, spacing: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Return document, start, end and hash of each chosen stretch."""
    text = data.tobytes()
    rows: list[tuple[int, int, int, int]] = []
    for document, (first, end) in enumerate(document_ranges(offsets)):
        values = [_rank(text, place, length) for place in range(first, end - length + 1)]
        chosen = -1
        for last in range(spacing - 1, len(values)):
            window = range(last - spacing + 1, last + 1)
            smallest = min(values[place] for place in window)
            if smallest == NOWHERE or (chosen in window and values[chosen] == smallest):
                continue
            chosen = max(place for place in window if values[place] == smallest)
            stop = first + chosen + length
            while stop < end and _is_inside(text[stop]):
                stop -= 1
            start = first + chosen
            rows.append((document, start, stop, _hash(text[start:stop])))
    columns = np.array([row[:3] for row in rows], np.int64).reshape(-1, 3).T
    hashes = np.array([row[3] for row in rows], np.uint64)
    return columns[0].copy(), columns[1].copy(), columns[2].copy(), hashes


def _rank(text: bytes, place: int, length: int) -> int:
    """Return the mixed polynomial of a stretch; the largest number within a character."""
    if _is_inside(text[place]):
        return NOWHERE
    total = 0
    for byte in text[place : place + length]:
        total = total * BASE + byte + 1 & MASK
    return mix64(total)


def _is_inside(byte: int) -> bool:
    return 128 <= byte < 192


def _hash(stretch: bytes) -> int:
    total = len(stretch)
    for place in range(0, len(stretch), 8):
        word = int.from_bytes(stretch[place : place + 8], "little")
        total = mix64(total ^ word) + BASE & MASK
    return total
