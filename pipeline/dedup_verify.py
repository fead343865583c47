"""Candidates of one partition flow in, verified near copies and their similarities flow out.

A group of candidates lies in one partition as a whole. `kernels.verify_group` decides.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .array_files import save_array
from .dedup_layout import VERIFIED, candidate_record, open_array
from .dedup_preference import order_of
from .dedup_shingles import read_records
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
    boilerplate: tuple[Path, ...]
    """Files of the stage `boilerplate`, by ascending value."""
    members: Path
    member_range: tuple[int, int]
    """Where the partition's memberships lie in it."""
    partition: int
    num_rank_words: int
    threshold: float
    payload_overlap: float
    among_new: bool
    all_pairs: bool
    verified: Path
    """The file to write."""


def write_verified(arguments: VerifyArguments) -> UnitResult:
    """Write which candidates of one partition are near copies, and of which documents."""
    records, file_of = _read_partition(arguments)

    # The document to keep comes first in its group: old ones, then the best; ties to the earlier.
    order = order_of(records["ranks"], records["document"], ~records["is_old"], records["group"])
    records, file_of = records[order], file_of[order]
    memberships = _Memberships(arguments, records["document"])
    boilerplate = np.concatenate(
        [np.empty(0, np.uint64), *(open_array(path) for path in arguments.boilerplate)]
    )
    parts = [np.empty(0, VERIFIED)]
    counts = np.zeros(4, np.int64)
    for start, end in _batches(records["group"], records["list_size"]):
        batch = records[start:end]
        total = int(batch["list_size"].sum())
        buckets, bucket_offsets = memberships.of(start, end)
        with _shingle_memory(total, arguments.verified.parent) as (sets, payloads):
            set_offsets, payload_offsets = _fill_sets(
                arguments, batch, file_of[start:end], boilerplate, sets, payloads
            )
            copy_of, jaccard, batch_counts = kernels.verify_group(
                sets[: set_offsets[-1]],
                set_offsets,
                np.ascontiguousarray(batch["shift"]),
                payloads[: payload_offsets[-1]],
                payload_offsets,
                buckets,
                bucket_offsets,
                np.ascontiguousarray(batch["is_old"]),
                arguments.threshold,
                arguments.payload_overlap,
                arguments.among_new,
                arguments.all_pairs,
            )
        counts += batch_counts
        parts.append(_evidence(batch, copy_of, jaccard))
        advance(8 * total)
    verified = np.concatenate(parts)
    verified = verified[np.argsort(verified["document"], kind="stable")]
    save_array(arguments.verified, verified)
    return UnitResult(
        counts={
            "candidates": len(records),
            "near_duplicates": int((verified["document"] != verified["match"]).sum()),
            "pairs_compared": int(counts[0]),
            "pairs_not_compared": int(counts[1]),
            "full_buckets": int(counts[2]),
            "pairs_of_other_payload": int(counts[3]),
        },
        scratch=(arguments.verified,),
    )


