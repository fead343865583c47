"""Where documents hold windows of evaluation data in; what each document shares with which row out.

A window that a document has stands in one evaluation row or more. Of each pair of a document and a
row: how many of the row's tokens are in windows that the document has, and the longest run of
tokens that both have one after the other. Of a window that stands in a row again and again
(1 1 1 1) the run counts the first places only: all of them would be too many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .evaluation_index import KEPT_ROWS, EvaluationIndex, equal_runs

MAX_HITS = 64
"""Hits of one window in one document that runs are made of, the first ones."""

MAX_PLACES = 8
"""Places of a window that runs are made of, times KEPT_ROWS."""

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
    # A document of a batch of some megabytes and an entry fit into one number.
    keys = hits[0] << 38 | hits[3]
    order = np.argsort(keys, kind="stable")
    firsts, ranks = equal_runs(keys[order])
    pairs, covered = _covered(keys[order][firsts], index)
    few = np.sort(order[ranks < MAX_HITS])
    hits = tuple(column[few] for column in hits)  # type: ignore[assignment]
    hit, entry = _expand(hits[3], index, MAX_PLACES)
    documents, starts, ends, lasts = (hits[column][hit] for column in (0, 1, 2, 4))
    rows, row_lasts, lengths = (entry[name].astype(np.int64) for name in ("row", "last", "length"))
    pair = documents << 32 | rows
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
        documents=pairs >> 32,
        rows=pairs & 0xFFFFFFFF,
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
    entries: NDArray[np.int64], index: EvaluationIndex, most: int
) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """Return a line for each place of a hit's window in each row: number of the hit, and ENTRY.

    Of all places of a window the first `most` times KEPT_ROWS; 0: all.
    """
    num_windows = len(index.windows)
    is_window = entries < num_windows
    windows = np.flatnonzero(is_window)
    first = index.bounds[entries[windows]]
    counts = index.bounds[entries[windows] + 1] - first
    if most:
        counts = np.minimum(counts, most * KEPT_ROWS)
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
    once: NDArray[np.int64], index: EvaluationIndex
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs (document << 32 | row), ascending, and how many of the row's tokens are found.

    Args:
        once: document << 38 | entry of each window that a document has.
        index: what entries are.
    """
    line, entry = _expand(once & ((1 << 38) - 1), index, 0)
    key = (once[line] >> 38) << 32 | entry["row"].astype(np.int64)
    first = entry["last"].astype(np.int64) - entry["length"] + 1
    order = np.lexsort((first, key))
    pairs, pair = np.unique(key[order], return_inverse=True)
    base = pair.astype(np.int64) << 32  # rows have less than 2**31 tokens
    begin, end = first[order] + base, entry["last"][order].astype(np.int64) + base + 1
    reach = np.maximum.accumulate(end) if len(end) else end
    before = np.append([0], reach[:-1])[: len(reach)]
    new = np.maximum(end - np.maximum(begin, before), 0)
    return pairs, np.bincount(pair, new, len(pairs)).astype(np.int64)
