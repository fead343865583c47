"""Counts of a document's text, as strings, lists and counters say them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..character_classes import (
    ALPHABETIC,
    CLOSES,
    DASH,
    DIGIT,
    IDEOGRAPH,
    IS_PUNCTUATION,
    KIND_MASK,
    KIND_WEIGHTS,
    LETTER,
    LOWER,
    MARK,
    OPENS,
    PUNCTUATION,
    SPACE,
    SPLITS,
    SYMBOL,
    TERMINAL,
    UPPER,
    WORD,
    WORD_WEIGHT,
    class_table,
)
from ..statistics_columns import COLUMNS
from ..words import TITLES

_POLICY = "privacy policy|terms of use|cookie policy|uses cookies|use of cookies|use cookies"
_CITATION = re.compile(r"(\[[0-9]*\]|\[edit\]|\[citation needed\])\Z")
_ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, a punctuation mark, or a character of a script without spaces."""

    text: str
    kind: int

    @property
    def weight(self) -> int:
        """Weight of the token; a word weighs WORD_WEIGHT."""
        return KIND_WEIGHTS[self.kind]

    @property
    def is_spaced(self) -> bool:
        """Whether spaces stand around such tokens."""
        return not IDEOGRAPH <= self.kind <= LETTER

    @property
    def is_word(self) -> bool:
        """Whether it is more than punctuation."""
        return any(kind_of(character) != PUNCTUATION for character in self.text)


def flags_of(character: str) -> int:
    """Return the flags of `character_classes` of a character, 0 of an empty string."""
    if not character:
        return 0
    numbers, blocks = class_table()
    return int(blocks[numbers[ord(character) >> 8], ord(character) & 255])


def kind_of(character: str) -> int:
    """Return the kind of a character."""
    return flags_of(character) & KIND_MASK


def text_statistics(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    stop_words: Sequence[Sequence[str]] = (),
    stop_lists: NDArray[np.int32] | None = None,
) -> NDArray[np.uint32]:
    """Count what each document is made of: uint32[num_documents, len(COLUMNS)]."""
    rows = np.zeros((len(offsets) - 1, len(COLUMNS)), np.uint32)
    for document in range(len(offsets) - 1):
        text = bytes(data[offsets[document] : offsets[document + 1]]).decode()
        number = -1 if stop_lists is None else int(stop_lists[document])
        found = count_text(text, stop_words[number] if number >= 0 else ())
        rows[document] = [found[name] for name in COLUMNS]
    return rows


def count_text(text: str, stop_words: Sequence[str] = ()) -> dict[str, int]:
    """Return the counts of one text by name."""
    lines = text.removesuffix("\n").split("\n") if text else []
    stripped = [strip(line) for line in lines]
    text_lines = [line for line, content in zip(lines, stripped, strict=True) if content]
    tokens = [token for line in stripped for token in tokens_of(line)]
    words = [token for token in tokens if token.is_word]
    paragraphs: list[str] = []
    for line, content, before in zip(lines, stripped, ["", *stripped], strict=False):
        if content and before:
            paragraphs[-1] += "\n" + line
        elif content:
            paragraphs.append(line)
    counts = {
        "characters": len(text),
        "words": rounded(words),
        "word_characters": sum(len(token.text) for token in words),
        "tokens": rounded(tokens),
        "alphabetic_words": rounded(
            [token for token in tokens if any(flags_of(c) & ALPHABETIC for c in token.text)]
        ),
        "stop_words": len(set(stop_words) & {token.text for token in words}),
        "hashes": text.count("#"),
        "ellipses": text.count("...") + text.count("…"),
        "newlines": text.count("\n"),
        "lines": len(lines),
        "bullet_lines": sum(line.startswith(("•", "-")) for line in stripped),
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in stripped),
        "text_lines": len(text_lines),
        "punctuated_lines": sum(bool(flags_of(line[-1]) & TERMINAL) for line in text_lines),
        "short_lines": sum(len(line) <= 30 for line in text_lines),
        "paragraphs": len(paragraphs),
        "repetition_characters": len(text),
    }
    for name, pieces in (("line", text_lines), ("paragraph", paragraphs)):
        again = [piece for index, piece in enumerate(pieces) if piece in pieces[:index]]
        counts[f"duplicate_{name}s"] = len(again)
        counts[f"duplicate_{name}_characters"] = sum(map(len, again))
    for n in range(2, 5):
        counts[f"top_{n}gram_characters"] = top_characters(tokens, n)
    for n in range(5, 11):
        counts[f"duplicate_{n}gram_characters"] = duplicate_characters(tokens, n)
    for suffix in ("", "_any_ending"):
        counts |= {f"c4_{name}{suffix}": n for name, n in count_c4(stripped, not suffix).items()}
    return counts


