"""Canonical composition (NFC): segments of a text flow in, the same segments composed flow out.

Unicode Standard Annex 15. Most text is composed already, and its quick check says so: every code
point may stand in composed text, and combining marks stand in the order of their classes. Only
where it does not say so, the text from the last starter to the next is decomposed, sorted and
composed. The tables are Unicode 9, as in `tokenizers`: marks that are newer are starters to it.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import as_readonly
from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .classes import fold, load_unicode
from .intrinsics import between64, equal64, trailing_zeros

CHECK = 256
"""In `ComposeTables.stage2`, beside the combining class: may not stand composed as it is."""

_0, _1, _2 = np.uint64(0), np.uint64(1), np.uint64(2)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_L, _V, _T, _S = 0x1100, 0x1161, 0x11A7, 0xAC00  # Hangul: leading, vowel, trailing (less 1)
_HANGUL = 11172


class ComposeTables(NamedTuple):
    """Unicode's tables for composition; arrays are read-only."""

    stage1: Any  # uint8[4352]
    stage2: Any  # uint16[n]: combining class | CHECK
    decomposed: Any  # int32[n, 5]: code point (sorted), its full decomposition, 0 behind it
    composed: Any  # int64[n, 2]: first << 32 | second (sorted), and their composite


@cache
def load_compose_tables() -> ComposeTables:
    """Return the tables out of unicode.npz."""
    data = load_unicode()
    decomposed, composed = data["decomposed"].astype(np.int64), data["composed"].astype(np.int64)
    table = data["combining"].astype(np.uint16)
    primary = np.isin(decomposed[:, 0], composed[:, 2])
    table[decomposed[~primary, 0]] |= CHECK
    table[composed[:, 1]] |= CHECK
    table[_V : _V + 21] |= CHECK
    table[_T + 1 : _T + 28] |= CHECK
    stage1, stage2 = fold(table)
    keys = composed[:, 0] << 32 | composed[:, 1]
    order = np.argsort(keys)
    return ComposeTables(
        stage1=as_readonly(stage1, np.uint8),
        stage2=as_readonly(stage2.reshape(-1), np.uint16),
        decomposed=as_readonly(decomposed[np.argsort(decomposed[:, 0])].astype(np.int32), np.int32),
        composed=as_readonly(np.stack([keys[order], composed[order, 2]], 1), np.int64),
    )


