"""Two texts in, both as pieces that are equal, changed or left out, for showing side by side, out.

Paragraphs are compared first, then the words of those that differ (characters, where words are not
spaced), by Python's difflib. Both steps look at a bounded number of pieces, so any two documents
take a bounded time.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

MAX_PARAGRAPHS = 800
"""Of each text; what follows is not compared."""

MAX_WORDS = 500
"""Of a changed stretch on either side; longer ones are shown as changed as a whole."""

CONTEXT = 90
"""Characters of equal text shown before and after a change."""

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x109F),  # Tibetan, Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3000, 0x30FF),  # CJK punctuation, kana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),
    (0x20000, 0x3FFFF),
)

Kind = Literal["equal", "changed", "gap", "more"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one side."""

    kind: Kind
    """equal; changed; gap: equal text that is left out; more: what no longer fits the page."""
    text: str
    """Of a gap or of more: the number of characters left out, as a plain number."""


def side_by_side(
    left: str, right: str, max_characters: int = 1_600
) -> tuple[list[Piece], list[Piece]]:
    """Return both texts in pieces, equal stretches far from a change left out.

    Args:
        left, right: the texts.
        max_characters: shown of each side, about.

    Example: side_by_side("a cat sat", "a dog sat") gives equal "a ", changed "cat " or "dog ", and
    equal "sat".
    """
    sides: tuple[list[Piece], list[Piece]] = ([], [])
    for is_equal, *texts in _join(_differences(left, right)):
        for side, text in zip(sides, texts, strict=True):
            if text:
                side.append(Piece("equal" if is_equal else "changed", text))
    return _shorten(sides[0], max_characters), _shorten(sides[1], max_characters)


def _differences(left: str, right: str) -> Iterator[tuple[bool, str, str]]:
    """Yield (equal?, text on the left, text on the right), in order."""
    paragraphs = _paragraphs(left), _paragraphs(right)
    for is_equal, one, other in _match(*paragraphs):
        if is_equal:
            yield True, one, other
            continue
        words = _words(one), _words(other)
        if max(map(len, words)) > MAX_WORDS:
            yield from _ends(one, other)
        else:
            yield from _match(*words)


def _match(left: Sequence[str], right: Sequence[str]) -> Iterator[tuple[bool, str, str]]:
    # autojunk: of more than 200 pieces very common ones do not start a match. It bounds the time.
    matcher = SequenceMatcher(None, left, right, autojunk=True)
    for tag, from_left, to_left, from_right, to_right in matcher.get_opcodes():
        one, other = "".join(left[from_left:to_left]), "".join(right[from_right:to_right])
        yield tag == "equal", one, other


def _ends(left: str, right: str) -> Iterator[tuple[bool, str, str]]:
    """Yield what two long stretches begin and end with alike, and all between as changed."""
    room = min(len(left), len(right))
    start = next((n for n in range(room) if left[n] != right[n]), room)
    end = next((n for n in range(room - start) if left[-1 - n] != right[-1 - n]), room - start)
    yield True, left[:start], right[:start]
    yield False, left[start : len(left) - end], right[start : len(right) - end]
    yield True, left[len(left) - end :], right[len(right) - end :]


def _join(pieces: Iterator[tuple[bool, str, str]]) -> list[tuple[bool, str, str]]:
    """Return the pieces with neighbours of one kind put together."""
    joined: list[tuple[bool, str, str]] = []
    for is_equal, left, right in pieces:
        if not left and not right:
            continue
        if joined and joined[-1][0] == is_equal:
            _, before_left, before_right = joined.pop()
            left, right = before_left + left, before_right + right
        joined.append((is_equal, left, right))
    return joined


def _shorten(pieces: list[Piece], max_characters: int) -> list[Piece]:
    """Leave out equal text far from changes, and what does not fit."""
    shown: list[Piece] = []
    room = max_characters
    for number, piece in enumerate(pieces):
        parts = [piece]
        text = piece.text
        before = CONTEXT if number > 0 else 0
        after = CONTEXT if number + 1 < len(pieces) else 0
        if not before and not after:
            before = max_characters
        if piece.kind == "equal" and len(text) > before + after + CONTEXT:
            gap = Piece("gap", str(len(text) - before - after))
            parts = [Piece("equal", text[:before]), gap, Piece("equal", text[len(text) - after :])]
            parts = [part for part in parts if part.text]
        for part in parts:
            if part.kind == "gap":
                shown.append(part)
                continue
            if len(part.text) > room:
                left = sum(len(one.text) for one in pieces[number + 1 :]) + len(part.text) - room
                shown.append(Piece(part.kind, part.text[:room]))
                shown.append(Piece("more", str(left)))
                return [one for one in shown if one.text]
            shown.append(part)
            room -= len(part.text)
    return shown


def _paragraphs(text: str) -> list[str]:
    """Cut into lines, empty ones with the line before."""
    lines: list[str] = []
    for line in text.splitlines(keepends=True):
        if lines and not line.strip():
            lines[-1] += line
        else:
            lines.append(line)
    if len(lines) <= MAX_PARAGRAPHS:
        return lines
    return [*lines[:MAX_PARAGRAPHS], "".join(lines[MAX_PARAGRAPHS:])]


def _words(text: str) -> list[str]:
    """Cut into words with the spaces behind them, and single characters of unspaced scripts.

    Marks stay with the character that they stand on.
    """
    words: list[str] = []
    kind = ""
    for character in text:
        is_unspaced = character > "\u0dff" and any(
            low <= ord(character) <= high for low, high in _UNSPACED
        )
        now = "space" if character.isspace() else "unspaced" if is_unspaced else "word"
        is_mark = unicodedata.category(character).startswith("M")
        if words and (now == "space" or (is_mark and kind != "space") or now == kind == "word"):
            words[-1] += character
            kind = kind if is_mark else now
        else:
            words.append(character)
            kind = now
    return words
