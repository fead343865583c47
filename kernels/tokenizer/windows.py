r"""Pieces of a text, 64 bytes at a time: a position flows in, a mask of piece starts out.

A window begins where a piece begins, so nothing is carried in from the left. Its bytes are sorted
into masks (bit i: byte i), each code point on all of its bytes; shifts and carries of 64-bit words
then find all starts at once:

    run start of X   X & ~(X << 1)
    last white space W & ~(W >> 1) & (what follows >> 1)

What the masks cannot tell ends the window early: white space and digits beyond ASCII, and for some
schemes a few rare neighbours. Starts too near to the window's end to be certain are left out, and
the next window begins at the last certain one; where there is none, `scan.next_piece` decides.
The algebra per scheme is the expressions of `scan.py` read for runs; tests hold it to them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..jit import inner_kernel as inner
from .intrinsics import between64, classify64, equal64, leading_zeros, trailing_zeros
from .scan import (
    CJK,
    CL100K,
    CONTRACTIONS,
    DEEPSEEK,
    GPT2,
    ISOLATE_DIGITS,
    ISOLATE_NUMBERS,
    LETTER,
    LOWER,
    MARK,
    MARKS,
    NUMBER,
    NUMERIC,
    O200K,
    PUNCTUATION,
    SCHEME,
    SINGLE_DIGITS,
    SPACE,
    UPPER,
    class_at,
    contraction,
)

_0, _1, _2, _3 = (np.uint64(i) for i in range(4))
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_64 = np.int64(64)


@inner
def _bit(index: Any) -> Any:
    return _1 << np.uint64(index)


@inner
def _below(index: Any) -> Any:
    """Return the mask of the bits below `index` (up to 64; none below 0 and less)."""
    if index >= _64:
        return _ALL
    return _bit(index) - _1 if index > 0 else _0


@inner
def _plain_letters(data: Any, at: Any, leads: Any, size: Any) -> Any:
    """Return the letters that need no look at their class, each on all of its bytes.

    Masks of (first bytes of all of them, Han and kana, other letters without case, capitals, small
    letters), all of them whole below `size`: U+3041 to U+30FF but signs, U+4E00 to U+9F7F, U+AC00
    to U+D77F, U+0620 to U+064A, U+0671 to U+067F, U+00C0 to U+00FF but signs, U+0400 to U+045F.
    """
    han, caseless, capital, small = _0, _0, _0, _0
    three = leads & between64(data, at, np.uint8(0xE3), np.uint8(0x0B)) & _below(size - 2)
    if three:
        # The first byte alone, or the second one, decides.
        han = between64(data, at, np.uint8(0xE5), np.uint8(4))
        han |= equal64(data, at, np.uint8(0xE4)) & _behind(data, at, np.uint8(0xB8), np.uint8(8))
        han |= equal64(data, at, np.uint8(0xE9)) & _behind(data, at, np.uint8(0x80), np.uint8(62))
        kana = three & equal64(data, at, np.uint8(0xE3))
        if kana:
            third = between64(data, at, np.uint8(0x97), np.uint8(6))
            third |= equal64(data, at, np.uint8(0xA0))
            sure = _behind(data, at, np.uint8(0x82), np.uint8(1)) & ~(third >> _2)
            third = equal64(data, at, np.uint8(0x80)) >> _2
            sure |= _behind(data, at, np.uint8(0x81), np.uint8(1)) & ~third
            third = equal64(data, at, np.uint8(0xBB)) >> _2
            sure |= _behind(data, at, np.uint8(0x83), np.uint8(1)) & ~third
            han |= kana & sure
        han &= three
        korean = three & between64(data, at, np.uint8(0xEA), np.uint8(4))
        if korean:
            hangul = between64(data, at, np.uint8(0xEB), np.uint8(2))
            first = equal64(data, at, np.uint8(0xEA))
            hangul |= first & _behind(data, at, np.uint8(0xB0), np.uint8(16))
            first = equal64(data, at, np.uint8(0xED))
            hangul |= first & _behind(data, at, np.uint8(0x80), np.uint8(30))
            caseless = hangul & korean
    whole = han | caseless
    han |= (han << _1) | (han << _2)
    caseless |= (caseless << _1) | (caseless << _2)
    pairs = leads & _below(size - 1)
    two = pairs & between64(data, at, np.uint8(0xD0), np.uint8(2))
    if two:
        first = two & equal64(data, at, np.uint8(0xD0))
        capital = first & _behind(data, at, np.uint8(0x80), np.uint8(0x30))
        small = first & ~capital
        small |= two & ~first & _behind(data, at, np.uint8(0x80), np.uint8(0x20))
    two = pairs & equal64(data, at, np.uint8(0xC3))
    if two:
        signs = _behind(data, at, np.uint8(0x97), np.uint8(1))
        signs |= _behind(data, at, np.uint8(0xB7), np.uint8(1))
        first = _behind(data, at, np.uint8(0x80), np.uint8(0x1F))
        capital |= two & first & ~signs
        small |= two & ~first & ~signs
    two = pairs & between64(data, at, np.uint8(0xD8), np.uint8(2))
    if two:
        first = equal64(data, at, np.uint8(0xD8))
        second = _behind(data, at, np.uint8(0x80), np.uint8(0x0B))
        second |= _behind(data, at, np.uint8(0xB1), np.uint8(0x0F))
        arabic = first & _behind(data, at, np.uint8(0xA0), np.uint8(0x20))
        arabic = two & (arabic | (~first & second))
        whole |= arabic
        caseless |= arabic | (arabic << _1)
    whole |= capital | small
    return whole, han, caseless, capital | (capital << _1), small | (small << _1)


@inner
def _behind(data: Any, at: Any, low: Any, size: Any) -> Any:
    """Return the mask of the bytes whose next one is from `low` up to low + size."""
    return between64(data, at, low, size) >> _1


@inner
def window_starts(data: Any, at: Any, end: Any, stage1: Any, stage2: Any, rules: Any) -> Any:
    """Return (starts, bytes): piece starts behind data[at], relative to it, and what was looked at.

    Bit 0 is never set. When `bytes` reaches `end`, the starts are all that there are.
    """
    scheme = rules & SCHEME
    folds = np.uint8(scheme != GPT2)  # contractions in upper case too
    size = min(end - at, _64)
    letters, digits, spaces, others, capitals, high, controls = classify64(data, at)
    valid = _below(size)
    breaks = _0
    if others & valid:
        breaks = (equal64(data, at, np.uint8(10)) | equal64(data, at, np.uint8(13))) & valid
    upper = capitals
    lower = letters & ~capitals
    caseless = _0
    ideographs = _0
    dots = _0  # punctuation among DeepSeek's kana
    leads = _0
    if scheme == DEEPSEEK:
        odd = controls & ~others & valid
        if odd:
            size = trailing_zeros(odd)
    if high & _below(size):
        leads = between64(data, at, np.uint8(0xC0), np.uint8(0x40)) & _below(size)
        whole, han, plain, capital, small = _plain_letters(data, at, leads, size)
        left = leads & ~whole
        letters |= plain | capital | small
        if scheme == DEEPSEEK:
            ideographs = han
        else:
            letters |= han
            upper |= capital
            lower |= small
            caseless = han | plain
        word = LETTER
        if scheme in (DEEPSEEK, O200K) or rules & MARKS:
            word = LETTER | MARK
        while left:
            i = trailing_zeros(left)
            left &= left - _1
            bits, length = class_at(data, at + i, stage1, stage2)
            if i + length > size or bits & (SPACE | NUMBER | NUMERIC):
                size = i
                break
            own = ((_1 << np.uint64(length)) - _1) << np.uint64(i)
            if scheme in (GPT2, CL100K):
                letters |= own if bits & word else _0
                continue
            if bits & CJK and scheme == DEEPSEEK and bits & (LETTER | MARK):
                ideographs |= own
            elif bits & CJK and scheme == DEEPSEEK and bits & PUNCTUATION:
                dots |= own
            elif bits & word:
                letters |= own
                if scheme == O200K:
                    if bits & UPPER:
                        upper |= own
                    elif bits & LOWER:
                        lower |= own
                    else:
                        caseless |= own
                        if bits & MARK and i > 0:
                            # A mark goes on with punctuation as it does with letters.
                            before = _bit(i - 1)
                            if before & ~(letters | digits | spaces | others):
                                size = i
                                break
            elif scheme == DEEPSEEK and bits & PUNCTUATION == 0:
                size = i
                break
        valid = _below(size)
        if scheme == O200K:
            mixed = ((upper & (caseless << _1)) | (caseless & (upper << _1))) & valid
            if mixed:
                size = trailing_zeros(mixed)
                valid = _below(size)
    elif size < _64:
        valid = _below(size)
    more = size < end - at
    letters &= valid
    digits &= valid
    spaces &= valid
    others &= valid
    breaks &= valid
    ideographs &= valid
    dots &= valid
    white = spaces | others
    blank = white & ~breaks
    symbols = valid & ~(letters | digits | white | ideographs | dots)
    # A start further than three bytes from the last code point that is no white space may change.
    sure = size
    if more:
        sure = _64 - leading_zeros(valid & ~white) - np.int64(3)

    symbol_starts = symbols & ~(symbols << _1) & ~(spaces << _1)
    letter_starts = letters & ~(letters << _1)
    digit_starts = digits & ~(digits << _1)
    if scheme == GPT2:
        follows = letters | symbols
        if rules & (ISOLATE_DIGITS | ISOLATE_NUMBERS) == 0:
            follows |= digits
            digit_starts &= ~(spaces << _1)
        elif rules & ISOLATE_DIGITS:
            digit_starts = digits
        last = white & ~(white >> _1) & (follows >> _1)
        starts = symbol_starts | digit_starts | last | (white & ~(white << _1))
        starts |= letter_starts & ~(spaces << _1)
        if symbol_starts & (letters >> _1):
            starts = _contractions(data, at, end, starts, symbol_starts & (letters >> _1), folds)
    else:
        if rules & SINGLE_DIGITS:
            digit_starts = digits
        else:
            group = digit_starts
            while True:
                group = ((((group << _1) & digits) << _1) & digits) << _1 & digits
                if group == _0:
                    break
                digit_starts |= group
        # Line breaks behind punctuation belong to it: those of the run that begins there.
        heads = (symbols << _1) & breaks
        absorbed = breaks & ~(breaks + heads)
        if scheme == O200K and absorbed:
            slash = (absorbed << _1) & equal64(data, at, np.uint8(0x2F)) & valid
            if slash:
                sure = min(sure, trailing_zeros(slash) - 1)
                if not more:
                    size = trailing_zeros(slash)
        rest = white & ~absorbed
        first = symbol_starts  # the code point that a piece of punctuation begins with
        if symbol_starts & high and scheme != DEEPSEEK:
            inner = high & ~leads
            first |= (first << _1) & inner
            first |= (first << _1) & inner
            first |= (first << _1) & inner
        follows = letters | symbols
        if scheme == DEEPSEEK:
            glued = letter_starts & (first << _1) & ~high
            letter_starts &= ~(blank << _1) & ~glued
            starts = symbol_starts | digit_starts | letter_starts
            starts |= (ideographs & ~(ideographs << _1)) | (dots & ~(dots << _1))
            if glued and letters & high:
                ascii_letters = letters & ~high
                starts |= (ascii_letters + glued) & ~ascii_letters & letters
        else:
            follows |= digits
            letter_starts &= ~((blank | first) << _1)
            starts = symbol_starts | digit_starts | letter_starts
            if scheme == O200K:
                starts |= upper & ~(upper << _1) & (lower << _1) & valid
        starts |= rest & ~(rest << _1)
        starts |= blank & ~(rest >> _1) & (follows >> _1)
        lines = rest & breaks
        while lines:
            i = trailing_zeros(lines)
            gone = ~(rest >> np.uint64(i))
            stop = min(i + trailing_zeros(gone), _64)
            inside = _below(stop)
            final = _64 - leading_zeros(lines & inside)  # one behind the run's last line break
            if final < _64:
                starts |= _bit(final)
            lines &= ~inside
        if rules & CONTRACTIONS:
            if scheme == CL100K:
                if symbol_starts & (letters >> _1):
                    starts = _contractions(
                        data, at, end, starts, symbol_starts & (letters >> _1), folds
                    )
            elif symbol_starts & (letters << _1) & (letters >> _1):
                starts = _suffixes(
                    data, at, end, starts, symbol_starts & (letters << _1) & (letters >> _1), folds
                )
    if sure <= 1:
        return _0, size if not more else np.int64(0)
    return starts & _below(min(sure, size)) & ~_1, size


@inner
def _contractions(data: Any, at: Any, end: Any, starts: Any, places: Any, fold: Any) -> Any:
    """Move the starts behind contractions: 's is one piece, and what follows the next."""
    places &= equal64(data, at, np.uint8(0x27))
    while places:
        i = trailing_zeros(places)
        places &= places - _1
        length = contraction(data, at + i, end, fold)
        if length:
            starts &= ~(_2 << np.uint64(i))
            if i + length < _64:
                starts |= _bit(i + length)
    return starts


@inner
def _suffixes(data: Any, at: Any, end: Any, starts: Any, places: Any, fold: Any) -> Any:
    """Join contractions to the word before them; a second one behind the first is a word."""
    places &= equal64(data, at, np.uint8(0x27))
    taken = np.int64(-1)
    while places:
        i = trailing_zeros(places)
        places &= places - _1
        length = contraction(data, at + i, end, fold)
        if length and i != taken:
            starts &= ~_bit(i)
            taken = i + length
            if taken < _64:
                starts |= _bit(taken)
    return starts