@inner
def _decode(data: Any, at: Any) -> Any:
    """Return (code point, bytes) at data[at]."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, np.int64(1)
    second = np.int64(data[at + 1]) & 0x3F
    if first < 0xE0:
        return (first & 0x1F) << 6 | second, np.int64(2)
    third = np.int64(data[at + 2]) & 0x3F
    if first < 0xF0:
        return (first & 0x0F) << 12 | second << 6 | third, np.int64(3)
    fourth = np.int64(data[at + 3]) & 0x3F
    return (first & 0x07) << 18 | second << 12 | third << 6 | fourth, np.int64(4)


@inner
def _write(out: Any, at: Any, code: Any) -> Any:
    """Write a code point as UTF-8; return where the next one goes."""
    if code < 0x80:
        out[at] = np.uint8(code)
        return at + 1
    if code < 0x800:
        out[at] = np.uint8(0xC0 | code >> 6)
        out[at + 1] = np.uint8(0x80 | (code & 0x3F))
        return at + 2
    if code < 0x10000:
        out[at] = np.uint8(0xE0 | code >> 12)
        out[at + 1] = np.uint8(0x80 | (code >> 6 & 0x3F))
        out[at + 2] = np.uint8(0x80 | (code & 0x3F))
        return at + 3
    out[at] = np.uint8(0xF0 | code >> 18)
    out[at + 1] = np.uint8(0x80 | (code >> 12 & 0x3F))
    out[at + 2] = np.uint8(0x80 | (code >> 6 & 0x3F))
    out[at + 3] = np.uint8(0x80 | (code & 0x3F))
    return at + 4


@inner
def _bits(tables: Any, code: Any) -> Any:
    return np.int64(tables.stage2[np.int64(tables.stage1[code >> 8]) * 256 + (code & 255)])


@inner
def _third(data: Any, at: Any, low: Any, size: Any) -> Any:
    """Return the mask of the bytes whose next but one is from `low` up to low + size."""
    return between64(data, at, low, size) >> _2


@inner
def _plain(data: Any, at: Any, leads: Any) -> Any:
    """Return those first bytes of characters that the tables have nothing to say of.

    They are told by their bytes alone, whole scripts at a time (tests hold this to the tables);
    what these do not tell is looked up by the caller.
    """
    plain = between64(data, at, np.uint8(0xC2), np.uint8(10))  # Latin
    plain |= between64(data, at, np.uint8(0xD0), np.uint8(2))  # Cyrillic
    plain |= between64(data, at, np.uint8(0xE4), np.uint8(6))  # Han
    plain |= between64(data, at, np.uint8(0xEB), np.uint8(2))  # Hangul
    left = leads & ~plain
    if left == _0:
        return plain
    found = left & equal64(data, at, np.uint8(0xD8))
    if found:
        plain |= found & (between64(data, at, np.uint8(0xA0), np.uint8(0x20)) >> _1)
    found = left & equal64(data, at, np.uint8(0xD9))
    if found:
        second = between64(data, at, np.uint8(0x80), np.uint8(0x0B))
        second |= between64(data, at, np.uint8(0xB1), np.uint8(0x0F))
        plain |= found & (second >> _1)
    seen = _ALL >> _2  # the third byte stands in the window
    found = left & seen & equal64(data, at, np.uint8(0xE3))
    if found:
        plain |= found & (equal64(data, at, np.uint8(0x81)) >> _1)
        plain |= found & (equal64(data, at, np.uint8(0x83)) >> _1)
        voiced = _third(data, at, np.uint8(0x99), np.uint8(2))
        plain |= found & (equal64(data, at, np.uint8(0x82)) >> _1) & ~voiced
        tones = _third(data, at, np.uint8(0xAA), np.uint8(6))
        plain |= found & (equal64(data, at, np.uint8(0x80)) >> _1) & ~tones
    found = left & seen & equal64(data, at, np.uint8(0xE0))
    if found:
        vowels = _third(data, at, np.uint8(0xB8), np.uint8(3))
        plain |= found & (equal64(data, at, np.uint8(0xB8)) >> _1) & ~vowels
        tones = _third(data, at, np.uint8(0x88), np.uint8(4))
        plain |= found & (equal64(data, at, np.uint8(0xB9)) >> _1) & ~tones
        nuktas = _third(data, at, np.uint8(0xA9), np.uint8(20))
        plain |= found & (equal64(data, at, np.uint8(0xA4)) >> _1) & ~nuktas
        marks = _third(data, at, np.uint8(0x8D), np.uint8(0x13))
        plain |= found & (equal64(data, at, np.uint8(0xA5)) >> _1) & ~marks
    return plain


@kernel
def first_odd(data: Any, at: Any, end: Any, tables: Any) -> Any:
    """Return the first place from `at` that the quick check doubts, `end` if there is none."""
    last, behind = np.int64(0), np.int64(-1)  # class of the character that ends at `behind`
    while at < end:
        leads = between64(data, at, np.uint8(0xC0), np.uint8(0x40))
        if leads:
            leads &= ~_plain(data, at, leads)
        while leads:
            place = at + trailing_zeros(leads)
            leads &= leads - _1
            if place >= end:
                break
            code, size = _decode(data, place)
            bits = _bits(tables, code)
            order = bits & 255
            if bits & CHECK or (order != 0 and place == behind and order < last):
                return place
            last, behind = order, place + size
        at += 64
    return end


@inner
def _find(rows: Any, wanted: Any) -> Any:
    """Return the row whose first column is `wanted`, or -1 (rows are sorted by it)."""
    low, high = np.int64(0), np.int64(len(rows))
    while low < high:
        middle = (low + high) >> 1
        if np.int64(rows[middle, 0]) < wanted:
            low = middle + 1
        else:
            high = middle
    if low < len(rows) and np.int64(rows[low, 0]) == wanted:
        return low
    return np.int64(-1)


@inner
def _decompose(data: Any, at: Any, end: Any, tables: Any, codes: Any, orders: Any) -> Any:
    """Write the code points of data[at:end], decomposed and sorted, to `codes`; return how many."""
    count = np.int64(0)
    while at < end:
        code, size = _decode(data, at)
        at += size
        syllable = code - _S
        if syllable >= 0 and syllable < _HANGUL:
            codes[count] = _L + syllable // 588
            codes[count + 1] = _V + syllable % 588 // 28
            orders[count] = orders[count + 1] = 0
            count += 2
            if syllable % 28 > 0:
                codes[count] = _T + syllable % 28
                orders[count] = 0
                count += 1
            continue
        row = _find(tables.decomposed, code)
        for i in range(1, 5):
            part = code if row < 0 else np.int64(tables.decomposed[row, i])
            if (row >= 0 and part == 0) or (row < 0 and i > 1):
                break
            order = _bits(tables, part) & 255
            place = count
            if order > 0:
                while place > 0 and orders[place - 1] > order:
                    codes[place] = codes[place - 1]
                    orders[place] = orders[place - 1]
                    place -= 1
            codes[place] = part
            orders[place] = order
            count += 1
    return count


@inner
def _pair(first: Any, second: Any, tables: Any) -> Any:
    """Return what two code points compose to, -1 if they do not."""
    if first >= _L and first < _L + 19 and second >= _V and second < _V + 21:
        return _S + ((first - _L) * 21 + second - _V) * 28
    syllable = first - _S
    part = second - _T
    if syllable >= 0 and syllable < _HANGUL and syllable % 28 == 0 and part > 0 and part < 28:
        return first + part
    row = _find(tables.composed, first << 32 | second)
    return np.int64(-1) if row < 0 else np.int64(tables.composed[row, 1])


@inner
def _compose(codes: Any, orders: Any, count: Any, tables: Any) -> Any:
    """Compose in place; return how many code points stay."""
    kept, starter = np.int64(0), np.int64(-1)
    for i in range(count):
        code, order = codes[i], orders[i]
        if starter >= 0:
            # Blocked where something of the same class, or a starter, stands between.
            between = orders[kept - 1] if kept - 1 > starter else np.int64(-1)
            if between < order or (kept - 1 == starter):
                composite = _pair(codes[starter], code, tables)
                if composite >= 0:
                    codes[starter] = composite
                    continue
        if order == 0:
            starter = kept
        codes[kept] = code
        orders[kept] = order
        kept += 1
    return kept


@kernel
def compose_segments(
    data: Any,
    starts: Any,
    ends: Any,
    tokens: Any,
    tables: Any,
    codes: Any,
    orders: Any,
    out: Any,
    new_starts: Any,
    new_ends: Any,
) -> Any:
    """Write all segments, composed, one after the other to `out`; return the bytes.

    Args:
        data: uint8[n], valid UTF-8, readable for 64 bytes behind the last segment.
        starts, ends: int64[num_segments]; tokens: int32[num_segments], >= 0: not text, left empty.
        tables: ComposeTables.
        codes, orders: int64[at least 2 * bytes of the longest segment + 4], scratch.
        out: uint8[at least 3 * bytes + 64] (three: the most that composition lengthens a text).
        new_starts, new_ends: int64[num_segments], where each segment now stands.
    """
    total = np.int64(0)
    for segment in range(len(starts)):
        at, end = np.int64(starts[segment]), np.int64(ends[segment])
        new_starts[segment] = total
        begin = at
        while at < end and tokens[segment] < 0:
            odd = first_odd(data, at, end, tables)
            start = odd
            if odd < end:  # back to a starter that nothing before it can change
                while start > begin:
                    start -= 1
                    while start > begin and data[start] & 0xC0 == 0x80:
                        start -= 1
                    code, _ = _decode(data, start)
                    if _bits(tables, code) == 0 or start <= at:
                        break
            start = max(start, at)
            for i in range(at, start):
                out[total] = data[i]
                total += 1
            if odd >= end:
                break
            stop = odd
            while stop < end:
                code, size = _decode(data, stop)
                if stop > odd and _bits(tables, code) == 0:
                    break
                stop += size
            count = _decompose(data, start, stop, tables, codes, orders)
            count = _compose(codes, orders, count, tables)
            for i in range(count):
                total = _write(out, total, codes[i])
            at = stop
        new_ends[segment] = total
    return total


def normalize_nfc(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Compose segments, each by itself.

    Args:
        data: uint8[num_bytes], valid UTF-8.
        starts, ends: int64[num_segments], byte ranges in `data`.

    Returns:
        (uint8[n], the composed segments one after the other; int64[num_segments + 1], where each
        begins). "e" and U+0301 become "é": b"e\\xcc\\x81" -> b"\\xc3\\xa9".
    """
    padded = np.zeros(len(data) + 64, np.uint8)
    padded[: len(data)] = data
    out = np.empty(3 * len(data) + 64, np.uint8)
    new_starts, new_ends = np.empty_like(starts), np.empty_like(ends)
    total = compose_segments(
        as_readonly(padded, np.uint8),
        as_readonly(starts, np.int64),
        as_readonly(ends, np.int64),
        np.full(len(starts), -1, np.int32),
        load_compose_tables(),
        np.empty(2 * len(data) + 4, np.int64),
        np.empty(2 * len(data) + 4, np.int64),
        out,
        new_starts,
        new_ends,
    )
    return out[:total], np.append(new_starts, total)
