"""Documents of one unit flow in again, the shingle lists of the candidates among them flow out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import kernels
from ..indexed_dataset.atomic import atomic_path
from .array_files import save_array
from .dedup_keys import name_words
from .dedup_layout import (
    ID_HIGH,
    ID_LOW,
    INDEX_ROW,
    ExactTable,
    Part,
    candidate_record,
    open_array,
    partition_of,
)
from .dedup_preference import KeepKey, columns_of, count_rank_words, rank_documents
from .stage import UnitResult
from .text_column import id_words, read_row_groups, text_arrays


@dataclass(frozen=True, kw_only=True, slots=True)
class ShinglesArguments:
    """What one unit of the stage `shingles` gets."""

    part: Part
    exact: tuple[Path, ...]
    candidates: Path
    records: Path
    values: Path
    """The two files to write."""
    num_partitions: int
    seed: int
    keep: tuple[KeepKey, ...]
    priority: int


def write_shingles(arguments: ShinglesArguments) -> UnitResult:
    """Write records and shingle lists of the unit's candidates (see `dedup_layout`)."""
    part = arguments.part
    table = open_array(arguments.candidates)
    first, last = part.first_document, part.first_document + part.num_documents
    start, end = np.searchsorted(table[0], [first, last])
    documents, groups = np.array(table[0, start:end]), np.array(table[1, start:end])
    records = np.zeros(len(documents), candidate_record(count_rank_words(arguments.keep)))
    records["document"], records["group"] = documents, groups
    records["partition"] = partition_of(groups, arguments.num_partitions)
    records["is_old"] = part.is_old
    records["exact_size"] = 1
    exact = ExactTable(arguments.exact).rows(first, last)
    places = np.searchsorted(documents, exact["document"])
    found = places < len(documents)
    found[found] = documents[places[found]] == exact["document"][found]
    records["exact_size"][places[found]] = exact["size"][found]
    stored = 0
    with atomic_path(arguments.values) as temporary, open(temporary, "wb") as values_file:
        for begin, stop, texts in _candidate_texts(arguments, documents - first):
            data, offsets = text_arrays(texts["text"])
            values, bounds, shifts, windows = kernels.shingle_lists(data, offsets, arguments.seed)
            values_file.write(values.astype("<u8", copy=False).data)
            some = records[begin:stop]
            some["shift"], some["window"] = shifts, windows
            some["list_start"], some["list_size"] = stored + bounds[:-1], np.diff(bounds)
            some["source"] = name_words(texts["source"])
            some["id"] = id_words(texts["id"])
            if part.is_old:
                if not np.array_equal(some["id"], _old_ids(part, documents[begin:stop])):
                    raise _replaced(part)
            else:
                some["ranks"] = rank_documents(
                    arguments.keep, texts, np.diff(offsets), arguments.priority
                )
            stored += len(values)
    records = records[np.lexsort((records["document"], records["partition"]))]
    save_array(arguments.records, records)
    return UnitResult(
        counts={"candidates": len(records), "shingles": stored},
        scratch=(arguments.records, arguments.values),
    )


def _candidate_texts(
    arguments: ShinglesArguments, rows: NDArray[np.int64]
) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield tables of candidates, each with the range of candidates that it has.

    `rows` are their places in the part, ascending; those of an old part are looked up in its file.
    """
    if len(rows) == 0:
        return
    part = arguments.part
    if part.is_old:
        rows = open_array(part.keys)[INDEX_ROW][rows].astype(np.int64)
    columns = ["id", "text", "source"]
    if not part.is_old:
        columns += columns_of(arguments.keep)
    position, begin = 0, 0
    for table in read_row_groups(part.documents, columns):
        stop = int(np.searchsorted(rows, position + table.num_rows))
        if stop > begin:
            yield begin, stop, table.take(pa.array(rows[begin:stop] - position))
        position += table.num_rows
        begin = stop
    if begin != len(rows):
        raise _replaced(part)


def _old_ids(part: Part, documents: NDArray[np.int64]) -> NDArray[np.uint64]:
    ids: NDArray[np.uint64] = open_array(part.keys)[[ID_LOW, ID_HIGH]]
    return ids[:, documents - part.first_document].T


def _replaced(part: Part) -> ValueError:
    remedy = "run again in a new output folder"
    if part.is_old and part.documents:
        remedy = (
            f"delete {part.documents.parents[1] / 'index'} and make the index again with "
            "dedup.write_index"
        )
    return ValueError(
        f"{part.documents} was replaced after its keys were written: they are of other documents. "
        f"To go on, {remedy}"
    )


def read_records(folder: Path, unit: str, partition: int | None = None) -> NDArray[Any]:
    """Return the candidate records of a unit, all or those of one partition."""
    records = open_array(folder / f"{unit}.npy")
    if partition is None:
        return records
    bounds = np.array([partition, partition + 1], np.int32)
    start, end = np.searchsorted(records["partition"], bounds).tolist()
    return np.array(records[start:end])
