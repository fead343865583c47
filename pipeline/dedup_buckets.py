"""Keys of one band flow in, buckets of documents with equal keys flow out: near-copy candidates.

A range of keys is sorted in memory at a time. Copies of a text are left out: the document that is
kept of them stands for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .array_files import save_array
from .dedup_exact import in_range, joined_and_emptied, same_neighbours
from .dedup_layout import NO_KEY, ExactTable, Part, open_array
from .executors import advance
from .stage import UnitResult

RANGE_KEYS = 8_000_000
"""Keys in one range, on average: about 250 MB while they are sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketsArguments:
    """What one unit of the stage `buckets`, a band, gets."""

    parts: tuple[Part, ...]
    exact: tuple[Path, ...]
    """Files of the stage `exact`."""
    band: int
    among_new: bool
    """Whether a bucket counts that has no old document."""
    buckets: Path
    """The file to write."""


def write_buckets(arguments: BucketsArguments) -> UnitResult:
    """Write the documents of each bucket of two or more, see `dedup_layout`."""
    table = ExactTable(arguments.exact)
    removed = []
    for part in arguments.parts:
        rows = table.rows(part.first_document, part.first_document + part.num_documents)
        is_copy = rows["document"] != rows["root"]
        removed.append(rows["document"][is_copy] - part.first_document)
    del table  # its pages count as memory while it is mapped
    num_old = sum(part.num_documents for part in arguments.parts if part.is_old)
    num_documents = sum(part.num_documents for part in arguments.parts)
    num_ranges = max(1, -(-num_documents // RANGE_KEYS))
    buckets = [np.empty(0, np.int64)]
    for number in range(num_ranges):
        keys: list[NDArray[np.uint64]] = []
        documents: list[NDArray[np.int64]] = []
        for part, copies in zip(arguments.parts, removed, strict=True):
            row = np.array(open_array(part.bands)[arguments.band])
            row[copies] = NO_KEY
            rows = np.flatnonzero((row != NO_KEY) & in_range(row, number, num_ranges))
            keys.append(row[rows])
            documents.append(rows + part.first_document)
            advance(8 * part.num_documents // num_ranges)
        buckets.append(
            _buckets(joined_and_emptied(keys, np.uint64), joined_and_emptied(documents, np.int64))
        )
        if not arguments.among_new:
            buckets[-1] = _with_old(buckets[-1], num_old)
    found = np.concatenate(buckets)
    save_array(arguments.buckets, found)
    counts = {"buckets": int((found < 0).sum()), "members": len(found)}
    return UnitResult(counts=counts, outputs=(arguments.buckets,))


def _buckets(keys: NDArray[np.uint64], documents: NDArray[np.int64]) -> NDArray[np.int64]:
    order = np.argsort(keys)
    padded = same_neighbours(keys, order) if len(order) else np.zeros(1, np.bool_)
    rows = order[padded[1:] | padded[:-1]]
    rows = rows[np.lexsort((documents[rows], keys[rows]))]
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = keys[rows[1:]] != keys[rows[:-1]]
    return np.where(is_first, -1 - documents[rows], documents[rows])


def _with_old(buckets: NDArray[np.int64], num_old: int) -> NDArray[np.int64]:
    """Return only buckets whose first, so smallest, document is an old one."""
    starts = np.flatnonzero(buckets < 0)
    sizes = np.diff(starts, append=len(buckets))
    return buckets[np.repeat(-1 - buckets[starts] < num_old, sizes)]
