"""Kept documents of one unit: its documents and its verdicts in, batches of what is left out.

The verdict file has a row for every document that was read, the documents file only those that
cleaning kept, in the same order; (origin_file, origin_offset) says which row is whose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .text_column import flat

_VERDICT_COLUMNS = ["origin_file", "origin_offset", "kept", "cluster_id", "cluster_size"]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptBatch:
    """Some kept documents (one row group's at most)."""

    table: pa.Table
    """The wanted columns of the documents."""
    cluster_ids: pa.Array
    """fixed_size_binary(16): duplicate cluster of each document; null for one of its own."""
    cluster_sizes: NDArray[np.int64]
    """int64[n], documents of that cluster, with itself."""
    rows: NDArray[np.int64]
    """int64[n], row of each in the file of documents."""


def read_kept(documents: Path, verdicts: Path, columns: list[str]) -> Iterator[KeptBatch]:
    """Yield the kept documents of a unit in order, one row group in memory at a time.

    Args:
        documents: the unit's clean documents (Parquet).
        verdicts: the unit's verdicts (Parquet).
        columns: columns of the documents that are wanted.

    Raises:
        ValueError: the two files are not of the same documents.
    """
    verdict = pq.read_table(verdicts, columns=_VERDICT_COLUMNS, read_dictionary=["origin_file"])
    verdict = verdict.combine_chunks()
    kept = verdict["kept"].to_numpy()
    files, codes = _file_codes(verdict["origin_file"])
    keys = _keys(codes, verdict["origin_offset"].to_numpy())
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    wanted = list(dict.fromkeys([*columns, "origin_file", "origin_offset"]))
    first_row = 0
    with pq.ParquetFile(documents) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=wanted)
            if table.num_rows == 0:
                continue
            names, own = _file_codes(table["origin_file"])
            numbers = np.array([files.get(name, -1) for name in names], np.int64)
            own_keys = _keys(numbers[own], table["origin_offset"].to_numpy())
            found = np.minimum(np.searchsorted(sorted_keys, own_keys), len(keys) - 1)
            if len(keys) == 0 or not bool((sorted_keys[found] == own_keys).all()):
                raise ValueError(
                    f"{documents} holds documents that {verdicts} has no verdict for: one of the "
                    "two is from another run. Remove both folders and run again"
                )
            rows = order[found]
            mask = kept[rows]
            own_rows = first_row + np.flatnonzero(mask)
            first_row += table.num_rows
            if mask.any():
                yield KeptBatch(
                    table=table.filter(pa.array(mask)).select(columns),
                    cluster_ids=flat(verdict["cluster_id"]).take(pa.array(rows[mask])),
                    rows=own_rows,
                    cluster_sizes=verdict["cluster_size"].to_numpy()[rows[mask]],
                )


def _file_codes(column: pa.ChunkedArray) -> tuple[dict[str, int], NDArray[np.int64]]:
    """Return the names of a column with their numbers, and int64[n] number of each row."""
    encoded = flat(column)
    if not isinstance(encoded, pa.DictionaryArray):
        encoded = encoded.dictionary_encode()
    names = {name: number for number, name in enumerate(encoded.dictionary.to_pylist())}
    return names, encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def _keys(files: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.complex128]:
    """Return one sortable value for each pair: numpy orders complex numbers by both parts.

    Exact while both are below 2**53: rows and byte offsets of one file are.
    """
    keys: NDArray[np.complex128] = files + 1j * offsets
    return keys
