"""JSON lines by regular expressions and recursion."""

from __future__ import annotations

import itertools
import re

import numpy as np
from numpy.typing import NDArray

from ..json_lines import ESCAPED, GOOD, LITERAL, NULL, ODD, OTHER, STRING

_SPACE = re.compile(rb"[ \t\r]*")
_KEY = re.compile(rb'"([^"\\\x00-\x1f]*)"')
_HEX = rb"[\da-fA-F]"
_STRING = re.compile(
    rb'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])' + _HEX + rb"{4}"
    rb"|\\u[dD][89abAB]" + _HEX + rb"{2}\\u[dD][c-fC-F]" + _HEX + rb'{2})*"'
)
_NUMBER = re.compile(rb"-?(0|[1-9]\d*)(\.\d+)?(?:[eE][+-]?\d+)?")
_MAX_DEPTH, _MAX_DIGITS, _MAX_EXPONENT_DIGITS = 60, 18, 2


class _OddError(Exception):
    pass


def find_json_strings(
    data: NDArray[np.uint8], keys: NDArray[np.uint8], key_offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    """Return (line_offsets, states, kinds, spans) as the kernel does."""
    names = [keys[start:end].tobytes() for start, end in itertools.pairwise(key_offsets.tolist())]
    lines = data.tobytes().split(b"\n")
    line_offsets = np.cumsum([0, *(len(line) + 1 for line in lines)], dtype=np.int64)
    states = np.full(len(lines), GOOD, np.uint8)
    kinds = np.zeros((len(lines), len(names)), np.uint8)
    spans = np.zeros((len(lines), len(names), 2), np.int64)
    for number, line in enumerate(lines):
        try:
            found = _members(line, set(names))
        except _OddError:
            states[number] = ODD
            continue
        for index, name in enumerate(names):
            if name in found and name not in names[:index]:
                kind, start, end = found[name]
                kinds[number, index] = kind
                spans[number, index] = line_offsets[number] + start, line_offsets[number] + end
    return line_offsets, states, kinds, spans


def _members(line: bytes, wanted: set[bytes]) -> dict[bytes, tuple[int, int, int]]:
    """Return the wanted keys of the line's object: (kind, start, end) of each value."""
    found = {}
    position = _expect(line, _skip(line, 0), b"{")
    if line[position : position + 1] != b"}":
        while True:
            match = _KEY.match(line, position)
            if not match:
                raise _OddError
            start = _expect(line, _skip(line, match.end()), b":")
            kind, end = _value(line, start, 0)
            if match[1] in wanted:
                if match[1] in found:
                    raise _OddError
                quotes = kind in (STRING, ESCAPED)
                found[match[1]] = kind, start + quotes, end - quotes
            position = _skip(line, end)
            if line[position : position + 1] == b"}":
                break
            position = _expect(line, position, b",")
    if _skip(line, position + 1) != len(line):
        raise _OddError
    return found


def _skip(line: bytes, position: int) -> int:
    match = _SPACE.match(line, position)
    assert match
    return match.end()


def _expect(line: bytes, position: int, character: bytes) -> int:
    if line[position : position + 1] != character:
        raise _OddError
    return _skip(line, position + 1)


def _value(line: bytes, position: int, depth: int) -> tuple[int, int]:
    """Return the kind of the value at `position` and where it ends."""
    first = line[position : position + 1]
    if first in (b"{", b"["):
        return OTHER, _container(line, position, depth + 1)
    if match := _STRING.match(line, position):
        return ESCAPED if b"\\" in match[0] else STRING, match.end()
    for word in (b"true", b"false", b"null"):
        if line.startswith(word, position):
            return NULL if word == b"null" else LITERAL, position + len(word)
    match = _NUMBER.match(line, position)
    if not match:
        raise _OddError
    mantissa, _, exponent = match[0].lower().partition(b"e")
    num_digits = len(re.findall(rb"\d", mantissa))
    if num_digits > _MAX_DIGITS or len(exponent.strip(b"+-")) > _MAX_EXPONENT_DIGITS:
        raise _OddError
    is_plain = mantissa == match[0] and not match[2] and mantissa != b"-0"
    return LITERAL if is_plain else OTHER, match.end()


def _container(line: bytes, position: int, depth: int) -> int:
    if depth > _MAX_DEPTH:
        raise _OddError
    is_object = line[position : position + 1] == b"{"
    close = b"}" if is_object else b"]"
    position = _skip(line, position + 1)
    if line[position : position + 1] == close:
        return position + 1
    while True:
        if is_object:
            match = _STRING.match(line, position)
            if not match:
                raise _OddError
            position = _expect(line, _skip(line, match.end()), b":")
        _, position = _value(line, position, depth)
        position = _skip(line, position)
        if line[position : position + 1] == close:
            return position + 1
        position = _expect(line, position, b",")