def rounded(tokens: Sequence[Token]) -> int:
    """Return the weight of tokens in words."""
    return (sum(token.weight for token in tokens) + WORD_WEIGHT // 2) // WORD_WEIGHT


def strip(line: str) -> str:
    """Strip white space at both ends."""
    inside = [index for index, c in enumerate(line) if kind_of(c) != SPACE]
    return line[inside[0] : inside[-1] + 1] if inside else ""


def tokens_of(line: str) -> list[Token]:
    """Return the tokens of a line, by the rules of `kernels.words`."""
    return [token for run in runs_of(line) for token in tokens_of_run(run)]


def runs_of(line: str) -> list[str]:
    """Split a line at white space."""
    return "".join(" " if kind_of(c) == SPACE else c for c in line).split(" ") if line else []


def tokens_of_run(run: str) -> list[Token]:
    """Return the tokens of a run of characters without white space."""
    opening, rest = [], run
    while rest:
        dots = len(rest) - len(rest.lstrip("."))
        length = dots if dots > 1 else 1
        if dots == 1 or (dots == 0 and not flags_of(rest[0]) & OPENS):
            break
        opening.append(Token(rest[:length], kind_of(rest[0])))
        rest = rest[length:]
    end = len(rest)
    while (length := closing_length(rest[:end])) > 0:
        end -= length
    closing = [Token(piece, kind_of(piece[0])) for piece in re.findall(r"\.+|.", rest[end:], re.S)]
    return opening + middle_tokens(rest[:end]) + closing


def closing_length(text: str) -> int:
    """Return how many characters at the end of `text` are one mark that is taken off."""
    if not text:
        return 0
    before = flags_of(text[-2:-1])
    if text.endswith(".."):
        return len(text) - len(text.rstrip("."))
    if text[-1] == ".":
        is_initial = before & UPPER and not flags_of(text[-3:-2]) & UPPER
        return int(len(text) > 1 and not is_initial and text[:-1] not in TITLES)
    if text[-1] == "%":
        return int(bool(before & DIGIT))
    return int(bool(flags_of(text[-1]) & CLOSES))


def middle_tokens(text: str) -> list[Token]:
    """Return the tokens of a run without the punctuation at its ends."""
    if re.match(r"www\..|[a-z]{1,7}://", text):
        return [Token(text, WORD)]
    tokens: list[Token] = []
    current, kind, before = "", 0, 0

    def flush() -> None:
        nonlocal current
        if current:
            tokens.append(Token(current, kind))
        current = ""

    position = 0
    while position < len(text):
        character = text[position]
        own = kind_of(character)
        if own == PUNCTUATION:
            length = split_length(text, position, before)
            if length:
                flush()
                tokens.append(Token(text[position : position + length], PUNCTUATION))
                kind, before = 0, flags_of(character)
                position += length
                continue
            if before & ALPHABETIC and character in "'’" and is_clitic(text[position + 1 :]):
                flush()
        if own >= IDEOGRAPH or (own != MARK and kind >= IDEOGRAPH):
            flush()
        if not current:
            kind = own if own >= IDEOGRAPH else WORD
        current += character
        if own != MARK:
            before = flags_of(character)
        position += 1
    flush()
    return tokens


def is_clitic(text: str) -> bool:
    """Say whether the text is one letter or two."""
    return 0 < len(text) <= 2 and all(flags_of(c) & ALPHABETIC for c in text)


def split_length(text: str, position: int, before: int) -> int:
    """Return how long the token is that the punctuation at `position` makes, 0 for none."""
    character, after = text[position], text[position + 1 : position + 2]
    flags, next_flags = flags_of(character), flags_of(after)
    if text.startswith("..", position):
        return len(text[position:]) - len(text[position:].lstrip("."))
    if character == "." and before & LOWER and next_flags & UPPER:
        return 1
    if flags & SPLITS or any(IDEOGRAPH <= f & KIND_MASK <= LETTER for f in (before, next_flags)):
        return 1
    if flags & DASH and before & ALPHABETIC:
        length = 1
        while flags_of(text[position + length : position + length + 1]) & DASH:
            length += 1
        if flags_of(text[position + length : position + length + 1]) & ALPHABETIC:
            return length
    is_split = (
        (character == "," and before & ALPHABETIC and next_flags & ALPHABETIC)
        or (character in ":/<=>" and before & (ALPHABETIC | DIGIT) and next_flags & ALPHABETIC)
        or (character in "+-*^" and before & DIGIT and (next_flags & DIGIT or after == "-"))
    )
    return int(bool(is_split))


def windows(tokens: Sequence[Token], words: int, first: int) -> int | None:
    """Return the end of the shortest run from `first` that weighs `words` words."""
    weight = 0
    for end in range(first, len(tokens)):
        weight += tokens[end].weight
        if weight >= words * WORD_WEIGHT:
            return end + 1
    return None


def top_characters(tokens: Sequence[Token], words: int) -> int:
    """Return occurrences of the commonest n-gram times its length with spaces."""
    found: Counter[tuple[Token, ...]] = Counter()
    for first in range(len(tokens)):
        end = windows(tokens, words, first)
        if end is not None:
            found[tuple(tokens[first:end])] += 1
    if not found:
        return 0
    gram, count = found.most_common(1)[0]
    return count * (sum(len(t.text) for t in gram) + sum(t.is_spaced for t in gram[1:]))


def duplicate_characters(tokens: Sequence[Token], words: int) -> int:
    """Return the characters of n-grams that occurred before, none counted twice."""
    seen: set[tuple[Token, ...]] = set()
    repeated, first = 0, 0
    while (end := windows(tokens, words, first)) is not None:
        gram = tuple(tokens[first:end])
        if gram in seen:
            repeated += sum(len(token.text) for token in gram)
            first = end
        else:
            seen.add(gram)
            first += 1
    return repeated


def count_c4(lines: Sequence[str], needs_ending: bool) -> dict[str, int]:
    """Count what C4's document rules ask of the lines that its line rules keep."""
    counts = {"sentences": 0, "lorem_ipsum": 0, "curly_brackets": 0}
    for line in lines:
        runs = [run for run in runs_of(line) if run]
        if len(runs) < 3 or max(map(len, runs)) > 1000:
            continue
        end = line
        while match := _CITATION.search(end):
            end = end[: match.start()]
        if needs_ending and (not end.endswith((".", "?", "!", '"', "'")) or end.endswith("...")):
            continue
        lower = line.translate(_ASCII_LOWER)
        counts["lorem_ipsum"] += "lorem ipsum" in lower
        if "javascript" in lower:
            continue
        counts["curly_brackets"] += "{" in line
        if re.search(_POLICY, lower):
            continue
        counts["sentences"] += count_sentences(tokens_of(line))
    return counts


def count_sentences(tokens: Sequence[Token]) -> int:
    """Count sentences: one begins after a final mark, with the next token but punctuation."""
    sentences, is_after_end = 1, False
    for token in tokens:
        first = flags_of(token.text[0])
        if is_after_end and not first & IS_PUNCTUATION:
            sentences, is_after_end = sentences + 1, False
        if len(token.text) == 1 and first & TERMINAL:
            is_after_end = True
    return sentences


assert SYMBOL > IDEOGRAPH
