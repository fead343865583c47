"""JSON lines flow in, the places of the wanted strings flow out: one pass over the bytes.

Each line is walked as RFC 8259 has it: an object, nested values and all. What every strict parser
reads alike is found here; a line with anything else (bad syntax, a key spelled with escapes or
twice, half a surrogate pair, an enormous number, deep nesting) is only marked `ODD`, and whoever
called reads it with a parser whose word counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .eight_bytes import find_special
from .jit import as_readonly, kernel
from .json_escapes import code_unit, short_escape
from .mixing import signed

GOOD, ODD = 0, 1
"""State of a line."""

MISSING, NULL, STRING, ESCAPED, LITERAL, OTHER = range(6)
"""What stands under a key: nothing, null, a string, one with escapes, a value whose JSON text is
the same whoever writes it (true, false, a whole number below 10^18), any other value."""

_MAX_DEPTH = 60
_MAX_DIGITS = 18
_END = -1
_WORDS = np.frombuffer(b"truefalsenull", np.uint8)

_QUOTE, _BACKSLASH, _LF = 0x22, 0x5C, 0x0A


def find_json_strings(
    data: NDArray[np.uint8], keys: NDArray[np.uint8], key_offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Find what stands under some keys of each line's object.

    Args:
        data: uint8[num_bytes], valid UTF-8, lines separated by LF.
        keys: uint8[], the wanted keys one after another, as UTF-8.
        key_offsets: int64[num_keys + 1].

    Returns:
        line_offsets: int64[num_lines + 1]; line i is
            data[line_offsets[i]:line_offsets[i + 1] - 1], without its LF.
        states: uint8[num_lines], GOOD or ODD.
        kinds: uint8[num_lines, num_keys], MISSING ... OTHER.
        spans: int64[num_lines, num_keys, 2], where each value begins and ends; strings without
            their quotes.

    The kinds of an odd line are all MISSING. Example: `{"a": 1, "b": "x"}` with the keys a and b
    has the kinds LITERAL and STRING and the spans (6, 7) and (15, 16).
    """
    data, keys = as_readonly(data, np.uint8), as_readonly(keys, np.uint8)
    key_offsets = as_readonly(key_offsets, np.int64)
    num_lines = int(np.count_nonzero(data == _LF)) + 1
    num_keys = len(key_offsets) - 1
    line_offsets = np.zeros(num_lines + 1, np.int64)
    states = np.zeros(num_lines, np.uint8)
    kinds = np.zeros((num_lines, num_keys), np.uint8)
    spans = np.zeros((num_lines, num_keys, 2), np.int64)
    _find_all(data, keys, key_offsets, line_offsets, states, kinds, spans)
    return line_offsets, states, kinds, spans


@kernel
def _find_all(
    data: NDArray[np.uint8],
    keys: NDArray[np.uint8],
    key_offsets: NDArray[np.int64],
    line_offsets: NDArray[np.int64],
    states: NDArray[np.uint8],
    kinds: NDArray[np.uint8],
    spans: NDArray[np.int64],
) -> None:
    position, size = signed(np.uint64(0)), len(data)
    for line in range(len(states)):
        line_offsets[line] = position
        position = _walk_line(data, position, keys, key_offsets, kinds[line], spans[line])
        if position < 0:
            states[line] = np.uint8(ODD)
            kinds[line, :] = np.uint8(MISSING)
            position = line_offsets[line]
            while position < size and data[position] != _LF:
                position += 1
        position += 1
    line_offsets[len(states)] = position


@kernel
def _walk_line(
    data: NDArray[np.uint8],
    position: int,
    keys: NDArray[np.uint8],
    key_offsets: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    spans: NDArray[np.int64],
) -> int:
    """Return the place of the line's LF (or the end of the data), _END if the line is odd."""
    size = len(data)
    position = _skip_space(data, position)
    if position >= size or data[position] != 0x7B:
        return _END
    position = _skip_space(data, position + 1)
    if position < size and data[position] == 0x7D:
        position += 1
    else:
        while True:
            if position >= size or data[position] != _QUOTE:
                return _END
            begin = position + 1
            position = find_special(data, begin)
            if position >= size or data[position] != _QUOTE:
                return _END
            key = _find_key(data, begin, position, keys, key_offsets)
            position = _skip_space(data, position + 1)
            if position >= size or data[position] != 0x3A:
                return _END
            begin = _skip_space(data, position + 1)
            position, kind = _skip_value(data, begin)
            if position < 0:
                return _END
            if key >= 0:
                if kinds[key] != MISSING:
                    return _END
                kinds[key] = np.uint8(kind)
                quotes = 1 if kind in (STRING, ESCAPED) else 0
                spans[key, 0], spans[key, 1] = begin + quotes, position - quotes
            position = _skip_space(data, position)
            if position >= size:
                return _END
            if data[position] == 0x7D:
                position += 1
                break
            if data[position] != 0x2C:
                return _END
            position = _skip_space(data, position + 1)
    position = _skip_space(data, position)
    return position if position >= size or data[position] == _LF else _END


@kernel
def _skip_space(data: NDArray[np.uint8], position: int) -> int:
    while position < len(data) and (
        data[position] == 0x20 or data[position] == 0x09 or data[position] == 0x0D
    ):
        position += 1
    return position


