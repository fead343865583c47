"""Documents of one unit and what dedup found flow in, one verdict for each document in flows out.

The rows of a unit's verdict file are its clean documents in their order, row group by row group,
then the documents that cleaning dropped, in the order of the reject file.

A cluster is a kept document with all that it stands for, so every document is in one cluster, and
`cluster_id` is the id of the kept one. An exact copy of a document that was itself removed as a
near copy is `exact_duplicate`, of the document that was kept, with the similarity to that.
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
from .dedup_files import (
    CANDIDATE_GROUP,
    EXACT_ROOT,
    EXACT_SIZE,
    ROOT_ID_HIGH,
    ROOT_ID_LOW,
    open_array,
    partition_name,
    partition_of,
)
from .documents import VERDICT_SCHEMA
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
    groups: Path | None
    """The group file; None: dedup is off, all clean documents are kept."""
    verify: Path | None
    """Folder of the stage `verify`; None: near copies were not looked for."""
    num_partitions: int
    first_document: int
    verdicts: Path
    """The file to write."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Resolved:
    """What dedup found about consecutive documents: one entry a document in each array."""

    is_exact: NDArray[np.bool_]
    is_near: NDArray[np.bool_]
    kept_id: NDArray[np.uint64]  # [documents, 2]
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
    for table in read_row_groups(arguments.documents, ["id", "text", *_COPIED]):
        ids = id_words(table["id"])
        resolved = _resolve(arguments, first, ids)
        first += table.num_rows
        is_dropped = resolved.is_exact | resolved.is_near
        reasons = pa.array(["exact_duplicate", "near_duplicate", None])
        reason = reasons.take(
            pa.array(np.where(resolved.is_exact, 0, np.where(resolved.is_near, 1, 2)))
        )
        columns = {
            **{name: table[name] for name in ["id", *_COPIED]},
            "kept": pa.array(~is_dropped),
            "reason": reason,
            "cluster_id": id_array(resolved.kept_id),
            "cluster_size": pa.array(resolved.cluster_size),
            "duplicate_of": id_array(resolved.kept_id, ~is_dropped),
            "jaccard": pa.array(resolved.jaccard, mask=~is_dropped),
            "text_bytes": pc.cast(pc.binary_length(table["text"]), pa.int64()),
        }
        yield pa.table([columns[name] for name in VERDICT_SCHEMA.names], schema=VERDICT_SCHEMA)
    for path in arguments.rejected:
        yield from _rejected_tables(path)


def _resolve(arguments: VerdictsArguments, first: int, ids: NDArray[np.uint64]) -> _Resolved:
    """Say of documents `first`, `first` + 1, ... what they are copies of."""
    num_documents = len(ids)
    if arguments.groups is None:
        nothing = np.zeros(num_documents, np.bool_)
        return _Resolved(
            is_exact=nothing,
            is_near=nothing,
            kept_id=ids,
            cluster_size=np.ones(num_documents, np.int64),
            jaccard=np.ones(num_documents),
        )
    groups = np.array(open_array(arguments.groups)[:, first : first + num_documents])
    roots = groups[EXACT_ROOT]
    is_exact = roots != np.arange(first, first + num_documents)
    is_near = np.zeros(num_documents, np.bool_)
    kept_id = groups[[ROOT_ID_LOW, ROOT_ID_HIGH]].view(np.uint64).T.copy()
    cluster_size = groups[EXACT_SIZE].copy()
    jaccard = np.ones(num_documents)
    candidates = np.flatnonzero(groups[CANDIDATE_GROUP] >= 0)
    if arguments.verify is not None and len(candidates):
        partitions = partition_of(groups[CANDIDATE_GROUP, candidates], arguments.num_partitions)
        for partition in np.unique(partitions).tolist():
            name = partition_name(partition, arguments.num_partitions)
            verified = open_array(arguments.verify / f"{name}.npy")
            rows = candidates[partitions == partition]
            numbers = np.array(verified["document"])
            places = np.searchsorted(numbers, roots[rows])
            found = places < len(numbers)
            found[found] = numbers[places[found]] == roots[rows][found]
            rows, evidence = rows[found], verified[places[found]]
            kept_id[rows] = evidence["kept_id"]
            cluster_size[rows] = evidence["cluster_size"]
            jaccard[rows] = evidence["jaccard"]
            is_near[rows] = evidence["kept"] != roots[rows]
    return _Resolved(
        is_exact=is_exact,
        is_near=is_near & ~is_exact,
        kept_id=kept_id,
        cluster_size=cluster_size,
        jaccard=jaccard,
    )


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
