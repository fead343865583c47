"""Keys of one band flow in, buckets of documents with equal keys flow out: near-copy candidates.

A range of keys is sorted in memory at a time; more than one are first divided over files, so that
each key is read once and no memory grows with their number. Copies of a text are left out: the
document that is kept of them stands for all.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from ..indexed_dataset.atomic import atomic_path
from .dedup_exact import joined_and_emptied, range_numbers, same_neighbours
from .dedup_layout import NO_KEY, ExactTable, Part, open_array
from .executors import advance
from .stage import UnitResult

RANGE_KEYS = 8_000_000
"""Keys in one range, on average: about 250 MB while they are sorted."""

MAX_RANGES = 512
"""Files that are open at a time."""


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
    num_old = sum(part.num_documents for part in arguments.parts if part.is_old)
    num_documents = sum(part.num_documents for part in arguments.parts)
    num_ranges = min(max(1, -(-num_documents // RANGE_KEYS)), MAX_RANGES)
    num_buckets = num_members = 0
    with (
        _ranges(arguments, num_ranges) as ranges,
        atomic_path(arguments.buckets) as temporary,
        open(temporary, "wb") as file,
    ):
        _write_header(file, 0)
        for keys, documents in ranges:
            found = _buckets(keys, documents)
            if not arguments.among_new:
                found = _with_old(found, num_old)
            file.write(found.data)
            num_buckets += int((found < 0).sum())
            num_members += len(found)
        file.seek(0)
        _write_header(file, num_members)
    counts = {"buckets": num_buckets, "members": num_members}
    return UnitResult(counts=counts, scratch=(arguments.buckets,))


def _write_header(file: IO[bytes], length: int) -> None:
    """Write the head of a .npy file of int64; it is as long for any length."""
    header = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _rows(arguments: BucketsArguments) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Yield keys and documents of each part, without copies of texts and texts without a token."""
    table = ExactTable(arguments.exact)
    for part in arguments.parts:
        row = np.array(open_array(part.bands)[arguments.band])
        exact = table.rows(part.first_document, part.first_document + part.num_documents)
        copies = exact["document"][exact["document"] != exact["root"]]
        row[copies - part.first_document] = NO_KEY
        rows = np.flatnonzero(row != NO_KEY)
        yield row[rows], rows + part.first_document
        advance(8 * part.num_documents)


@contextlib.contextmanager
def _ranges(
    arguments: BucketsArguments, num_ranges: int
) -> Iterator[Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]]:
    """Yield an iterator over ranges of keys: those in it, with their documents (ascending).

    All keys are read once. Several ranges lie in files beside the buckets until the block ends.
    """
    if num_ranges == 1:
        keys: list[NDArray[np.uint64]] = []
        documents: list[NDArray[np.int64]] = []
        for some, numbers in _rows(arguments):
            keys.append(some)
            documents.append(numbers)
        yield iter([(joined_and_emptied(keys, np.uint64), joined_and_emptied(documents, np.int64))])
        return
    folder = arguments.buckets.with_suffix(".ranges")  # a fixed name: a killed run's is taken over
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = [folder / f"{number:05}" for number in range(num_ranges)]
    try:
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(path.open("wb")) for path in paths]
            for some, numbers in _rows(arguments):
                ranges = range_numbers(some, num_ranges).astype(np.uint16)
                order = np.argsort(ranges, kind="stable")  # of 16 bits: a radix sort
                records = np.stack([some[order], numbers[order].astype(np.uint64)], axis=1)
                bounds = np.searchsorted(ranges[order], np.arange(num_ranges + 1))
                for file, start, end in zip(files, bounds, bounds[1:], strict=False):
                    file.write(records[start:end].data)
        yield (_read_range(path) for path in paths)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read_range(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    records = np.fromfile(path, np.uint64).reshape(-1, 2)
    path.unlink()
    return records[:, 0].copy(), records[:, 1].astype(np.int64)


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
