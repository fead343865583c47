"""Documents of one unit and what dedup found flow in, one verdict for each document in flows out.

The rows of a unit's verdict file are its clean documents in their order, row group by row group,
then those that the filters dropped, then those that cleaning dropped, in the order of the reject
file.

A cluster is a kept document with all that it stands for, so every document is in one cluster, and
`cluster_id` is the id of the kept one. An exact copy of a document that was itself removed as a
near copy is `exact_duplicate`, of the document that was kept, with the similarity to that. Of
documents that are copies of an old one (`dedup.against`) the old one is the kept one.

With `dedup.copies = "drop_all"` nothing of a cluster is kept: the document that leads it is dropped
as `has_duplicates`, the others name the document that they are a copy of.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..indexed_dataset.atomic import atomic_path
from .dedup_layout import EXACT, VERIFIED, ExactTable, open_array, part_name, partition_of
from .dedup_rows import RowFile, find_sorted
from .documents import VERDICT_SCHEMA
from .filter_verdicts import dropped_tables
from .stage import UnitResult
from .text_column import id_array, id_words, read_row_groups

REJECTED_ROWS = 65_536
"""Rejected documents in one row group."""

_COPIED = ["input_id", "source", "origin_file", "origin_offset", "language"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VerdictsArguments:
    """What one unit of the stage `verdicts` gets."""

    documents: Path | None
    rejected: tuple[Path, ...]
    """Reject files of the unit."""
    exact: tuple[Path, ...]
    """Files of the stage `exact`."""
    candidates: Path | None
    verify: Path | None
    """File of the stage `components`, folder of `verify`; None: near copies were not looked for."""
    num_partitions: int
    drop_all: bool
    first_document: int
    verdicts: Path
    """The file to write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Resolved:
    """What dedup found about consecutive documents: one entry a document in each array."""

    is_exact: NDArray[np.bool_]
    is_near: NDArray[np.bool_]
    match_id: NDArray[np.uint64]  # [documents, 2], of the document that it is a copy of
    cluster_id: NDArray[np.uint64]
    cluster_size: NDArray[np.int64]
    jaccard: NDArray[np.float64]


def write_verdicts(arguments: VerdictsArguments) -> UnitResult:
    """Write the verdict file of one unit, and count its outcomes by source and language."""
    outcomes: Counter[tuple[str, str, str]] = Counter()
    text_bytes: Counter[tuple[str, str, str]] = Counter()
    with (
        atomic_path(arguments.verdicts) as temporary,
        pq.ParquetWriter(temporary, VERDICT_SCHEMA, compression="zstd") as writer,
    ):
        for table in _verdict_tables(arguments):
            writer.write_table(table, row_group_size=max(len(table), 1))
            for row in _count(table):
                key = row["source"], row["language"], row["reason"] or "kept"
                outcomes[key] += row["text_bytes_count"]
                text_bytes[key] += row["text_bytes_sum"]
    rows = [[*key, outcomes[key], text_bytes[key]] for key in sorted(outcomes)]
    return UnitResult(counts={"rows": rows}, outputs=(arguments.verdicts,))


def _count(table: pa.Table) -> list[dict[str, Any]]:
    grouped = table.group_by(["source", "language", "reason"])
    counted: list[dict[str, Any]] = grouped.aggregate(
        [("text_bytes", "count"), ("text_bytes", "sum")]
    ).to_pylist()
    return counted


