"""Precompiled charsmaps of SentencePiece: bytes flow in, trie and values flow out, and back.

The bytes (sentencepiece, src/normalizer.cc): size of a double-array trie as uint32, little-endian;
the trie (darts-clone: units of uint32); values, each ended by NUL. A key's number in the trie is
the place of its value.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_HAS_LEAF = 1 << 8


def split_charsmap(raw: bytes) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Return (units of the trie, values).

    Raises:
        ValueError: the bytes are no charsmap.
    """
    if len(raw) < 8:
        raise ValueError("a precompiled charsmap of fewer than eight bytes")
    (size,) = struct.unpack_from("<I", raw)
    if size % 4 or size < 4 or 4 + size > len(raw):
        raise ValueError("a precompiled charsmap whose trie is longer than the charsmap")
    units = np.frombuffer(raw, "<u4", size // 4, 4).astype(np.uint32)
    return units, np.frombuffer(raw, np.uint8, offset=4 + size)


def write_charsmap(table: dict[str, str]) -> bytes:
    """Return a charsmap with these keys and values, neither with NUL."""
    values = b""
    places: dict[bytes, int] = {}
    for text, value in table.items():
        places[text.encode()] = len(values)
        values += value.encode() + b"\0"
    below: dict[bytes, set[int]] = {b"": set()}
    for key in places:
        for length in range(len(key)):
            below.setdefault(key[:length], set()).add(key[length])
            below.setdefault(key[: length + 1], set())
    units = {0: 0}
    bases: set[int] = set()  # no two nodes may share one: each would have the other's children
    free = 1
    waiting = [(b"", 0)]
    while waiting:
        key, unit = waiting.pop()
        labels = sorted(below[key] | ({0} if key in places else set()))
        while free in units:
            free += 1
        base = free ^ labels[0]
        while base in bases or any(base ^ label in units for label in labels):
            base += 1
        bases.add(base)
        units[unit] |= (unit ^ base) << 10 | (_HAS_LEAF if key in places else 0)
        for label in labels:
            if label == 0:
                units[base] = places[key] | 1 << 31
            else:
                units[base ^ label] = label
                waiting.append((key + bytes([label]), base ^ label))
    array = np.zeros((max(units) | 255) + 1, "<u4")
    array[list(units)] = list(units.values())
    return struct.pack("<I", array.nbytes) + array.tobytes() + values
