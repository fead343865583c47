"""Candidates of one partition flow in, verified near copies and their similarities flow out.

A group of candidates lies in one partition as a whole. `kernels.verify_group` decides.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .array_files import save_array
from .dedup_files import (
    VERIFIED,
    candidate_record,
    open_array,
    open_values,
)
from .executors import advance
from .stage import UnitResult

BATCH_SHINGLES = 4_000_000
"""Shingles of whole groups that are compared in one call: 32 MB."""
MEMORY_SHINGLES = 64_000_000
"""A larger group is compared in a temporary file that is mapped, not in memory: 512 MB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyArguments:
    """What one unit of the stage `verify`, a partition, gets."""

    shingles: Path
    """Folder of the stage `shingles`."""
    units: tuple[str, ...]
    """Names of its units, in order."""
    partition: int
    num_bands: int
    threshold: float
    keep: Literal["longest", "first"]
    verified: Path
    """The file to write."""


def write_verified(arguments: VerifyArguments) -> UnitResult:
    """Write which candidates of one partition are near copies, and of which documents."""
    records, files, file_of = _read_partition(arguments)
    # The document to keep comes first in its group; ties go to the earlier one.
    preference = -records["text_bytes"] if arguments.keep == "longest" else records["document"]
    order = np.lexsort((records["document"], preference, records["group"]))
    records, file_of = records[order], file_of[order]
    parts = [np.empty(0, VERIFIED)]
    counts = np.zeros(3, np.int64)
    for start, end in _batches(records["group"], records["set_size"]):
        batch = records[start:end]
        with _shingle_memory(int(batch["set_size"].sum()), arguments.verified.parent) as values:
            set_offsets = np.zeros(end - start + 1, np.int64)
            np.cumsum(batch["set_size"], out=set_offsets[1:])
            for row, file in enumerate(file_of[start:end].tolist()):
                begin, size = int(batch["set_start"][row]), int(batch["set_size"][row])
                values[set_offsets[row] : set_offsets[row + 1]] = files[file][begin : begin + size]
            copy_of, jaccard, batch_counts = kernels.verify_group(
                values,
                set_offsets,
                np.ascontiguousarray(batch["shift"]),
                np.ascontiguousarray(batch["keys"].T),
                arguments.threshold,
            )
        counts += batch_counts
        parts.append(_evidence(batch, copy_of, jaccard))
        advance(8 * int(set_offsets[-1]))
    verified = np.concatenate(parts)
    verified = verified[np.argsort(verified["document"], kind="stable")]
    save_array(arguments.verified, verified)
    return UnitResult(
        counts={
            "candidates": len(records),
            "near_duplicates": int((verified["document"] != verified["kept"]).sum()),
            "pairs_compared": int(counts[0]),
            "pairs_not_compared": int(counts[1]),
            "full_buckets": int(counts[2]),
        },
        outputs=(arguments.verified,),
    )


def _read_partition(
    arguments: VerifyArguments,
) -> tuple[NDArray[Any], list[NDArray[np.uint64]], NDArray[np.int64]]:
    """Return records of the partition, value files of all units, and the file of each record."""
    parts = [np.empty(0, candidate_record(arguments.num_bands))]
    files, numbers = [], [np.empty(0, np.int64)]
    for number, unit in enumerate(arguments.units):
        records = open_array(arguments.shingles / f"{unit}.npy")
        bounds = [arguments.partition, arguments.partition + 1]
        start, end = np.searchsorted(records["partition"], np.array(bounds, np.int32)).tolist()
        parts.append(records[start:end])
        numbers.append(np.full(end - start, number))
        files.append(open_values(arguments.shingles / f"{unit}.values"))
    return np.concatenate(parts), files, np.concatenate(numbers)


def _batches(groups: NDArray[np.int64], set_sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of runs of whole groups, of BATCH_SHINGLES or of one larger group.

    Groups share no band key (they would be one), so comparing several in one call mixes nothing.
    """
    edges = np.flatnonzero(np.diff(groups, prepend=-1, append=-1)).tolist()
    total = np.concatenate(([0], np.cumsum(set_sizes)))
    start = 0
    for begin, end in pairwise(edges):
        if begin > start and total[end] - total[start] > BATCH_SHINGLES:
            yield start, begin
            start = begin
    if len(groups):
        yield start, len(groups)


@contextlib.contextmanager
def _shingle_memory(num_shingles: int, folder: Path) -> Iterator[NDArray[np.uint64]]:
    """Yield an array for so many shingles: in memory, or mapped from a temporary file."""
    if num_shingles <= MEMORY_SHINGLES:
        yield np.empty(num_shingles, np.uint64)
        return
    with tempfile.TemporaryFile(dir=folder) as file:
        yield np.memmap(file, np.uint64, "w+", shape=(num_shingles,))


def _evidence(
    batch: NDArray[Any], copy_of: NDArray[np.int64], jaccard: NDArray[np.float64]
) -> NDArray[Any]:
    """Return the rows of VERIFIED for removed documents and those they were removed for."""
    rows = np.arange(len(batch))
    kept = np.where(copy_of >= 0, copy_of, rows)
    sizes = np.bincount(kept, weights=batch["exact_size"], minlength=len(batch)).astype(np.int64)
    has_copies = np.bincount(kept, minlength=len(batch)) > 1
    wanted = np.flatnonzero(has_copies[kept])
    evidence: NDArray[Any] = np.empty(len(wanted), VERIFIED)
    evidence["document"] = batch["document"][wanted]
    evidence["kept"] = batch["document"][kept[wanted]]
    evidence["kept_id"] = batch["id"][kept[wanted]]
    evidence["jaccard"] = np.where(copy_of[wanted] >= 0, jaccard[wanted], 1.0)
    evidence["cluster_size"] = sizes[kept[wanted]]
    return evidence
