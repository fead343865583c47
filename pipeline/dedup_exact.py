"""Hashes of all documents flow in; documents that have equal texts, and which one stays, flow out.

The documents of one range of hashes are sorted in memory at a time, so memory is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .array_files import save_array
from .dedup_layout import EXACT, HASH_HIGH, HASH_LOW, ID_HIGH, ID_LOW, Part, open_array
from .dedup_preference import order_of
from .executors import advance
from .stage import UnitResult

PART_DOCUMENTS = 8_000_000
"""Documents in one range of hashes, on average: about 300 MB while they are sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactArguments:
    """What one unit of the stage `exact`, a range of hashes, gets."""

    parts: tuple[Part, ...]
    range_number: int
    num_ranges: int
    among_new: bool
    """Whether equal new documents count, or only those that are equal to an old one."""
    exact: Path
    """The file to write."""


def write_exact(arguments: ExactArguments) -> UnitResult:
    """Write the rows of EXACT of all documents that share their text with others."""
    lows: list[NDArray[np.uint64]] = []
    highs: list[NDArray[np.uint64]] = []
    documents: list[NDArray[np.int64]] = []
    num_old = 0
    for part in arguments.parts:
        num_old += part.num_documents if part.is_old else 0
        keys = open_array(part.keys)
        low = np.array(keys[HASH_LOW])
        rows = np.flatnonzero(in_range(low, arguments.range_number, arguments.num_ranges))
        lows.append(low[rows])
        highs.append(keys[HASH_HIGH][rows])
        documents.append(rows + part.first_document)
        advance(8 * part.num_documents)
    equal, groups = _equal_rows(
        joined_and_emptied(lows, np.uint64), joined_and_emptied(highs, np.uint64)
    )
    numbers = joined_and_emptied(documents, np.int64)[equal]
    exact = _choose(arguments, numbers, groups, num_old)
    save_array(arguments.exact, exact[np.argsort(exact["document"])])
    removed = int(((exact["document"] != exact["root"]) & (exact["document"] >= num_old)).sum())
    return UnitResult(counts={"exact_duplicates": removed}, scratch=(arguments.exact,))


def joined_and_emptied(parts: list[NDArray[Any]], dtype: type[Any]) -> NDArray[Any]:
    """Concatenate arrays, and free them: the list is empty afterwards."""
    joined = np.empty(sum(map(len, parts)), dtype)
    end = len(joined)
    while parts:
        part = parts.pop()
        joined[end - len(part) : end] = part
        end -= len(part)
    return joined


def in_range(words: NDArray[np.uint64], number: int, num_ranges: int) -> NDArray[np.bool_]:
    """Say which words lie in one of several equal ranges of 64-bit numbers."""
    if num_ranges == 1:
        return np.ones(len(words), np.bool_)
    return np.asarray(range_numbers(words, num_ranges) == np.uint64(number))


def range_numbers(words: NDArray[np.uint64], num_ranges: int) -> NDArray[np.uint64]:
    """Return which of several equal ranges of 64-bit numbers each word lies in."""
    thirty_two = np.uint64(32)
    return (words >> thirty_two) * np.uint64(num_ranges) >> thirty_two


def range_bounds(number: int, num_ranges: int) -> tuple[int, int]:
    """Return the first and the last word of a range of `in_range`."""
    bounds = [-(-(1 << 32) * one // num_ranges) << 32 for one in (number, number + 1)]
    return bounds[0], bounds[1] - 1


def same_neighbours(words: NDArray[np.uint64], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each place in sorted order whether it equals the one before: bool[n + 1].

    The first and the last entry are False, so `[1:] | [:-1]` says what has any equal.
    """
    same = np.zeros(len(order) + 1, np.bool_)
    ordered = words[order]
    np.equal(ordered[1:], ordered[:-1], out=same[1:-1])
    return same


def _equal_rows(
    low: NDArray[np.uint64], high: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows whose hash is that of another row too, and a number for each such hash."""
    order = np.argsort(low)
    if len(order) == 0:
        return order, order
    padded = same_neighbours(low, order)
    some = order[padded[1:] | padded[:-1]]  # equal in their lower halves: few, or true copies
    some = some[np.lexsort((some, high[some], low[some]))]
    is_start = np.ones(len(some) + 1, np.bool_)
    is_start[1:-1] = (low[some[1:]] != low[some[:-1]]) | (high[some[1:]] != high[some[:-1]])
    groups = np.cumsum(is_start[:-1]) - 1
    is_alone = is_start[:-1] & is_start[1:]
    return some[~is_alone], groups[~is_alone]


def _choose(
    arguments: ExactArguments,
    documents: NDArray[np.int64],
    groups: NDArray[np.int64],
    num_old: int,
) -> NDArray[Any]:
    """Return rows of EXACT: in each group an old document stays, else the best ranked, or first."""
    ranks = _gather(arguments.parts, documents, "ranks")
    order = order_of(ranks, documents, documents >= num_old, groups)
    documents, groups = documents[order], groups[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    sizes = np.diff(starts, append=len(groups))
    exact = np.empty(len(documents), EXACT)
    exact["document"] = documents
    exact["root"] = np.repeat(documents[starts], sizes)
    exact["size"] = np.repeat(sizes, sizes)
    exact["root_id"] = np.repeat(_gather(arguments.parts, documents[starts], "ids"), sizes, axis=0)
    if not arguments.among_new:
        exact = exact[exact["root"] < num_old]
    return exact


def _gather(parts: tuple[Part, ...], documents: NDArray[np.int64], what: str) -> NDArray[np.uint64]:
    """Return rank words, or ids, of some documents, reading the files one after another."""
    order = np.argsort(documents)
    firsts = [part.first_document for part in parts]
    bounds = [*np.searchsorted(documents[order], firsts), len(order)]
    found: NDArray[np.uint64] = np.empty((len(documents), 2 if what == "ids" else 0), np.uint64)
    for part, start, end in zip(parts, bounds, bounds[1:], strict=False):
        rows = order[start:end]
        if what == "ids":
            keys = open_array(part.keys)
            found[rows] = keys[[ID_LOW, ID_HIGH]][:, documents[rows] - part.first_document].T
        elif part.ranks is not None:
            ranks = open_array(part.ranks)
            if found.shape[1] == 0:
                found = np.zeros((len(documents), len(ranks)), np.uint64)  # old ones: zeros, first
            found[rows] = ranks[:, documents[rows] - part.first_document].T
    return found
