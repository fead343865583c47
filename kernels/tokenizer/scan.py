r"""Pieces of a text, one at a time: where a piece begins flows in, where it ends out.

What the expressions of byte-level tokenizers match, written as loops over class bits. `rules` says
which: a scheme and flags (below). The end of the text given is the end of input for every
look-ahead. These loops decide; `windows.py` gives the same bounds for many pieces at once.

GPT2      '(s|t|re|ve|m|ll|d) | space?L+ | space?N+ | space?[^\sLN]+ | \s+(?!\S) | \s+
CL100K    (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\nLN]?L+ | N{1,3} | space?[^\sLN]+[\r\n]* | \s*[\r\n]+
          | \s+(?!\S) | \s+      (flag MARKS: marks count as letters; SINGLE_DIGITS: N)
O200K     words by case, a contraction behind a word, [\r\n/]* behind punctuation
DEEPSEEK  N{1,3} isolated, then kana and Han, then an expression of its own inside the gaps
WHOLE     the whole text is one piece
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import inner_kernel as inner
from .intrinsics import load_u64

SCHEME = 7
GPT2, CL100K, O200K, DEEPSEEK, WHOLE = 0, 1, 2, 3, 4
CONTRACTIONS = 8
MARKS = 16  # marks are letters
SINGLE_DIGITS = 32
ISOLATE_DIGITS = 64  # the pre-tokenizer Digits before GPT2's expression, each digit alone
ISOLATE_NUMBERS = 128  # the same with runs of digits together

LETTER, NUMBER, MARK, SPACE, UPPER, LOWER, PUNCTUATION, CJK, NUMERIC = (
    np.int64(1 << bit) for bit in range(9)
)
_ZERO, _ONE, _THREE, _NONE = np.int64(0), np.int64(1), np.int64(3), np.int64(-1)
_NO, _YES = np.uint8(0), np.uint8(1)  # as numba makes versions of its own for True and False
_0, _6, _8, _12, _16, _18, _24 = (np.uint64(i) for i in (0, 6, 8, 12, 16, 18, 24))
_SIX, _BYTE = np.uint64(0x3F), np.uint64(0xFF)


@inner
def class_at(data: Any, at: Any, stage1: Any, stage2: Any) -> Any:
    """Return (class bits, bytes) of the code point at data[at]; the text is valid UTF-8.

    data: readable for 8 bytes behind `at`.
    """
    word = load_u64(data, at)  # one load, and no index that could be negative
    first = word & _BYTE
    if first < np.uint64(0x80):
        return np.int64(stage2[(np.uint64(stage1[_0]) << _8) + first]), np.int64(1)
    second = (word >> _8) & _SIX
    if first < np.uint64(0xE0):
        code, size = (first & np.uint64(0x1F)) << _6 | second, np.int64(2)
    else:
        third = (word >> _16) & _SIX
        if first < np.uint64(0xF0):
            code, size = (first & np.uint64(0x0F)) << _12 | second << _6 | third, np.int64(3)
        else:
            code = (first & np.uint64(0x07)) << _18 | second << _12 | third << _6
            code, size = code | ((word >> _24) & _SIX), np.int64(4)
    return np.int64(stage2[(np.uint64(stage1[code >> _8]) << _8) + (code & _BYTE)]), size


@inner
def contraction(data: Any, at: Any, end: Any, fold: Any) -> Any:
    """Return the bytes of 's 't 'm 'd 're 've 'll at data[at], 0 if there is none.

    With `fold` also in upper case, and 's with U+017F, the only other code point that folds to s.
    """
    if data[at] != 0x27 or at + 1 >= end:
        return np.int64(0)
    case = np.int64(0x20) if fold else _ZERO
    first = np.int64(data[at + 1]) | case
    if first == 0x73 or first == 0x74 or first == 0x6D or first == 0x64:
        return np.int64(2)
    if at + 2 >= end:
        return np.int64(0)
    second = np.int64(data[at + 2])
    if fold and data[at + 1] == 0xC5:
        return np.int64(3 if second == 0xBF else 0)
    second |= case
    if (first == 0x72 or first == 0x76) and second == 0x65:
        return np.int64(3)
    return np.int64(3 if first == 0x6C and second == 0x6C else 0)


@inner
def _run(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, mask: Any, wanted: Any) -> Any:
    """Return where the code points end whose class & mask is one of the bits `wanted` (0: none)."""
    while at < end:
        bits, size = class_at(data, at, stage1, stage2)
        found = bits & mask
        if (found & wanted) == 0 if wanted != 0 else found != 0:
            break
        at += size
    return at


@inner
def _digits(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, most: Any) -> Any:
    count = np.int64(0)
    while at < end and count < most:
        bits, size = class_at(data, at, stage1, stage2)
        if bits & NUMBER == 0:
            break
        at += size
        count += 1
    return at


@inner
def _space(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, lines: Any, stop: Any) -> Any:
    r"""Return the end of the white space piece at data[at].

    With `lines`, \s*[\r\n]+ comes first. A run that ends at a code point of the classes `stop`, or
    at `end`, is taken whole; else the last of several stays with what follows.
    """
    begin, last, line = at, at, _NONE
    looked_on = False
    while at < end:
        bits, size = class_at(data, at, stage1, stage2)
        if bits & SPACE == 0:
            looked_on = bits & stop == 0
            break
        last = at
        at += size
        if data[last] == 10 or data[last] == 13:
            line = at
    if lines and line >= 0:
        return line
    return last if looked_on and last > begin else at


@inner
def _tail(data: Any, at: Any, end: Any, slash: Any) -> Any:
    while at < end and (data[at] == 10 or data[at] == 13 or (slash and data[at] == 0x2F)):
        at += 1
    return at


@inner
def _next_gpt2(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, rules: Any) -> Any:
    isolated = NUMERIC if rules & (ISOLATE_DIGITS | ISOLATE_NUMBERS) else _ZERO
    bits, size = class_at(data, at, stage1, stage2)
    if bits & isolated:
        if rules & ISOLATE_DIGITS:
            return at + size
        inside = bits & NUMBER  # the expression goes on inside, where only \p{N} is a number
        while at < end and bits & isolated and bits & NUMBER == inside:
            at += size
            if at < end:
                bits, size = class_at(data, at, stage1, stage2)
        return at
    length = contraction(data, at, end, _NO)
    if length:
        return at + length
    if data[at] == 0x20 and at + 1 < end:
        after, after_size = class_at(data, at + 1, stage1, stage2)
        if after & (SPACE | isolated) == 0:
            at, bits, size = at + 1, after, after_size
    if bits & SPACE:
        return _space(data, at, end, stage1, stage2, _NO, isolated)
    kind = bits & (LETTER | NUMBER)
    at += size
    while at < end:
        bits, size = class_at(data, at, stage1, stage2)
        if bits & (SPACE | isolated) or bits & (LETTER | NUMBER) != kind:
            break
        at += size
    return at


@inner
def _next_cl100k(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, rules: Any) -> Any:
    letters = LETTER | MARK if rules & MARKS else LETTER
    if rules & CONTRACTIONS:
        length = contraction(data, at, end, _YES)
        if length:
            return at + length
    bits, size = class_at(data, at, stage1, stage2)
    if bits & letters:
        return _run(data, at, end, stage1, stage2, letters, letters)
    if bits & NUMBER:
        return _digits(
            data, at, end, stage1, stage2, _THREE if rules & SINGLE_DIGITS == 0 else _ONE
        )
    after = _ZERO
    if at + size < end:
        after, _ = class_at(data, at + size, stage1, stage2)
        if after & letters and data[at] != 10 and data[at] != 13:
            return _run(data, at + size, end, stage1, stage2, letters, letters)
    others = SPACE | NUMBER | letters
    if bits & SPACE == 0 or (data[at] == 0x20 and at + 1 < end and after & others == 0):
        at = _run(data, at + size, end, stage1, stage2, others, _ZERO)
        return _tail(data, at, end, _NO)
    return _space(data, at, end, stage1, stage2, _YES, _ZERO)


@inner
def _cased(data: Any, at: Any, end: Any, stage1: Any, stage2: Any) -> Any:
    """Return the end of a word by case: U*[lower]+, else U+; caseless letters belong to both.

    Greedy U* gives back as far as the last caseless letter where no lower one follows.
    """
    caseless_end = _NONE
    while at < end:
        bits, size = class_at(data, at, stage1, stage2)
        if bits & LOWER:
            while at < end:
                bits, size = class_at(data, at, stage1, stage2)
                if bits & (LETTER | MARK) == 0 or bits & UPPER:
                    break
                at += size
            return at
        if bits & (LETTER | MARK) == 0:
            break
        at += size
        if bits & UPPER == 0:
            caseless_end = at
    return caseless_end if caseless_end >= 0 else at


@inner
def _next_o200k(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, rules: Any) -> Any:
    bits, size = class_at(data, at, stage1, stage2)
    word = _NONE
    after = _ZERO
    if bits & (LETTER | MARK):
        word = at
    elif bits & NUMBER:
        return _digits(
            data, at, end, stage1, stage2, _THREE if rules & SINGLE_DIGITS == 0 else _ONE
        )
    elif at + size < end:
        after, _ = class_at(data, at + size, stage1, stage2)
        if after & (LETTER | MARK) and data[at] != 10 and data[at] != 13:
            word = at + size
    if word >= 0:
        at = _cased(data, word, end, stage1, stage2)
        if rules & CONTRACTIONS and at < end:
            at += contraction(data, at, end, _YES)
        return at
    others = SPACE | NUMBER | LETTER
    if bits & SPACE == 0 or (data[at] == 0x20 and at + 1 < end and after & others == 0):
        at = _run(data, at + size, end, stage1, stage2, others, _ZERO)
        return _tail(data, at, end, _YES)
    return _space(data, at, end, stage1, stage2, _YES, _ZERO)


@inner
def _ascii_letter(byte: Any) -> Any:
    lower = np.int64(byte) | np.int64(0x20)
    return lower >= 0x61 and lower <= 0x7A


@inner
def _inside(bits: Any, home: Any, wanted: Any) -> Any:
    """Say whether a code point is one of `wanted` and in the same piece of the first two splits."""
    return bits & NUMBER == 0 and bits & CJK == home and bits & wanted != 0


@inner
def _next_deepseek(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, rules: Any) -> Any:
    bits, size = class_at(data, at, stage1, stage2)
    if bits & NUMBER:
        return _digits(data, at, end, stage1, stage2, _THREE)
    home = bits & CJK
    letters, wanted = LETTER | MARK, LETTER | MARK
    if bits & letters == 0:
        after = NUMBER
        if at + size < end:
            after, _ = class_at(data, at + size, stage1, stage2)
        if bits & PUNCTUATION and size == 1 and after & NUMBER == 0 and _ascii_letter(data[at + 1]):
            at += 1
            while at < end and _ascii_letter(data[at]):
                at += 1
            return at
        prefix = bits & PUNCTUATION == 0 and data[at] != 10 and data[at] != 13
        if not (prefix and _inside(after, home, letters)):
            joins = data[at] == 0x20 and _inside(after, home, PUNCTUATION)
            if bits & PUNCTUATION == 0 and not joins:
                if bits & SPACE:
                    return _space(data, at, end, stage1, stage2, _YES, NUMBER | CJK)
                return _unmatched(data, at, end, stage1, stage2, home)
            wanted = PUNCTUATION
    at += size
    while at < end:
        bits, size = class_at(data, at, stage1, stage2)
        if not _inside(bits, home, wanted):
            break
        at += size
    return _tail(data, at, end, _NO) if wanted == PUNCTUATION and home == 0 else at


@inner
def _unmatched(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, home: Any) -> Any:
    """Return the end of what no alternative begins with: it stays together up to the next match."""
    bits, size = class_at(data, at, stage1, stage2)
    while True:
        at += size
        if at >= end:
            return at
        bits, size = class_at(data, at, stage1, stage2)
        if bits & (SPACE | PUNCTUATION | LETTER | MARK | NUMBER) or bits & CJK != home:
            return at
        if at + size < end:
            after, _ = class_at(data, at + size, stage1, stage2)
            if _inside(after, home, LETTER | MARK):
                return at


@inner
def next_piece(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, rules: Any) -> Any:
    """Return the end of the piece that begins at data[at], at < end."""
    scheme = rules & SCHEME
    if scheme == GPT2:
        return _next_gpt2(data, at, end, stage1, stage2, rules)
    if scheme == CL100K:
        return _next_cl100k(data, at, end, stage1, stage2, rules)
    if scheme == O200K:
        return _next_o200k(data, at, end, stage1, stage2, rules)
    if scheme == DEEPSEEK:
        return _next_deepseek(data, at, end, stage1, stage2, rules)
    return end
