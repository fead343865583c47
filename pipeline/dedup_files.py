"""The intermediate files of dedup: how they are laid out, written whole and opened as maps.

```
work/keys/UNIT.npy         uint64[NUM_FIXED_ROWS + num_bands, documents of the unit]
work/group/groups.npy      int64[NUM_GROUP_ROWS, documents of the run]
work/shingles/UNIT.npy     candidates of the unit: `candidate_record(num_bands)`
work/shingles/UNIT.values  their shingle sets, uint64 one after another
work/verify/PART.npy       documents that were removed or that others were removed for: VERIFIED
```
A document's number is its place in the run: units in order, documents of a unit in order. Numbers,
so all that dedup decides, depend on the input only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HASH_LOW, HASH_HIGH, ID_LOW, ID_HIGH, TEXT_BYTES = range(5)
NUM_FIXED_ROWS = 5
"""Rows of a key file before those of the bands: hash of the clean text, id, size."""

EXACT_ROOT, EXACT_SIZE, CANDIDATE_GROUP, ROOT_ID_LOW, ROOT_ID_HIGH = range(5)
NUM_GROUP_ROWS = 5
"""Rows of the group file: first document with the same text, documents with the same text, the
smallest number in the group of near-copy candidates (-1: no candidate), id of the first document
(two words, bits of uint64)."""

VERIFIED = np.dtype(
    [
        ("document", "<i8"),  # ascending in the file
        ("kept", "<i8"),  # number of the document kept in its place; itself where kept
        ("kept_id", "<u8", (2,)),
        ("jaccard", "<f8"),  # to the kept one; 1 for itself
        ("cluster_size", "<i8"),  # documents that the kept one stands for, with itself
    ]
)


def candidate_record(num_bands: int) -> np.dtype[Any]:
    """Return the type of one candidate; records are sorted by partition, then document."""
    return np.dtype(
        [
            ("partition", "<i4"),
            ("shift", "<u1"),  # of the sampled shingle set, see kernels.shingle_sets
            ("document", "<i8"),
            ("group", "<i8"),
            ("exact_size", "<i8"),
            ("text_bytes", "<i8"),
            ("set_start", "<i8"),  # of the shingle set in UNIT.values
            ("set_size", "<i8"),
            ("id", "<u8", (2,)),
            ("keys", "<u8", (num_bands,)),
        ]
    )


def partition_of(groups: NDArray[np.int64], num_partitions: int) -> NDArray[np.int64]:
    """Return the partition, in [0, num_partitions), that verifies each candidate group."""
    mixed = groups.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(33)) % np.uint64(num_partitions)).astype(np.int64)


def partition_name(partition: int, num_partitions: int) -> str:
    """Return the name of a partition's unit and file."""
    return f"part-{partition:05}-of-{num_partitions:05}"


def open_array(path: Path) -> NDArray[Any]:
    """Map an .npy file read-only; pages come from the disk as they are touched."""
    array: NDArray[Any] = np.load(path, mmap_mode="r")
    return array


def open_values(path: Path) -> NDArray[np.uint64]:
    """Map a file of shingle sets read-only."""
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, np.uint64)
    return np.memmap(path, "<u8", mode="r")
