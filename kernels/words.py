"""Bytes flow in eight at a time: the search that reading JSON spends its time in, and a copy.

A 64-bit word is eight bytes side by side. `zeros(w) = (w - 0x01..01) & ~w & 0x80..80` has the high
bit of the lowest zero byte set, and none if no byte is zero (Mycroft, 1987).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import kernel
from .mixing import signed

_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_QUOTES = np.uint64(0x2222222222222222)
_BACKSLASHES = np.uint64(0x5C5C5C5C5C5C5C5C)
_SPACES = np.uint64(0x2020202020202020)
_BYTE = np.uint64(8)
_BYTE_MASK = np.uint64(0xFF)
_SEVEN = np.uint64(7)
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TOP = np.uint64(56)
_INDEX = np.uint64(0x0001020304050607)


@kernel
def find_special(data: NDArray[np.uint8], position: int) -> int:
    """Return the place of the first quote, backslash or control character at or after `position`.

    These are the characters that do not stand for themselves in a JSON string; without one it is
    the end of the data.
    """
    last = len(data) - 8
    while position <= last:
        word = load_word(data, position)
        quotes, backslashes = word ^ _QUOTES, word ^ _BACKSLASHES
        found = (quotes - _ONES) & ~quotes
        found |= (backslashes - _ONES) & ~backslashes
        found |= (word - _SPACES) & ~word
        found &= _HIGH
        if found != _ZERO:
            lowest = (found & (~found + _ONE)) >> _SEVEN  # 256 ** index of the byte
            return position + signed((lowest * _INDEX) >> _TOP)
        position += 8
    while position < len(data):
        byte = data[position]
        if byte == 0x22 or byte == 0x5C or byte < 0x20:
            return position
        position += 1
    return position


@kernel
def load_word(data: NDArray[np.uint8], position: int) -> np.uint64:
    """Return the eight bytes at `position` as a little-endian number (one load, for LLVM)."""
    # An unsigned place cannot be one from the end: numba need not look, and LLVM joins the loads.
    start, word = np.uint64(position), _ZERO
    for index in range(8):
        offset = np.uint64(index)
        word |= np.uint64(data[start + offset]) << (_BYTE * offset)
    return word


@kernel
def store_word(data: NDArray[np.uint8], position: int, word: np.uint64) -> None:
    """Write a little-endian number as the eight bytes at `position`."""
    start = np.uint64(position)
    for index in range(8):
        offset = np.uint64(index)
        data[start + offset] = np.uint8((word >> (_BYTE * offset)) & _BYTE_MASK)


@kernel
def copy_plain(
    source: NDArray[np.uint8], start: int, end: int, target: NDArray[np.uint8], place: int
) -> int:
    """Copy source[start:end] to target[place:] up to the first backslash; return where it stopped.

    Eight bytes are written at a time: up to seven more than are copied, so the target has room.
    """
    last = len(source) - 8
    position = start
    while position < end and position <= last:
        word = load_word(source, position)
        store_word(target, place, word)
        found = word ^ _BACKSLASHES
        found = (found - _ONES) & ~found & _HIGH
        if found != _ZERO:
            lowest = (found & (~found + _ONE)) >> _SEVEN
            return min(position + signed((lowest * _INDEX) >> _TOP), end)
        position += 8
        place += 8
    while position < end and source[position] != 0x5C:
        target[place] = source[position]
        position += 1
        place += 1
    return min(position, end)
