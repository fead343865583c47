"""Windows looked up in a dictionary, short texts compared at every token."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..folding import IGNORED, MARK, SEPARATOR, SYMBOL, TOKEN_WEIGHTS, WORD, classify, fold
from .hashing import document_ranges
from .shingling import decode, hash_window, tokenize
from .token_spans import windows as windows_of


def find_windows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    weight: int,
    anchor_weight: int,
    windows: NDArray[np.uint64],
    anchors: NDArray[np.uint64],
    wholes: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    seed: int = 0,
) -> tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]:
    """Return documents, starts, ends, entries and last tokens of what is found."""
    listed = {value: place for place, value in enumerate(windows.tolist())}
    short = list(zip(anchors.tolist(), wholes.tolist(), lengths.tolist(), strict=True))
    rows = []
    for document, (begin, end) in enumerate(document_ranges(offsets)):
        text = data[begin:end].tobytes()
        tokens = tokenize(decode(text))
        places = [(begin + first, begin + last) for first, last in token_places(text)]

        def hash_of(first: int, last: int, tokens: list[tuple[int, str]] = tokens) -> int:
            return hash_window([characters for _, characters in tokens[first : last + 1]], seed)

        found = []
        if sum(TOKEN_WEIGHTS[kind] for kind, _ in tokens) >= weight:
            for last, first in windows_of(tokens, weight):
                if (value := hash_of(first, last)) in listed:
                    found.append((last, listed[value], first))
        for last, near in windows_of(tokens, anchor_weight):
            for place, (anchor, whole, length) in enumerate(short):
                first = last + 1 - length
                if hash_of(near, last) == anchor and first >= 0 and hash_of(first, last) == whole:
                    found.append((last, len(windows) + place, first))
        rows += [
            (document, places[first][0], places[last][1], entry, last)
            for last, entry, first in sorted(found)
        ]
    columns = np.array(rows, np.int64).reshape(-1, 5).T
    return tuple(column.copy() for column in columns)  # type: ignore[return-value]


def token_places(text: bytes) -> list[tuple[int, int]]:
    """Return first byte and byte after the last of each token of `tokenize`."""
    found: list[list[int]] = []
    kind, previous, position = SEPARATOR, "", 0
    for character in decode(text):
        size = len(character.encode()) if text[position:].startswith(character.encode()) else 1
        begin, position = position, position + size
        folded = fold(character)
        token_class = classify(folded)
        if token_class == IGNORED:
            continue
        same_symbol = token_class == SYMBOL == kind and previous == folded
        if token_class == MARK and kind == SEPARATOR:
            kind, previous = WORD, ""
            found.append([begin, position])
        elif token_class == MARK or (token_class == WORD == kind) or same_symbol:
            found[-1][1] = position
            previous = folded if same_symbol else ""
        else:
            kind, previous = token_class, folded
            if token_class != SEPARATOR:
                found.append([begin, position])
    return [(first, last) for first, last in found]