def _read_partition(
    arguments: VerifyArguments,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return records of the partition, and the number of the unit that each is of."""
    parts = [np.empty(0, candidate_record(arguments.num_rank_words))]
    numbers = [np.empty(0, np.int64)]
    for number, unit in enumerate(arguments.units):
        parts.append(read_records(arguments.shingles, unit, arguments.partition))
        numbers.append(np.full(len(parts[-1]), number))
    return np.concatenate(parts), np.concatenate(numbers)


class _Memberships:
    """The buckets of a partition's candidates, in the order of its records."""

    def __init__(self, arguments: VerifyArguments, documents: NDArray[np.int64]) -> None:
        start, end = arguments.member_range
        pairs = open_array(arguments.members)[start:end]
        # Rank of each pair's document among the records.
        by_number = np.argsort(documents)
        ranks = by_number[np.searchsorted(documents, pairs[:, 0], sorter=by_number)]
        order = np.argsort(ranks, kind="stable")
        self._buckets = np.array(pairs[:, 1])[order]
        self._offsets = np.concatenate(
            ([0], np.cumsum(np.bincount(ranks, minlength=len(documents))))
        ).astype(np.int64)

    def of(self, start: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (buckets, bucket_offsets) of records start to end - 1, numbered from 0 on."""
        offsets = self._offsets[start : end + 1]
        buckets = self._buckets[offsets[0] : offsets[-1]]
        numbered = np.unique(buckets, return_inverse=True)[1]
        return numbered.astype(np.int64), offsets - offsets[0]


def _batches(groups: NDArray[np.int64], list_sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of runs of whole groups, of BATCH_SHINGLES or of one larger group.

    Groups share no bucket (they would be one), so comparing several in one call mixes nothing.
    """
    edges = np.flatnonzero(np.diff(groups, prepend=-1, append=-1)).tolist()
    total = np.concatenate(([0], np.cumsum(list_sizes)))
    start = 0
    for begin, end in pairwise(edges):
        if begin > start and total[end] - total[start] > BATCH_SHINGLES:
            yield start, begin
            start = begin
    if len(groups):
        yield start, len(groups)


@contextlib.contextmanager
def _shingle_memory(
    num_shingles: int, folder: Path
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Yield two arrays for so many shingles each: in memory, or mapped from temporary files."""
    if num_shingles <= MEMORY_SHINGLES:
        yield np.empty(num_shingles, np.uint64), np.empty(num_shingles, np.uint64)
        return
    with contextlib.ExitStack() as stack:
        first, second = (
            np.memmap(
                stack.enter_context(tempfile.TemporaryFile(dir=folder)),
                np.uint64,
                "w+",
                shape=(num_shingles,),
            )
            for _ in range(2)
        )
        yield first, second


def _read_lists(
    arguments: VerifyArguments, batch: NDArray[Any], file_of: NDArray[np.int64]
) -> list[NDArray[np.uint64]]:
    """Return the shingle lists of some records, one file after another.

    They are read, not mapped: pages of a map count as memory of the process once touched.
    """
    lists = [np.empty(0, np.uint64)] * len(batch)
    starts, sizes = batch["list_start"].tolist(), batch["list_size"].tolist()
    order = np.argsort(file_of, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(file_of[order])) + 1):
        unit = arguments.units[file_of[rows[0]]]
        with open(arguments.shingles / f"{unit}.values", "rb", buffering=0) as file:
            for row in rows.tolist():
                content = os.pread(file.fileno(), 8 * sizes[row], 8 * starts[row])
                lists[row] = np.frombuffer(content, "<u8")
    return lists


def _fill_sets(
    arguments: VerifyArguments,
    batch: NDArray[Any],
    file_of: NDArray[np.int64],
    boilerplate: NDArray[np.uint64],
    sets: NDArray[np.uint64],
    payloads: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Fill the sets and payloads of a batch, some lists at a time; return their offsets."""
    set_offsets = np.zeros(len(batch) + 1, np.int64)
    payload_offsets = np.zeros(len(batch) + 1, np.int64)
    ends = np.cumsum(batch["list_size"])
    start = 0
    while start < len(batch):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + BATCH_SHINGLES, side="right")))
        lists = _read_lists(arguments, batch[start:end], file_of[start:end])
        found = kernels.shingle_sets(
            np.concatenate(lists),
            np.concatenate(([0], np.cumsum(batch["list_size"][start:end]))),
            np.ascontiguousarray(batch["window"][start:end]),
            np.ascontiguousarray(batch["source"][start:end]),
            boilerplate,
        )
        for values, offsets, all_values, all_offsets in (
            (found[0], found[1], sets, set_offsets),
            (found[2], found[3], payloads, payload_offsets),
        ):
            done = all_offsets[start]
            all_values[done : done + len(values)] = values
            all_offsets[start + 1 : end + 1] = offsets[1:] + done
        start = end
    return set_offsets, payload_offsets


def _evidence(
    batch: NDArray[Any], copy_of: NDArray[np.int64], jaccard: NDArray[np.float64]
) -> NDArray[Any]:
    """Return the rows of VERIFIED for near copies and those they are copies of."""
    rows = np.arange(len(batch))
    match = np.where(copy_of >= 0, copy_of, rows)
    leaders = match
    while not np.array_equal(leaders, leaders[leaders]):  # copies of copies: with `all_pairs`
        leaders = leaders[leaders]
    sizes = np.bincount(leaders, weights=batch["exact_size"], minlength=len(batch))
    has_copies = np.bincount(leaders, minlength=len(batch)) > 1
    wanted = np.flatnonzero(has_copies[leaders])
    evidence: NDArray[Any] = np.empty(len(wanted), VERIFIED)
    evidence["document"] = batch["document"][wanted]
    evidence["match"] = batch["document"][match[wanted]]
    evidence["match_id"] = batch["id"][match[wanted]]
    evidence["jaccard"] = np.where(copy_of[wanted] >= 0, jaccard[wanted], 1.0)
    evidence["cluster_id"] = batch["id"][leaders[wanted]]
    evidence["cluster_size"] = sizes[leaders[wanted]]
    return evidence
