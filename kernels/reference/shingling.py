"""How a text is cut into shingles, a step at a time: characters, tokens, windows, hashes."""

from __future__ import annotations

from ..folding import (
    IGNORED,
    MARK,
    SEPARATOR,
    SYMBOL,
    TOKEN_WEIGHTS,
    WINDOW_WEIGHT,
    WORD,
    classify,
    fold,
)
from ..shingling import LENGTH_FACTOR, WINDOW_BASE, WORD_BASE
from .hashing import MASK, mix64


def decode(text: bytes) -> str:
    """Decode UTF-8; a byte that starts no well-formed sequence becomes U+FFFD."""
    characters = []
    position = 0
    while position < len(text):
        for length in (1, 2, 3, 4):
            try:
                characters.append(text[position : position + length].decode())
            except UnicodeDecodeError:
                continue
            break
        else:
            characters.append("\ufffd")
            length = 1
        position += length
    return "".join(characters)


def tokenize(text: str) -> list[tuple[int, str]]:
    """Return (class, folded characters) of each token.

    `tokenize("Don't 漢字!")` is [(WORD, "don"), (WORD, "t"), (IDEOGRAPH, "漢"), (IDEOGRAPH, "字")].
    """
    tokens: list[tuple[int, str]] = []
    kind = SEPARATOR
    for character in map(fold, text):
        token_class = classify(character)
        if token_class == IGNORED:
            continue
        if token_class == MARK:
            if kind == SEPARATOR:
                kind = WORD
                tokens.append((WORD, ""))
            tokens[-1] = (kind, tokens[-1][1] + character)
        elif token_class == WORD and kind == WORD:
            tokens[-1] = (kind, tokens[-1][1] + character)
        elif token_class == SYMBOL and kind == SYMBOL and tokens[-1][1] == character:
            pass
        else:
            kind = token_class
            if kind != SEPARATOR:
                tokens.append((kind, character))
    return tokens


def windows(tokens: list[tuple[int, str]]) -> list[list[str]]:
    """Return the shortest run of tokens that weighs WINDOW_WEIGHT, for each token that ends one.

    A text too light for one window is a window of its own, unless it has no token at all.
    """
    found = []
    for end in range(1, len(tokens) + 1):
        start, weight = end, 0
        while start > 0 and weight < WINDOW_WEIGHT:
            start -= 1
            weight += TOKEN_WEIGHTS[tokens[start][0]]
        if weight >= WINDOW_WEIGHT:
            found.append([characters for _, characters in tokens[start:end]])
    if not found and tokens:
        found.append([characters for _, characters in tokens])
    return found


def hash_window(window: list[str], seed: int) -> int:
    """Return the hash of a shingle: a polynomial over the mixed polynomials of its tokens."""
    start = (seed * 0x9E3779B97F4A7C15 + 0x2545F4914F6CDD1D) & MASK
    window_hash = 0
    for token in window:
        word_hash = start
        for character in token:
            word_hash = (word_hash ^ ord(character)) * WORD_BASE & MASK
        window_hash = (window_hash * WINDOW_BASE + mix64(word_hash)) & MASK
    return mix64((window_hash + len(window) * LENGTH_FACTOR) & MASK)


def shingle_list(text: bytes, seed: int) -> tuple[list[int], int]:
    """Return the hashes of a document's shingles in order, none equal to the one before it, and
    the number of tokens in its longest shingle.
    """
    found = windows(tokenize(decode(text)))
    hashes = [hash_window(window, seed) for window in found]
    changed = [new for old, new in zip([None, *hashes], hashes, strict=False) if new != old]
    return changed, max(map(len, found), default=0)


def shingles(text: bytes, seed: int) -> set[int]:
    """Return the hashes of all shingles of a document."""
    return set(shingle_list(text, seed)[0])
