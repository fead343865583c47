"""Segments of text flow in, what SentencePiece's precompiled charsmap makes of them flows out.

`tokenizers` does not look for the longest key, as SentencePiece does. It walks over extended
grapheme clusters (Unicode Standard Annex 29). A cluster of less than six bytes that begins with a
key becomes the value of the *shortest* such key, all of it; every other cluster is looked up
character by character. So "A" and a combining acute become the value of "A" where "A" is a key.

Most characters are their own cluster and no key. A table says so; only beside one that may join
its neighbours does the walk look for the cluster's end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .code_points import decode, encode, place
from .intrinsics import load_u64

(OTHER, CONTROL, CR, LF, EXTEND, SPACING, ZWJ, PREPEND, HANGUL_L, HANGUL_V, HANGUL_T, HANGUL_LV,
 HANGUL_LVT, REGIONAL) = range(14)  # fmt: skip
"""How a code point joins its neighbours (Grapheme_Cluster_Break)."""

BREAK_MASK, PICTOGRAPH, CONSONANT, LINKER, CONJUNCT_EXTEND = 15, 16, 32, 64, 128
"""Bits of `joins`: the class above; Extended_Pictographic; Indic_Conjunct_Break."""

_ONES, _SPACES, _HIGHS = (
    np.uint64(0x0101010101010101),
    np.uint64(0x2020202020202020),
    np.uint64(0x8080808080808080),
)

SHORT_CLUSTER = 6
"""Clusters of fewer bytes are looked up whole."""


class CharsmapTables(NamedTuple):
    """A charsmap, by code points."""

    stage1: NDArray[np.uint16]
    """uint16[4352]: block of each 256 code points."""
    characters: NDArray[np.int32]
    """int32[256 * blocks]: joins | (place of the value of the character + 1) << 8; 0: none."""
    units: NDArray[np.uint32]
    """Double-array trie of the keys, over bytes (darts-clone)."""
    values: NDArray[np.uint8]
    """Values, each ended by NUL."""


@kernel
def normalize_charsmap(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    tokens: NDArray[np.int32],
    tables: CharsmapTables,
    out: NDArray[np.uint8],
    new_starts: NDArray[np.int64],
    new_ends: NDArray[np.int64],
) -> int:
    """Normalize text segments.

    Args:
        data: valid UTF-8, readable 64 bytes past the largest end.
        starts: int64[s], and `ends`: the bytes of each segment.
        tokens: int32[s]: segments with an id >= 0 become empty.
        tables: of the charsmap.
        out: uint8[at least text bytes times the largest growth + 64], written.
        new_starts: int64[s], and `new_ends`, written: bytes of each segment in `out`.

    Returns:
        The number of bytes written.
    """
    stage1, characters, units, values = tables
    plain_ascii = True
    for code_point in range(0x20, 0x7F):
        plain_ascii = plain_ascii and characters[place(stage1, code_point)] == 0
    cursor = 0
    for segment in range(len(starts)):
        new_starts[segment] = cursor
        new_ends[segment] = cursor
        if tokens[segment] >= 0:
            continue
        at, end = starts[segment], ends[segment]
        copied = at  # what is before this place is in `out`; from here to `at` is text that stays
        while at < end:
            # Eight printable ASCII characters, and another one behind the last of them.
            while plain_ascii and at + 8 < end and data[at + 8] < 0x80:
                word = load_u64(data, at)
                if (word | (word + _ONES) | ((word - _SPACES) & ~word)) & _HIGHS != np.uint64(0):
                    break
                at += 8
            code_point, width = decode(data, at)
            entry = characters[place(stage1, code_point)]
            behind = at + width
            next_entry = np.int32(0)
            if behind < end:
                after, _ = decode(data, behind)
                next_entry = characters[place(stage1, after)]
            if (entry | next_entry) & 255 == 0 or behind == end:  # nothing that joins
                if entry >> 8 > 0:
                    cursor = _copy(data, copied, at, out, cursor)
                    cursor = _write_value(values, np.int64(entry >> 8) - 1, out, cursor)
                    copied = behind
                at = behind
                continue
            stop = cluster_end(data, at, end, stage1, characters)
            value = -1
            if stop - at < SHORT_CLUSTER and stop > behind:
                value = shortest_key(data, at, stop, units)
            if value >= 0:
                cursor = _copy(data, copied, at, out, cursor)
                cursor = _write_value(values, value, out, cursor)
                at = copied = stop
            while at < stop:
                code_point, width = decode(data, at)
                entry = characters[place(stage1, code_point)]
                if entry >> 8 > 0:
                    cursor = _copy(data, copied, at, out, cursor)
                    cursor = _write_value(values, np.int64(entry >> 8) - 1, out, cursor)
                    copied = at + width
                at += width
        cursor = _copy(data, copied, end, out, cursor)
        new_ends[segment] = cursor
    return cursor


@inner
def _copy(
    data: NDArray[np.uint8], begin: int, end: int, out: NDArray[np.uint8], cursor: int
) -> int:
    for index in range(end - begin):
        out[cursor + index] = data[begin + index]
    return cursor + end - begin


@inner
def _write_value(values: NDArray[np.uint8], value: Any, out: NDArray[np.uint8], cursor: int) -> int:
    while value < len(values) and values[value] != 0:
        out[cursor] = values[value]
        cursor += 1
        value += 1
    return cursor


@inner
def shortest_key(data: NDArray[np.uint8], at: int, stop: int, units: NDArray[np.uint32]) -> Any:
    """Return the place of the value of the shortest key that data[at:stop] begins with, or -1."""
    node = _offset(np.int64(units[0]))
    while at < stop:
        byte = np.int64(data[at])
        node ^= byte
        if byte == 0 or node >= len(units):
            return -1
        unit = np.int64(units[node])
        if unit & 0x800000FF != byte:
            return -1
        node ^= _offset(unit)
        if unit & 0x100:
            return np.int64(units[node]) & 0x7FFFFFFF
        at += 1
    return -1


@inner
def _offset(unit: Any) -> Any:
    return (unit >> 10) << ((unit & 0x200) >> 6)


@kernel
def find_values(
    units: NDArray[np.uint32], text: NDArray[np.uint8], found: NDArray[np.int32]
) -> None:
    """Write, for each Unicode scalar value, the place of its value or -1 to found[0x110000].

    text: uint8[4], scratch.
    """
    for code_point in range(0x110000):
        found[code_point] = -1
        if not 0xD800 <= code_point <= 0xDFFF:
            length = encode(code_point, text, 0)
            found[code_point] = shortest_key(text, 0, length, units)


@inner
def cluster_end(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    stage1: NDArray[np.uint16],
    characters: NDArray[np.int32],
) -> int:
    """Return where the extended grapheme cluster that begins at `at` ends."""
    code_point, width = decode(data, at)
    last = np.int64(characters[place(stage1, code_point)]) & 255
    at += width
    emoji = 1 if last & PICTOGRAPH else 0  # 1: a pictograph and Extend; 2: and then a joiner
    conjunct = 1 if last & CONSONANT else 0  # 1: a consonant and Extend; 2: a linker among them
    regionals = 1 if last & BREAK_MASK == REGIONAL else 0
    while at < end:
        code_point, width = decode(data, at)
        joins = np.int64(characters[place(stage1, code_point)]) & 255
        before, after = last & BREAK_MASK, joins & BREAK_MASK
        if before == CR and after == LF:  # GB3
            return at + width
        if CONTROL <= before <= LF or CONTROL <= after <= LF:  # GB4, GB5
            return at
        if not (
            EXTEND <= after <= ZWJ  # GB9, GB9a
            or before == PREPEND  # GB9b
            or (before == HANGUL_L and after in (HANGUL_L, HANGUL_V, HANGUL_LV, HANGUL_LVT))  # GB6
            or (before in (HANGUL_LV, HANGUL_V) and after in (HANGUL_V, HANGUL_T))  # GB7
            or (before in (HANGUL_LVT, HANGUL_T) and after == HANGUL_T)  # GB8
            or (conjunct == 2 and joins & CONSONANT != 0)  # GB9c
            or (emoji == 2 and joins & PICTOGRAPH != 0)  # GB11
            or (before == REGIONAL and after == REGIONAL and regionals & 1 == 1)  # GB12, GB13
        ):
            return at
        if joins & PICTOGRAPH:
            emoji = 1
        elif emoji > 0:
            emoji = 2 if emoji == 1 and after == ZWJ else 1 if emoji == 1 and after == EXTEND else 0
        if joins & CONSONANT:
            conjunct = 1
        elif conjunct > 0 and joins & LINKER:
            conjunct = 2
        elif joins & CONJUNCT_EXTEND == 0:
            conjunct = 0
        if after == REGIONAL:
            regionals += 1
        last = joins
        at += width
    return end