def _verdict_tables(arguments: VerdictsArguments) -> Iterator[pa.Table]:
    first = arguments.first_document
    find = _Finder(arguments)
    for table in read_row_groups(arguments.documents, ["id", "text", *_COPIED]):
        ids = id_words(table["id"])
        resolved = find(first, ids)
        first += table.num_rows
        is_copy = resolved.is_exact | resolved.is_near
        leads = ~is_copy & (resolved.cluster_size > 1) & arguments.drop_all
        reasons = pa.array(["exact_duplicate", "near_duplicate", "has_duplicates", None])
        cases = [resolved.is_exact, resolved.is_near, leads]
        reason = reasons.take(pa.array(np.select(cases, [0, 1, 2], 3)))
        columns = {
            **{name: table[name] for name in ["id", *_COPIED]},
            "kept": pa.array(~is_copy & ~leads),
            "reason": reason,
            "cluster_id": id_array(resolved.cluster_id),
            "cluster_size": pa.array(resolved.cluster_size),
            "duplicate_of": id_array(resolved.match_id, ~is_copy),
            "jaccard": pa.array(resolved.jaccard, mask=~is_copy),
            "text_bytes": pc.cast(pc.binary_length(table["text"]), pa.int64()),
        }
        yield pa.table([columns[name] for name in VERDICT_SCHEMA.names], schema=VERDICT_SCHEMA)
    yield from dropped_tables(arguments.documents, _COPIED)
    for path in arguments.rejected:
        yield from _rejected_tables(path)


class _Finder:
    """Says of consecutive documents what they are copies of."""

    def __init__(self, arguments: VerdictsArguments) -> None:
        self._exact = ExactTable(arguments.exact)
        self._candidates = open_array(arguments.candidates) if arguments.candidates else None
        self._verify, self._num_partitions = arguments.verify, arguments.num_partitions
        self._verified: dict[int, RowFile] = {}

    def __call__(self, first: int, ids: NDArray[np.uint64]) -> _Resolved:
        """Return what was found about documents `first`, `first` + 1, ..., which have these ids."""
        num_documents = len(ids)
        numbers = np.arange(first, first + num_documents)
        exact = self._exact.rows(first, first + num_documents)
        equal: NDArray[Any] = np.zeros(num_documents, EXACT)
        equal["root"], equal["size"], equal["root_id"] = numbers, 1, ids
        equal[exact["document"] - first] = exact
        is_exact = equal["root"] != numbers
        near: NDArray[Any] = np.zeros(num_documents, VERIFIED)
        near["match"], near["match_id"] = equal["root"], equal["root_id"]
        near["cluster_id"], near["cluster_size"] = equal["root_id"], equal["size"]
        near["jaccard"] = 1.0
        rows, found = self._near(equal["root"])
        near[rows] = found
        return _Resolved(
            is_exact=is_exact,
            is_near=(near["match"] != equal["root"]) & ~is_exact,
            match_id=near["match_id"],
            cluster_id=near["cluster_id"],
            cluster_size=near["cluster_size"],
            jaccard=near["jaccard"],
        )

    def _near(self, documents: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return which of the documents have a row of VERIFIED, and those rows."""
        if self._candidates is None:
            return np.empty(0, np.int64), np.empty(0, VERIFIED)
        places, candidates = find_sorted(self._candidates[0], documents)
        partitions = partition_of(self._candidates[1][places], self._num_partitions)
        rows, found = [np.empty(0, np.int64)], [np.empty(0, VERIFIED)]
        for partition in np.unique(partitions).tolist():
            verified = self._open(partition)
            some = candidates[partitions == partition]
            places, near = find_sorted(verified.documents, documents[some])
            rows.append(some[near])
            found.append(verified.read(places))
        return np.concatenate(rows), np.concatenate(found)

    def _open(self, partition: int) -> RowFile:
        if partition not in self._verified:
            assert self._verify is not None
            name = part_name(partition, self._num_partitions)
            self._verified[partition] = RowFile(self._verify / f"{name}.npy")
        return self._verified[partition]


def _rejected_tables(path: Path) -> Iterator[pa.Table]:
    rows: list[dict[str, Any]] = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            rejected = json.loads(line)
            rows.append(
                {name: rejected.get(name) for name in _COPIED}
                | {
                    "id": bytes.fromhex(rejected["id"]) if rejected.get("id") else None,
                    "kept": False,
                    "reason": rejected["reason"],
                    "cluster_size": 1,
                    "text_bytes": rejected.get("text_bytes") or 0,
                }
            )
            if len(rows) == REJECTED_ROWS:
                yield pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA)
                rows = []
    if rows:
        yield pa.Table.from_pylist(rows, schema=VERDICT_SCHEMA)
