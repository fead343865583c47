"""Where documents hold windows of evaluation data in; what each document shares with which row out.

A window that a document has stands in one evaluation row or more. Of each pair of a document and a
row: how many of the row's tokens are in windows that the document has, and the longest run of
tokens that both have one after the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .evaluation_index import EvaluationIndex

Hits = tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]
"""documents, starts, ends, entries, lasts: what `kernels.find_windows` returns."""


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of a document and an evaluation row, by document; int64[n] each."""

    documents: NDArray[np.int64]
    rows: NDArray[np.int64]
    """Number in rows.npy."""
    covered: NDArray[np.int64]
    """Tokens of the row that the document holds, in runs of a window at least."""
    longest: NDArray[np.int64]
    """Tokens of the longest run."""
    starts: NDArray[np.int64]
    """First byte of the longest run in the batch, of equal ones the first."""
    ends: NDArray[np.int64]
    """Byte after its last."""


def match_rows(hits: Hits, index: EvaluationIndex) -> Matches:
    """Join hits to matches."""
    hit, entry = _expand(hits[3], index)
    documents, starts, ends, lasts = (hits[column][hit] for column in (0, 1, 2, 4))
    rows, row_lasts, lengths = (entry[name].astype(np.int64) for name in ("row", "last", "length"))
    pairs, pair = np.unique(np.stack([documents, rows], axis=1), axis=0, return_inverse=True)
    pair = pair.reshape(-1)
    covered = _covered(pair, row_lasts - lengths + 1, row_lasts, len(pairs))
    # Runs: hits of a pair one token further in both, so on one diagonal.
    order = np.lexsort((lasts, lasts - row_lasts, pair))
    pair, lasts, row_lasts = pair[order], lasts[order], row_lasts[order]
    starts, ends, lengths = starts[order], ends[order], lengths[order]
    begins = np.append(
        [True],
        (np.diff(pair) != 0) | (np.diff(lasts) != 1) | (np.diff(row_lasts) != 1),
    )[: len(pair)]
    firsts = np.flatnonzero(begins)
    finals = np.append(firsts[1:], len(pair)) - 1 if len(firsts) else firsts
    runs = lengths[firsts] + finals - firsts
    best = np.lexsort((starts[firsts], -runs, pair[firsts]))
    best = best[np.append([True], np.diff(pair[firsts][best]) != 0)[: len(best)]]
    return Matches(
        documents=pairs[:, 0],
        rows=pairs[:, 1],
        covered=covered,
        longest=runs[best],
        starts=starts[firsts][best],
        ends=ends[finals][best],
    )


def hit_ranges(
    hits: Hits, is_wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return documents, starts and ends of what the hits of some documents cover, joined.

    Args:
        hits: in the order of documents.
        is_wanted: bool[num_hits].
    """
    documents, starts, ends = (column[is_wanted] for column in hits[:3])
    order = np.lexsort((ends, starts))  # bytes of the batch, so of documents too
    documents, starts, ends = documents[order], starts[order], ends[order]
    reach = np.maximum.accumulate(ends) if len(ends) else ends
    begins = np.append([True], starts[1:] > reach[:-1])[: len(starts)]
    firsts = np.flatnonzero(begins)
    finals = np.append(firsts[1:], len(starts)) - 1 if len(firsts) else firsts
    return documents[firsts], starts[firsts], reach[finals]


def _expand(
    entries: NDArray[np.int64], index: EvaluationIndex
) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return a line for each row that a hit's window stands in: number of the hit, and ENTRY."""
    num_windows = len(index.windows)
    is_window = entries < num_windows
    windows = np.flatnonzero(is_window)
    first = index.bounds[entries[windows]]
    counts = index.bounds[entries[windows] + 1] - first
    hit = np.repeat(windows, counts)
    offset = np.arange(len(hit)) - np.repeat(np.cumsum(counts) - counts, counts)
    shorts = np.flatnonzero(~is_window)
    found = np.concatenate(
        [
            index.entries[np.repeat(first, counts) + offset],
            index.shorts[entries[shorts] - num_windows],
        ]
    )
    return np.concatenate([hit, shorts]), found


def _covered(
    pair: NDArray[np.int64], firsts: NDArray[np.int64], lasts: NDArray[np.int64], num_pairs: int
) -> NDArray[np.int64]:
    """Return how many different tokens the runs of each pair have together: int64[num_pairs]."""
    order = np.lexsort((firsts, pair))
    base = pair[order] << 32  # rows have less than 2**31 tokens
    begin, end = firsts[order] + base, lasts[order] + base + 1
    reach = np.maximum.accumulate(end) if len(end) else end
    before = np.append([0], reach[:-1])[: len(reach)]
    new = np.maximum(end - np.maximum(begin, before), 0)
    return np.bincount(pair[order], new, num_pairs).astype(np.int64)
