"""Documents of one unit flow in again, the shingle sets of the candidates among them flow out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import kernels
from ..indexed_dataset.atomic import atomic_path
from .array_files import save_array
from .dedup_files import (
    CANDIDATE_GROUP,
    EXACT_ROOT,
    EXACT_SIZE,
    NUM_FIXED_ROWS,
    candidate_record,
    open_array,
    partition_of,
)
from .stage import UnitResult
from .text_column import id_words, read_row_groups, text_arrays


@dataclass(frozen=True, kw_only=True, slots=True)
class ShinglesArguments:
    """What one unit of the stage `shingles` gets."""

    documents: Path | None
    keys: Path
    groups: Path
    first_document: int
    """Number of the unit's first document in the run."""
    records: Path
    values: Path
    """The two files to write."""
    num_partitions: int
    seed: int


def write_shingles(arguments: ShinglesArguments) -> UnitResult:
    """Write records and shingle sets of the unit's candidates (see `dedup_files`)."""
    keys = open_array(arguments.keys)
    num_documents = keys.shape[1]
    first = arguments.first_document
    groups = open_array(arguments.groups)[:, first : first + num_documents]
    numbers = np.arange(first, first + num_documents)
    is_candidate = (groups[EXACT_ROOT] == numbers) & (groups[CANDIDATE_GROUP] >= 0)
    parts = [np.empty(0, candidate_record(len(keys) - NUM_FIXED_ROWS))]
    stored = 0
    position = 0
    with atomic_path(arguments.values) as temporary, open(temporary, "wb") as values_file:
        for table in read_row_groups(
            arguments.documents if is_candidate.any() else None, ["id", "text"]
        ):
            rows = position + np.flatnonzero(is_candidate[position : position + table.num_rows])
            partitions = partition_of(groups[CANDIDATE_GROUP, rows], arguments.num_partitions)
            order = np.argsort(partitions, kind="stable")
            rows, partitions = rows[order], partitions[order]
            table, position = table.take(pa.array(rows - position)), position + table.num_rows
            values, set_offsets, shifts = kernels.shingle_sets(
                *text_arrays(table["text"]), arguments.seed
            )
            values_file.write(values.astype("<u8", copy=False).data)
            part: NDArray[Any] = np.empty(len(rows), parts[0].dtype)
            part["partition"] = partitions
            part["shift"] = shifts
            part["document"] = first + rows
            part["group"] = groups[CANDIDATE_GROUP, rows]
            part["exact_size"] = groups[EXACT_SIZE, rows]
            part["text_bytes"] = np.diff(text_arrays(table["text"])[1])
            part["set_start"] = stored + set_offsets[:-1]
            part["set_size"] = np.diff(set_offsets)
            part["id"] = id_words(table["id"])
            part["keys"] = keys[NUM_FIXED_ROWS:, rows].T
            parts.append(part)
            stored += len(values)
    records = np.concatenate(parts)
    records = records[np.lexsort((records["document"], records["partition"]))]
    save_array(arguments.records, records)
    return UnitResult(
        counts={"candidates": len(records), "shingles": stored},
        outputs=(arguments.records, arguments.values),
    )
