"""Buckets of all bands flow in; groups of candidates, and who lies in which bucket, flow out.

One process, four bytes of memory a document (eight from 2**31 documents on), however many of them
are candidates: a billion in 4 GB. A group is a connected component: no bucket reaches over two, so
groups are verified apart from each other.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..indexed_dataset.atomic import atomic_path
from .dedup_layout import open_array, partition_of
from .executors import advance
from .stage import UnitResult

PARTITION_CANDIDATES = 250_000
"""Candidates that are verified together, on average, where the user sets no number of parts."""
MIN_PARTITIONS = 16
CHUNK = 1_000_000
"""Memberships, or documents, that are looked at in one go: about 60 MB."""
CHUNKS_BYTES = 150_000_000
"""Memory beside the documents' own: chunks, and the process itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComponentsArguments:
    """What the only unit of the stage `components` gets."""

    buckets: tuple[Path, ...]
    """Files of the stage `buckets`, a band each."""
    num_documents: int
    num_partitions: int
    """0: by the number of candidates."""
    candidates: Path
    members: Path
    """The files to write."""


def write_components(arguments: ComponentsArguments) -> UnitResult:
    """Write candidates with their groups, and the memberships of each partition."""
    files = arguments.buckets
    groups: NDArray[Any] = np.full(arguments.num_documents, -1, _dtype(arguments.num_documents))
    for file in files:
        first = 0
        for chunk in _chunks(file):
            first = kernels.join_buckets(groups, chunk, first)
            advance(chunk.nbytes // 2)
    kernels.resolve_components(groups)
    num_candidates = num_groups = 0
    for documents, own in _candidates(groups):
        num_candidates += len(documents)
        num_groups += int((documents == own).sum())
    num_partitions = arguments.num_partitions or max(
        MIN_PARTITIONS, -(-num_candidates // PARTITION_CANDIDATES)
    )
    starts = _write_members(arguments.members, files, groups, num_partitions)
    _write_candidates(arguments.candidates, groups, num_candidates)
    counts = {
        "candidates": num_candidates,
        "candidate_groups": num_groups,
        "partitions": num_partitions,
        "member_starts": starts.tolist(),
    }
    return UnitResult(counts=counts, scratch=(arguments.candidates, arguments.members))


def components_memory(num_documents: int) -> int:
    """Return the bytes of memory that so many documents need here."""
    return num_documents * np.dtype(_dtype(num_documents)).itemsize + CHUNKS_BYTES


def _dtype(num_documents: int) -> type[np.signedinteger[Any]]:
    return np.int32 if num_documents < 1 << 31 else np.int64


def _candidates(groups: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield documents that are in a group, ascending, each with the first document of its group."""
    for start in range(0, len(groups), CHUNK):
        some = groups[start : start + CHUNK]
        found = np.flatnonzero(some >= 0)
        yield found + start, some[found].astype(np.int64)


def _chunks(path: Path) -> Iterator[NDArray[np.int64]]:
    """Yield the memberships of a band: one file is mapped at a time, as pages count as memory."""
    file = open_array(path)
    for start in range(0, len(file), CHUNK):
        yield file[start : start + CHUNK]


def _write_candidates(path: Path, groups: NDArray[Any], num_candidates: int) -> None:
    """Write the candidates, and after them the group of each."""
    with _new_array(path, (2, num_candidates)) as (output, base):
        done = 0
        for documents, own in _candidates(groups):
            output.seek(base + 8 * done)
            output.write(documents.data)
            output.seek(base + 8 * (num_candidates + done))
            output.write(own.data)
            done += len(documents)


@contextlib.contextmanager
def _new_array(path: Path, shape: tuple[int, int]) -> Iterator[tuple[IO[bytes], int]]:
    """Yield a new .npy file of int64 that is to be filled, and where its values begin."""
    with atomic_path(path) as temporary, open(temporary, "wb") as output:
        header = {"descr": "<i8", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(output, header)
        base = output.tell()
        output.truncate(base + 8 * shape[0] * shape[1])
        yield output, base


def _write_members(
    path: Path, files: Sequence[Path], groups: NDArray[Any], num_partitions: int
) -> NDArray[np.int64]:
    """Write (document, bucket) pairs by partition; return where each partition's begin."""

    def parts_of(chunk: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        members = np.where(chunk < 0, -1 - chunk, chunk)
        return members, partition_of(groups[members], num_partitions)

    sizes = np.zeros(num_partitions, np.int64)
    for file in files:
        for chunk in _chunks(file):
            sizes += np.bincount(parts_of(chunk)[1], minlength=num_partitions)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    cursors = starts[:-1].copy()
    with _new_array(path, (int(starts[-1]), 2)) as (output, base):
        bucket = np.int64(-1)
        for file in files:
            for chunk in _chunks(file):
                members, parts = parts_of(chunk)
                buckets = np.cumsum(chunk < 0) + bucket
                bucket = buckets[-1]
                order = np.argsort(parts, kind="stable")
                pairs = np.stack([members[order], buckets[order]], axis=1)
                counts = np.bincount(parts, minlength=num_partitions)
                done = 0
                for part in np.flatnonzero(counts).tolist():
                    output.seek(base + 16 * int(cursors[part]))
                    output.write(pairs[done : done + counts[part]].data)
                    done += counts[part]
                cursors += counts
                advance(chunk.nbytes // 2)
    return starts
