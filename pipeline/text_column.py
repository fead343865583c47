"""Arrow columns flow in, the flat arrays that kernels take flow out, without a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .executors import advance

FILTERS = "filters"
"""Folder of the filters' decisions: a row for each row of `documents/`."""


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # older Arrow returns a chunked array of one chunk
        column = pa.concat_arrays(column.chunks)
    return column


def text_arrays(
    column: pa.ChunkedArray | pa.Array,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a large_string column without nulls as (data: uint8[], offsets: int64[n + 1])."""
    text = flat(column)
    assert text.type == pa.large_string(), text.type
    assert text.null_count == 0
    if len(text) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = text.buffers()
    bounds = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    return np.frombuffer(data or b"", np.uint8), bounds


def id_words(column: pa.ChunkedArray | pa.Array) -> NDArray[np.uint64]:
    """Return a binary(16) column without nulls as uint64[n, 2], low word first."""
    ids = flat(column)
    assert ids.type == pa.binary(16), ids.type
    assert ids.null_count == 0
    if len(ids) == 0:
        return np.empty((0, 2), np.uint64)
    words = np.frombuffer(ids.buffers()[1], "<u8").reshape(-1, 2)
    return words[ids.offset : ids.offset + len(ids)]


def id_array(words: NDArray[np.uint64], is_null: NDArray[np.bool_] | None = None) -> pa.Array:
    """Return uint64[n, 2] as a binary(16) array, null where `is_null` says so."""
    data = pa.py_buffer(np.ascontiguousarray(words, "<u8"))
    ids = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(words), [None, data])
    if is_null is None:
        return ids
    return pc.if_else(pa.array(is_null), pa.scalar(None, pa.binary(16)), ids)


def read_row_groups(path: Path | None, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the columns of each row group of a documents file, and report progress after each.

    Where filters dropped documents, `filters/UNIT.parquet` beside the folder `documents` says so,
    and their rows are left out: stages after the filters see those that are left, numbered anew.
    `None` (a unit without documents) yields nothing.
    """
    if path is None:
        return
    decisions = path.parent.parent / FILTERS / path.name
    if path.parent.name == "documents" and decisions.is_file():
        kept = pq.read_table(decisions, columns=["kept"])["kept"]
        first = 0
        for table in read_all_rows(path, columns):
            yield table.filter(kept.slice(first, table.num_rows))
            first += table.num_rows
        return
    yield from read_all_rows(path, columns)


def read_all_rows(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the columns of each row group, of documents that filters drop too."""
    with pq.ParquetFile(path) as file:
        share = path.stat().st_size // max(file.num_row_groups, 1)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=list(columns))
            advance(share)
