"""The intermediate files of dedup: how they are laid out, written whole and opened as maps.

```
work/keys/UNIT.npy         uint64[NUM_HASH_ROWS, documents of the unit]
work/keys/UNIT.ranks.npy   uint64[rank words, documents]; where `keep` needs it for equal texts
work/bands/UNIT.npy        uint64[num_bands, documents]; removed once buckets are known
work/exact/PART.npy        documents that have equal texts: EXACT
work/buckets/BAND.npy      int64[]: documents with equal keys, one bucket after another; the first
                           document d of a bucket stands as -1 - d. Removed with bands
work/components/candidates.npy  int64[2, candidates]: document (ascending), candidate group
work/components/members.npy     int64[memberships, 2]: document, bucket; by partition
work/shingles/UNIT.npy     candidates of the unit: `candidate_record(rank words)`
work/shingles/UNIT.values  their shingle lists, uint64 one after another; removed once verified
work/boilerplate/PART.npy  uint64[]: frequent shingles, by ascending value; removed likewise
work/verify/PART.npy       near copies, and documents that have some: VERIFIED
```
A document's number is its place in the run: the documents of indices of earlier runs, then units in
order, documents of a unit in order. Numbers, so all that dedup decides, depend on the input only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HASH_LOW, HASH_HIGH, ID_LOW, ID_HIGH = range(4)
NUM_HASH_ROWS = 4
"""Rows of a key file: hash of the clean text (within its scope), and the document's id."""
INDEX_ROW = 4
"""Row that a key file of an index has in addition: the document's row in its Parquet file."""

NO_KEY = np.uint64(0)
"""Band key of a document without a single token, as `kernels.band_keys` gives it."""

EXACT = np.dtype(
    [
        ("document", "<i8"),  # ascending in the file
        ("root", "<i8"),  # the document that is kept of those with this text
        ("size", "<i8"),  # documents with this text
        ("root_id", "<u8", (2,)),
    ]
)

VERIFIED = np.dtype(
    [
        ("document", "<i8"),  # ascending in the file
        ("match", "<i8"),  # the document that it is a copy of; itself where it is no copy
        ("match_id", "<u8", (2,)),
        ("jaccard", "<f8"),  # to the match; 1 for itself
        ("cluster_id", "<u8", (2,)),  # id of the document that leads the cluster
        ("cluster_size", "<i8"),  # documents of the cluster, with all that have their texts
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Documents of one unit of this run, or of one of an index, and where dedup finds them."""

    name: str
    first_document: int
    num_documents: int
    keys: Path
    ranks: Path | None
    """None where equal texts are ranked by their numbers alone."""
    bands: Path
    documents: Path | None
    """Parquet file of the texts; None: there are none."""
    is_old: bool
    """Of an index: documents that were kept before, and stay."""


def candidate_record(num_rank_words: int) -> np.dtype[Any]:
    """Return the type of one candidate; records are sorted by partition, then document."""
    return np.dtype(
        [
            ("partition", "<i4"),
            ("shift", "<u1"),  # of a sampled shingle list, see kernels.shingle_lists
            ("window", "<u1"),  # tokens of its longest shingle
            ("is_old", "?"),
            ("document", "<i8"),
            ("group", "<i8"),
            ("exact_size", "<i8"),
            ("list_start", "<i8"),  # of the shingle list in UNIT.values
            ("list_size", "<i8"),
            ("source", "<u8"),  # word for the source's name
            ("id", "<u8", (2,)),
            ("ranks", "<u8", (num_rank_words,)),  # smaller is better
        ]
    )


def partition_of(groups: NDArray[Any], num_partitions: int) -> NDArray[np.int64]:
    """Return the partition, in [0, num_partitions), that verifies each candidate group."""
    mixed = groups.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(33)) % np.uint64(num_partitions)).astype(np.int64)


def part_name(part: int, num_parts: int) -> str:
    """Return the name of one of several units of equal kind, and of its file."""
    return f"part-{part:05}-of-{num_parts:05}"


def open_array(path: Path) -> NDArray[Any]:
    """Map an .npy file read-only; pages come from the disk as they are touched."""
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def open_values(path: Path) -> NDArray[np.uint64]:
    """Map a file of shingle lists read-only."""
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, np.uint64)
    return np.memmap(path, "<u8", mode="r")


class ExactTable:
    """What the stage `exact` found, looked up by document number."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._parts = [open_array(path) for path in paths]

    def rows(self, first: int, last: int) -> NDArray[Any]:
        """Return the rows of EXACT of documents first to last - 1, by document."""
        parts = [np.empty(0, EXACT)]
        for part in self._parts:
            start, end = np.searchsorted(part["document"], [first, last])
            parts.append(np.array(part[start:end]))
        rows = np.concatenate(parts)
        return rows[np.argsort(rows["document"])]
