r"""Pieces of a text, by the alternatives of each expression in their order (`scan.py`).

Written as the expressions are: `Text.run(at, wanted)` is a greedy `[wanted]*`, and each `match_...`
tries one alternative at one place and returns its end, or None.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ...tokenizer import classes, scan

_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class Text:
    """Code points with their class bits."""

    def __init__(self, text: str) -> None:
        stage1, stage2 = classes.load_classes()
        self.text = text
        self.bits = [int(stage2[int(stage1[ord(c) >> 8]) * 256 + (ord(c) & 255)]) for c in text]

    def run(self, at: int, wanted: Callable[[str, int], bool], most: int = 1 << 60) -> int:
        """Return where the code points end that are `wanted`, `most` of them."""
        end = at
        while end < len(self.text) and end - at < most and wanted(self.text[end], self.bits[end]):
            end += 1
        return end

    def has(self, at: int, wanted: Callable[[str, int], bool]) -> bool:
        """Say whether there is a code point at `at`, and it is wanted."""
        return at < len(self.text) and wanted(self.text[at], self.bits[at])


def scan_pieces(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    rules: int,
    windows: bool = True,
) -> NDArray[np.int64]:
    """Return the end of each piece; `windows` changes nothing here."""
    found: list[int] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        at = start
        for piece in split(bytes(data[start:end]).decode(), rules):
            at += len(piece.encode())
            found.append(at)
    return np.array(found, np.int64)


def split(text: str, rules: int) -> list[str]:
    """Return the pieces of a text."""
    scheme = rules & scan.SCHEME
    if scheme == scan.WHOLE:
        return [text]
    if scheme == scan.DEEPSEEK:
        pieces = []
        for number in _isolate(text, classes.NUMBER, 3):
            for part in _isolate(number, classes.CJK, 1 << 60):
                pieces += _matches(part, _deepseek, rules)
        return pieces
    if rules & (scan.ISOLATE_DIGITS | scan.ISOLATE_NUMBERS):
        most = 1 if rules & scan.ISOLATE_DIGITS else 1 << 60
        parts = _isolate(text, classes.NUMERIC, most)
        return [piece for part in parts for piece in _matches(part, _gpt2, rules)]
    match = {scan.GPT2: _gpt2, scan.CL100K: _cl100k, scan.O200K: _o200k}[scheme]
    return _matches(text, match, rules)


def _isolate(text: str, bit: int, most: int) -> list[str]:
    """Cut out runs of a class, `most` code points each; what is between stays together."""
    whole, parts, at = Text(text), [], 0
    while at < len(text):
        inside = bool(whole.bits[at] & bit)

        def same(_: str, bits: int, inside: bool = inside) -> bool:
            return bool(bits & bit) == inside

        end = whole.run(at, same, most if inside else 1 << 60)
        parts.append(text[at:end])
        at = end
    return parts


def _matches(text: str, match: Callable[[Text, int, int], int | None], rules: int) -> list[str]:
    """Return all matches and what lies between them."""
    whole, pieces, at, gap = Text(text), [], 0, 0
    while at < len(text):
        end = match(whole, at, rules)
        if end is None:
            at += 1
            continue
        pieces += [text[gap:at]] if gap < at else []
        pieces.append(text[at:end])
        at = gap = end
    return pieces + ([text[gap:]] if gap < at else [])


def _is(bits: int) -> Callable[[str, int], bool]:
    return lambda _, b: bool(b & bits)


def _not(bits: int) -> Callable[[str, int], bool]:
    return lambda _, b: not b & bits


def _line(c: str, b: int) -> bool:
    return c in "\r\n"


def _contraction(text: Text, at: int, fold: bool) -> int | None:
    for word in _CONTRACTIONS:
        found = text.text[at : at + len(word)]
        if found == word or (fold and found.lower().replace("ſ", "s") == word):
            return at + len(word)
    return None


def _spaces(text: Text, at: int, lines: bool) -> int | None:
    """\\s*[\\r\\n]+ (with `lines`), \\s+(?!\\S), \\s+"""
    end = text.run(at, _is(classes.SPACE))
    if end == at:
        return None
    if lines:
        for last in range(end, at, -1):
            if text.text[last - 1] in "\r\n":
                return last
    if end == len(text.text) or end == at + 1:
        return end
    return end - 1


def _optional_space(text: Text, at: int, wanted: Callable[[str, int], bool]) -> int | None:
    start = at + 1 if text.text[at] == " " else at
    if not text.has(start, wanted):
        return None
    return text.run(start, wanted)


def _gpt2(text: Text, at: int, rules: int) -> int | None:
    letter, number, space = classes.LETTER, classes.NUMBER, classes.SPACE
    return (
        _contraction(text, at, False)
        or _optional_space(text, at, _is(letter))
        or _optional_space(text, at, _is(number))
        or _optional_space(text, at, _not(letter | number | space))
        or _spaces(text, at, False)
    )


def _digits(text: Text, at: int, rules: int) -> int | None:
    most = 1 if rules & scan.SINGLE_DIGITS else 3
    return text.run(at, _is(classes.NUMBER), most) if text.has(at, _is(classes.NUMBER)) else None


def _word(text: Text, at: int, prefix: Callable[[str, int], bool], letters: int) -> int | None:
    """[prefix]?[letters]+"""
    if text.has(at, prefix) and text.has(at + 1, _is(letters)):
        return text.run(at + 1, _is(letters))
    return text.run(at, _is(letters)) if text.has(at, _is(letters)) else None


def _no_line_no_word(c: str, b: int) -> bool:
    return c not in "\r\n" and not b & (classes.LETTER | classes.NUMBER)


def _cl100k(text: Text, at: int, rules: int) -> int | None:
    letters = classes.LETTER | (classes.MARK if rules & scan.MARKS else 0)
    others = _optional_space(text, at, _not(letters | classes.NUMBER | classes.SPACE))
    return (
        (_contraction(text, at, True) if rules & scan.CONTRACTIONS else None)
        or _word(text, at, _no_line_no_word, letters)
        or _digits(text, at, rules)
        or (text.run(others, _line) if others else None)
        or _spaces(text, at, True)
    )


def _o200k(text: Text, at: int, rules: int) -> int | None:
    letter, mark = classes.LETTER | classes.MARK, classes.MARK
    upper = lambda c, b: bool(b & letter) and not b & classes.LOWER  # noqa: E731
    lower = lambda c, b: bool(b & letter) and not b & classes.UPPER  # noqa: E731
    begins = [at + 1] if text.has(at, _no_line_no_word) else []
    for first, second in ((0, 1), (1, 0)):  # U*L+ before U+L*
        for begin in [*begins, at]:
            middle = text.run(begin, upper)
            while middle >= begin + first:
                end = text.run(middle, lower)
                if end >= middle + second:
                    suffix = _contraction(text, end, True) if rules & scan.CONTRACTIONS else None
                    return suffix or end
                middle -= 1
    others = _optional_space(text, at, _not(letter & ~mark | classes.NUMBER | classes.SPACE))
    return (
        _digits(text, at, rules)
        or (text.run(others, lambda c, b: c in "\r\n/") if others else None)
        or _spaces(text, at, True)
    )


def _deepseek(text: Text, at: int, rules: int) -> int | None:
    letters, signs = classes.LETTER | classes.MARK, classes.PUNCTUATION
    ascii_letter = lambda c, b: c.isascii() and c.isalpha()  # noqa: E731
    if text.text[at].isascii() and text.bits[at] & signs and text.has(at + 1, ascii_letter):
        return text.run(at + 1, ascii_letter)
    prefix = lambda c, b: c not in "\r\n" and not b & (classes.LETTER | signs)  # noqa: E731
    others = _optional_space(text, at, _is(signs))
    return (
        _word(text, at, prefix, letters)
        or (text.run(others, _line) if others else None)
        or _spaces(text, at, True)
    )
