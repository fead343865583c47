"""Windows of tokens: the tokens are listed, and at each the run that ends there is made anew."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..folding import TOKEN_WEIGHTS
from .hashing import document_ranges
from .shingling import decode, hash_window, tokenize


def text_windows(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], weight: int, seed: int = 0
) -> tuple[
    NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]:
    """Return hashes, last tokens, lengths, offsets of the documents' windows, and total weights."""
    rows: list[tuple[int, int, int]] = []
    window_offsets, totals = [0], []
    for start, end in document_ranges(offsets):
        tokens = tokenize(decode(data[start:end].tobytes()))
        for last, first in windows(tokens, weight):
            run = [characters for _, characters in tokens[first : last + 1]]
            rows.append((hash_window(run, seed), last, len(run)))
        window_offsets.append(len(rows))
        totals.append(sum(TOKEN_WEIGHTS[kind] for kind, _ in tokens))
    return (
        np.array([row[0] for row in rows], np.uint64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int64),
        np.array(window_offsets, np.int64),
        np.array(totals, np.int64),
    )


def windows(tokens: list[tuple[int, str]], weight: int) -> list[tuple[int, int]]:
    """Return (last, first) token of each window; of a lighter text the one of all its tokens."""
    found = []
    for last in range(len(tokens)):
        first, total = last + 1, 0
        while first > 0 and total < weight:
            first -= 1
            total += TOKEN_WEIGHTS[tokens[first][0]]
        if total >= weight:
            found.append((last, first))
    if not found and tokens:
        found.append((len(tokens) - 1, 0))
    return found
