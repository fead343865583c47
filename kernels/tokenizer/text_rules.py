"""Segments of text flow in, the same with characters mapped, runs and strings replaced flow out.

What the small normalizers of Unigram tokenizers do: `Nmt` and `Lowercase` map characters by a
table, `Replace` puts a string in place of another one, or of runs of two spaces and more; `Strip`
moves the ends of a segment.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..jit import borrowing_kernel as kernel
from .code_points import decode, encode, place
from .unigram import is_white

MAP, REPLACE, REPLACE_RUNS, STRIP = 0, 1, 2, 3
"""What `apply_text_rule` does: map characters; replace `pattern` by `content`; replace two or more
of `pattern` (one byte) by `content`; strip white space (pattern[0] & 1: left, & 2: right)."""

GONE = 0x1FFFFF
"""In `characters`: the character is left out."""


@kernel
def apply_text_rule(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    tokens: NDArray[np.int32],
    rule: int,
    stage1: NDArray[np.uint16],
    characters: NDArray[np.int32],
    pattern: NDArray[np.uint8],
    content: NDArray[np.uint8],
    out: NDArray[np.uint8],
    new_starts: NDArray[np.int64],
    new_ends: NDArray[np.int64],
) -> int:
    """Apply one rule to text segments.

    Args:
        data: valid UTF-8, readable 64 bytes past the largest end.
        starts: int64[s], and `ends`: the bytes of each segment.
        tokens: int32[s]: segments with an id >= 0 become empty.
        rule: MAP, REPLACE, REPLACE_RUNS or STRIP.
        stage1: uint16[4352], block of each 256 code points (of MAP).
        characters: int32[256 * blocks]: 0: itself; GONE; else what it becomes, and from bit 21 on
            that of a second one (of MAP; code points below 2048).
        pattern: what is replaced, UTF-8.
        content: what it is replaced by, UTF-8.
        out: uint8[...], written (STRIP writes nothing).
        new_starts: int64[s], and `new_ends`, written: bytes of each segment in `out` (of STRIP: in
            `data`).

    Returns:
        The number of bytes written.
    """
    cursor = 0
    for segment in range(len(starts)):
        at, end = starts[segment], ends[segment]
        if tokens[segment] >= 0:
            end = at
        new_starts[segment] = at if rule == STRIP else cursor
        if rule == STRIP:
            while pattern[0] & 1 and at < end:
                code_point, width = decode(data, at)
                if not is_white(code_point):
                    break
                at += width
            while pattern[0] & 2 and at < end:
                back = end - 1
                while data[back] & 0xC0 == 0x80:
                    back -= 1
                code_point, width = decode(data, back)
                if not is_white(code_point):
                    break
                end = back
            new_starts[segment], new_ends[segment] = at, end
            continue
        while at < end:
            if rule == MAP:
                code_point, width = decode(data, at)
                entry = np.int64(characters[place(stage1, code_point)])
                if entry == 0:
                    for index in range(width):
                        out[cursor + index] = data[at + index]
                    cursor += width
                elif entry != GONE:
                    cursor += encode(entry & GONE, out, cursor)
                    if entry >> 21:
                        cursor += encode(entry >> 21, out, cursor)
                at += width
                continue
            length = 0
            if rule == REPLACE:
                while length < len(pattern) and at + length < end:
                    if data[at + length] != pattern[length]:
                        break
                    length += 1
                matches = length == len(pattern)
            else:
                while at + length < end and data[at + length] == pattern[0]:
                    length += 1
                matches = length >= 2
            if matches:
                for index in range(len(content)):
                    out[cursor + index] = content[index]
                cursor += len(content)
                at += length
            else:
                out[cursor] = data[at]
                cursor += 1
                at += 1
        new_ends[segment] = cursor
    return cursor
