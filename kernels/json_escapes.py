"""Strings as JSON writes them flow in, their characters flow out: escapes resolved, UTF-8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .eight_bytes import copy_plain
from .jit import as_readonly, kernel
from .mixing import signed


def unescape_json(
    data: NDArray[np.uint8], spans: NDArray[np.int64], escaped: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Put strings that `find_json_strings` found one after another, escapes resolved.

    Args:
        data: uint8[num_bytes], as it was given there.
        spans: int64[num_strings, 2], of kinds STRING and ESCAPED only.
        escaped: bool[num_strings]; False: the string has no escape.

    Returns:
        text: uint8[at least the text's bytes], UTF-8; at least 64 bytes follow the last string.
        offsets: int64[num_strings + 1]. Example: `x\\n` and `\\u00e9` give "x\\né" and [0, 2, 4].
    """
    data, spans = as_readonly(data, np.uint8), as_readonly(spans, np.int64)
    escaped = as_readonly(escaped, np.bool_)
    sizes = spans[:, 1] - spans[:, 0]
    if len(spans) and (spans.min() < 0 or spans.max() > len(data) or sizes.min() < 0):
        raise ValueError("a span lies outside the data: give those of find_json_strings")
    text = np.zeros(int(sizes.sum()) + 64, np.uint8)
    offsets = np.zeros(len(spans) + 1, np.int64)
    _unescape_all(data, spans, escaped, text, offsets)
    return text, offsets


@kernel
def code_unit(data: NDArray[np.uint8], position: int) -> int:
    """Return the number that four hexadecimal digits spell, or -1."""
    if position + 4 > len(data):
        return -1
    unit = 0
    for index in range(position, position + 4):
        digit = signed(data[index])
        if 0x30 <= digit <= 0x39:
            digit -= 0x30
        elif 0x41 <= digit <= 0x46:
            digit -= 0x41 - 10
        elif 0x61 <= digit <= 0x66:
            digit -= 0x61 - 10
        else:
            return -1
        unit = unit * 16 + digit
    return unit


@kernel
def short_escape(letter: np.uint8) -> np.uint8:
    """Return the character that a backslash and `letter` stand for, 0 if there is none."""
    if letter == 0x6E:  # n
        return np.uint8(0x0A)
    if letter in (0x22, 0x5C, 0x2F):  # " \ /
        return np.uint8(letter)
    if letter == 0x74:  # t
        return np.uint8(0x09)
    if letter == 0x72:  # r
        return np.uint8(0x0D)
    if letter == 0x62:  # b
        return np.uint8(0x08)
    if letter == 0x66:  # f
        return np.uint8(0x0C)
    return np.uint8(0)


@kernel
def _unescape_all(
    data: NDArray[np.uint8],
    spans: NDArray[np.int64],
    escaped: NDArray[np.bool_],
    text: NDArray[np.uint8],
    offsets: NDArray[np.int64],
) -> None:
    written = 0
    for index in range(len(spans)):
        position, end = spans[index, 0], spans[index, 1]
        while position < end:
            stop = copy_plain(data, position, end, text, written)
            written += stop - position
            position = stop
            if position < end:
                position, written = _resolve(data, position, end, text, written)
        offsets[index + 1] = written


@kernel
def _resolve(
    data: NDArray[np.uint8], position: int, end: int, text: NDArray[np.uint8], written: int
) -> tuple[int, int]:
    """Write the character of the escape at `position`; return the places after both."""
    if position + 1 >= end or data[position + 1] != 0x75:
        if position + 1 < end:
            text[written] = short_escape(data[position + 1])
        return position + 2, written + 1
    code = max(code_unit(data, position + 2), 0)
    position += 6
    if 0xD800 <= code < 0xDC00:
        code = 0x10000 + ((code - 0xD800) << 10) + (code_unit(data, position + 2) & 0x3FF)
        position += 6
    if code < 0x80:
        text[written] = np.uint8(code)
        return position, written + 1
    if code < 0x800:
        text[written] = np.uint8(0xC0 | code >> 6)
        text[written + 1] = np.uint8(0x80 | code & 0x3F)
        return position, written + 2
    if code < 0x10000:
        text[written] = np.uint8(0xE0 | code >> 12)
        text[written + 1] = np.uint8(0x80 | (code >> 6) & 0x3F)
        text[written + 2] = np.uint8(0x80 | code & 0x3F)
        return position, written + 3
    text[written] = np.uint8(0xF0 | code >> 18)
    text[written + 1] = np.uint8(0x80 | (code >> 12) & 0x3F)
    text[written + 2] = np.uint8(0x80 | (code >> 6) & 0x3F)
    text[written + 3] = np.uint8(0x80 | code & 0x3F)
    return position, written + 4
