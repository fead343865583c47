"""Buckets of all bands flow in; groups of candidates, and who lies in which bucket, flow out.

One process, five bytes of memory a document and about 40 for each candidate. A group is a
connected component: no bucket reaches over two, so groups are verified apart from each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..indexed_dataset.atomic import atomic_path
from .array_files import save_array
from .dedup_layout import open_array, partition_of
from .executors import advance
from .stage import UnitResult

PARTITION_CANDIDATES = 250_000
"""Candidates that are verified together, on average, where the user sets no number of parts."""
GROUP_BYTES_A_DOCUMENT = 20
"""Memory for each document of the run, where a third of them are candidates."""
MIN_PARTITIONS = 16
CHUNK = 1_000_000
"""Memberships that are looked at in one go: about 60 MB."""


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
    is_candidate = np.zeros(arguments.num_documents, np.bool_)
    for file in files:
        for chunk in _chunks(file):
            is_candidate[np.where(chunk < 0, -1 - chunk, chunk)] = True
    documents = np.flatnonzero(is_candidate)
    small = arguments.num_documents < 1 << 31
    # Place of a candidate among the candidates, in as little memory as is enough.
    places: NDArray[Any] = np.cumsum(is_candidate, dtype=np.int32 if small else np.int64)
    places -= 1
    del is_candidate
    parents = np.arange(len(documents))
    for file in files:
        first = np.int64(0)
        for chunk in _chunks(file):
            members, firsts, _ = _read(chunk, first, np.int64(0))
            kernels.unite_edges(
                parents, places[firsts].astype(np.int64), places[members].astype(np.int64)
            )
            first = firsts[-1]
            advance(chunk.nbytes // 2)
    components = kernels.resolve_components(parents)
    groups = documents[components]
    num_partitions = arguments.num_partitions or max(
        MIN_PARTITIONS, -(-len(documents) // PARTITION_CANDIDATES)
    )
    starts = _write_members(arguments.members, files, places, groups, num_partitions)
    save_array(arguments.candidates, np.stack([documents, groups]))
    counts = {
        "candidates": len(documents),
        "candidate_groups": int((components == np.arange(len(documents))).sum()),
        "partitions": num_partitions,
        "member_starts": starts.tolist(),
    }
    return UnitResult(counts=counts, outputs=(arguments.candidates, arguments.members))


def _chunks(path: Path) -> Iterator[NDArray[np.int64]]:
    """Yield the memberships of a band: one file is mapped at a time, as pages count as memory."""
    file = open_array(path)
    for start in range(0, len(file), CHUNK):
        yield file[start : start + CHUNK]


def _read(
    chunk: NDArray[np.int64], first: np.int64, bucket: np.int64
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return documents of a chunk, the first document of each one's bucket, and its number.

    `first` and `bucket` are those of the bucket that the chunk may begin in the middle of;
    buckets are numbered from `bucket` + 1 on.
    """
    is_first = chunk < 0
    members = np.where(is_first, -1 - chunk, chunk)
    ordinals = np.cumsum(is_first)
    firsts = np.concatenate(([first], members[is_first]))[ordinals]
    return members, firsts, ordinals + bucket


def _write_members(
    path: Path,
    files: Sequence[Path],
    places: NDArray[Any],
    groups: NDArray[np.int64],
    num_partitions: int,
) -> NDArray[np.int64]:
    """Write (document, bucket) pairs by partition; return where each partition's begin."""
    partitions = partition_of(groups, num_partitions)
    sizes = np.zeros(num_partitions, np.int64)
    for file in files:
        for chunk in _chunks(file):
            members = np.where(chunk < 0, -1 - chunk, chunk)
            sizes += np.bincount(partitions[places[members]], minlength=num_partitions)
    starts = np.concatenate(([0], np.cumsum(sizes)))
    cursors = starts[:-1].copy()
    with atomic_path(path) as temporary, open(temporary, "wb") as output:
        header = {"descr": "<i8", "fortran_order": False, "shape": (int(starts[-1]), 2)}
        np.lib.format.write_array_header_1_0(output, header)
        base = output.tell()
        output.truncate(base + 16 * int(starts[-1]))
        bucket = np.int64(-1)
        for file in files:
            for chunk in _chunks(file):
                members, _, buckets = _read(chunk, np.int64(0), bucket)
                bucket = buckets[-1]
                parts = partitions[places[members]]
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