@kernel
def _find_key(
    data: NDArray[np.uint8],
    begin: int,
    end: int,
    keys: NDArray[np.uint8],
    key_offsets: NDArray[np.int64],
) -> int:
    for key in range(len(key_offsets) - 1):
        first = key_offsets[key]
        if key_offsets[key + 1] - first == end - begin:
            index = 0
            while index < end - begin and data[begin + index] == keys[first + index]:
                index += 1
            if index == end - begin:
                return key
    return -1


@kernel
def _skip_value(data: NDArray[np.uint8], position: int) -> tuple[int, int]:
    """Return the place after a value of any kind, or _END, and its kind."""
    if position >= len(data):
        return _END, OTHER
    first = data[position]
    if first == _QUOTE:
        return _skip_string(data, position + 1)
    if first == 0x7B or first == 0x5B:
        return _skip_nested(data, position), OTHER
    return _skip_scalar(data, position)


@kernel
def _skip_string(data: NDArray[np.uint8], position: int) -> tuple[int, int]:
    """Return the place after the closing quote, or _END, and STRING or ESCAPED."""
    kind, size = STRING, len(data)
    while True:
        position = find_special(data, position)
        if position >= size:
            return _END, kind
        if data[position] == _QUOTE:
            return position + 1, kind
        if data[position] != _BACKSLASH or position + 1 >= size:
            return _END, kind
        kind = ESCAPED
        letter = data[position + 1]
        if letter == 0x75:  # u
            unit = code_unit(data, position + 2)
            if unit < 0 or 0xDC00 <= unit < 0xE000:
                return _END, kind
            position += 6
            if 0xD800 <= unit < 0xDC00:
                if (
                    position + 1 >= size
                    or data[position] != _BACKSLASH
                    or data[position + 1] != 0x75
                    or not 0xDC00 <= code_unit(data, position + 2) < 0xE000
                ):
                    return _END, kind
                position += 6
        elif short_escape(letter) == 0:
            return _END, kind
        else:
            position += 2


@kernel
def _skip_nested(data: NDArray[np.uint8], position: int) -> int:
    """Return the place after an object or array, or _END."""
    size, depth = len(data), 0
    is_object = np.zeros(_MAX_DEPTH, np.bool_)
    while True:
        # Here a value begins.
        if position >= size:
            return _END
        first = data[position]
        opens = first == 0x7B or first == 0x5B
        if opens:
            if depth == _MAX_DEPTH:
                return _END
            is_object[depth] = first == 0x7B
            depth += 1
            position = _skip_space(data, position + 1)
            if position >= size:
                return _END
            opens = data[position] != (0x7D if is_object[depth - 1] else 0x5D)  # not empty
        elif first == _QUOTE:
            position, _ = _skip_string(data, position + 1)
        else:
            position, _ = _skip_scalar(data, position)
        if position < 0:
            return _END
        while not opens:
            # Here a value has ended, or an empty container is about to.
            position = _skip_space(data, position)
            if position >= size:
                return _END
            if data[position] == 0x2C:
                position = _skip_space(data, position + 1)
                break
            if data[position] != (0x7D if is_object[depth - 1] else 0x5D):
                return _END
            position += 1
            depth -= 1
            if depth == 0:
                return position
        if is_object[depth - 1]:
            if position >= size or data[position] != _QUOTE:
                return _END
            position, _ = _skip_string(data, position + 1)
            if position < 0:
                return _END
            position = _skip_space(data, position)
            if position >= size or data[position] != 0x3A:
                return _END
            position = _skip_space(data, position + 1)


@kernel
def _skip_scalar(data: NDArray[np.uint8], position: int) -> tuple[int, int]:
    """Return the place after true, false, null or a number, or _END, and the kind."""
    size, first = len(data), data[position]
    if first == 0x74:
        return _skip_word(data, position, 0, 4), LITERAL
    if first == 0x66:
        return _skip_word(data, position, 4, 9), LITERAL
    if first == 0x6E:
        return _skip_word(data, position, 9, 13), NULL
    kind = LITERAL
    is_negative = first == 0x2D
    if is_negative:
        position += 1
    begin = position
    position = _skip_digits(data, position)
    num_digits = position - begin
    if num_digits == 0 or (num_digits > 1 and data[begin] == 0x30):
        return _END, kind
    if is_negative and data[begin] == 0x30:
        kind = OTHER  # -0
    if position < size and data[position] == 0x2E:
        begin, kind = position + 1, OTHER
        position = _skip_digits(data, begin)
        if position == begin:
            return _END, kind
        num_digits += position - begin
    if num_digits > _MAX_DIGITS:
        return _END, kind
    if position < size and (data[position] == 0x65 or data[position] == 0x45):  # e E
        kind = OTHER
        position += 1
        if position < size and (data[position] == 0x2B or data[position] == 0x2D):
            position += 1
        begin = position
        position = _skip_digits(data, begin)
        if not 1 <= position - begin <= 2:  # larger ones may be out of range
            return _END, kind
    return position, kind


@kernel
def _skip_word(data: NDArray[np.uint8], position: int, first: int, last: int) -> int:
    """Return the place after the word _WORDS[first:last], or _END if it does not stand here."""
    if position + last - first > len(data):
        return _END
    for index in range(first, last):
        if data[position + index - first] != _WORDS[index]:
            return _END
    return position + last - first


@kernel
def _skip_digits(data: NDArray[np.uint8], position: int) -> int:
    while position < len(data) and 0x30 <= data[position] <= 0x39:
        position += 1
    return position
