"""Parquet and Arrow files: row groups of one file in, batches of documents out.

Offsets are row numbers of the file. What the text column holds is checked here: Arrow reads
invalid UTF-8 from a Parquet file without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from .batches import (
    MAX_BATCH_DOCUMENTS,
    BatchBuilder,
    Piece,
    ReadBatch,
    Rejected,
    as_string,
)
from .documents import ROW_GROUP_TEXT_BYTES
from .formats import WHOLE_ROW
from .input_files import open_input
from .sources import SourceFile

_DAMAGE = (pa.ArrowException, OSError)
"""What Arrow raises for a damaged file; an OSError with an errno is the system's: see _reraise."""


def parquet_pieces(file: SourceFile, unit_bytes: int) -> list[Piece]:
    """Split a Parquet file into runs of row groups of about `unit_bytes` (as they lie on disk).

    Raises:
        ValueError: the text column or a column to carry through is not in the file.
    """
    try:
        metadata = pq.read_metadata(_for_arrow(file))
        schema = metadata.schema.to_arrow_schema()
    except _DAMAGE as error:
        _reraise(error)
        return [Piece(file=file, size_bytes=file.size_bytes)]  # the reader will say what is wrong
    _check_columns(file, schema)
    pieces = []
    start = size = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        columns = range(row_group.num_columns)
        size += sum(row_group.column(column).total_compressed_size for column in columns)
        if size >= unit_bytes or group == metadata.num_row_groups - 1:
            pieces.append(Piece(file=file, start=start, end=group + 1, size_bytes=size))
            start, size = group + 1, 0
    return pieces or [Piece(file=file, size_bytes=file.size_bytes)]


def read_parquet(piece: Piece) -> Iterator[ReadBatch]:
    """Yield the documents of some row groups of a Parquet file."""
    file = piece.file
    try:
        parquet = pq.ParquetFile(_for_arrow(file), pre_buffer=False)
        schema = parquet.schema_arrow
    except _DAMAGE as error:
        _reraise(error)
        yield _damaged(file, 0, f"no Parquet file, or a damaged one: {error}", piece.size_bytes)
        return
    _check_columns(file, schema)
    metadata = parquet.metadata
    wanted = _wanted_columns(file, schema)
    row = sum(metadata.row_group(group).num_rows for group in range(piece.start))
    end = metadata.num_row_groups if piece.end is None else piece.end
    for group in range(piece.start, end):
        row_group = metadata.row_group(group)
        # Whole row groups of other writers can be gigabytes: read about one batch at a time.
        rows = max(1, ROW_GROUP_TEXT_BYTES * row_group.num_rows // (row_group.total_byte_size + 1))
        used = piece.size_bytes // max(1, end - piece.start)
        done = 0
        try:
            for batch in parquet.iter_batches(
                batch_size=min(rows, MAX_BATCH_DOCUMENTS),
                row_groups=[group],
                columns=wanted,
                use_threads=False,
            ):
                yield from _read_rows(file, batch, row + done)
                done += batch.num_rows
            yield _progress(file, used)
        except _DAMAGE as error:
            _reraise(error)
            detail = f"rows {row + done} to {row + row_group.num_rows - 1} cannot be read: {error}"
            yield _damaged(file, row + done, detail, used)
        row += row_group.num_rows


def read_arrow(piece: Piece) -> Iterator[ReadBatch]:
    """Yield the documents of an Arrow IPC file or stream (a `save_to_disk` folder has streams)."""
    file = piece.file
    row = 0
    try:
        with _for_ipc(file) as mapped:
            try:
                reader = pa.ipc.open_file(mapped)
                batches = (reader.get_batch(n) for n in range(reader.num_record_batches))
            except pa.ArrowInvalid:
                mapped.seek(0)
                reader = pa.ipc.open_stream(mapped)
                batches = iter(reader)
            _check_columns(file, reader.schema)
            wanted = _wanted_columns(file, reader.schema)
            for batch in batches:
                yield from _read_rows(file, batch.select(wanted), row)
                row += batch.num_rows
            yield _progress(file, piece.size_bytes)
    except _DAMAGE as error:
        _reraise(error)
        yield _damaged(file, row, f"no Arrow file, or a damaged one: {error}", piece.size_bytes)


def read_table_rows(file: SourceFile, batch: pa.RecordBatch, first_row: int) -> Iterator[ReadBatch]:
    """Yield the documents of a record batch whose first row is `first_row` of its source."""
    _check_columns(file, batch.schema)
    yield from _read_rows(file, batch.select(_wanted_columns(file, batch.schema)), first_row)


def _read_rows(file: SourceFile, batch: pa.RecordBatch, first_row: int) -> Iterator[ReadBatch]:
    source = file.source
    names = set(batch.schema.names)
    if source.text_key == WHOLE_ROW:
        texts = pa.array(_rows_as_json(batch), pa.large_binary())
    else:
        texts = _binary(batch.column(source.text_key))
    input_ids = _values(batch.column(source.id_key)) if source.id_key in names else None
    languages = _languages(file, batch)
    columns = [_values(batch.column(name)) for name in source.columns]
    valid = _is_valid_utf8(texts)
    builder = BatchBuilder(source.columns)
    for row in range(batch.num_rows):
        builder.documents_in += 1
        input_id = None if input_ids is None else as_string(input_ids[row])
        language = languages[row]
        text = texts[row].as_buffer()
        if text is None:
            reason, detail = "missing_text", f"column {source.text_key!r} is null"
        else:
            try:
                data = memoryview(text)
                if not valid:
                    str(data, "utf-8")
                values = [as_string(column[row]) for column in columns]
                builder.add(first_row + row, data, input_id, language, values)
                if builder.is_full:
                    yield builder.take()
                continue
            except UnicodeError as error:
                reason, detail = "rejected_utf8", str(error)[:200]
        builder.reject(
            Rejected(
                origin_offset=first_row + row,
                reason=reason,
                detail=detail,
                input_id=input_id,
                language=language,
            )
        )
    yield builder.take()


def _rows_as_json(batch: pa.RecordBatch) -> list[bytes]:
    """Return each row as a line of JSON; of one whose text is not UTF-8, bytes that are not."""
    try:
        return [(as_string(row) or "").encode() for row in batch.to_pylist()]
    except UnicodeDecodeError:
        if len(batch) == 1:
            return [b"\xff"]
        return [one for row in range(len(batch)) for one in _rows_as_json(batch.slice(row, 1))]


def _binary(column: pa.Array) -> pa.Array:
    """Return a text column of any string or binary type as large_binary."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary())


def _values(column: pa.Array) -> list[Any]:
    """Return a column as Python values; what is not UTF-8 in it is replaced."""
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        values = _binary(column).to_pylist()
        return [None if value is None else value.decode(errors="replace") for value in values]


def _is_valid_utf8(texts: pa.Array) -> bool:
    try:
        texts.cast(pa.large_string())
    except pa.ArrowInvalid:
        return False
    return True


def _languages(file: SourceFile, batch: pa.RecordBatch) -> Sequence[str | None]:
    """Return each row's language: the first of the source's keys that is a filled string."""
    result: list[str | None] = [None] * batch.num_rows
    if file.language:
        return result
    for key in reversed([key for key in file.source.language_keys if key in batch.schema.names]):
        values = _values(batch.column(key))
        result = [
            value if isinstance(value, str) and value else earlier
            for value, earlier in zip(values, result, strict=True)
        ]
    return result


def _is_text(column_type: pa.DataType) -> bool:
    if pa.types.is_dictionary(column_type):
        column_type = column_type.value_type
    return any(
        test(column_type)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def _check_columns(file: SourceFile, schema: pa.Schema) -> None:
    source = file.source
    found = ", ".join(schema.names)
    if source.text_key == WHOLE_ROW:
        _check_carried(file, schema)
        return
    if source.text_key not in schema.names:
        raise ValueError(
            f"{file.path} has no column {source.text_key!r} for the text; its columns are {found}. "
            f"Set text_key of source {file.source_name!r} to one of them"
        )
    column_type = schema.field(source.text_key).type
    if not _is_text(column_type):
        raise ValueError(
            f"column {source.text_key!r} of {file.path} holds {column_type}, not text; its columns "
            f"are {found}. Set text_key of source {file.source_name!r} to one with text"
        )
    _check_carried(file, schema)


def _check_carried(file: SourceFile, schema: pa.Schema) -> None:
    source = file.source
    missing = [name for name in source.columns if name not in schema.names]
    if missing:
        raise ValueError(
            f"{file.path} has no column {', '.join(map(repr, missing))} to carry through; its "
            f"columns are {', '.join(schema.names)}. Correct `columns` of source "
            f"{file.source_name!r}"
        )


def _wanted_columns(file: SourceFile, schema: pa.Schema) -> list[str]:
    source = file.source
    if source.text_key == WHOLE_ROW:
        return list(schema.names)
    keys = (source.text_key, source.id_key, *source.language_keys, *source.columns)
    return [key for key in dict.fromkeys(keys) if key in schema.names]


def _for_arrow(file: SourceFile) -> Any:
    """Return what Arrow opens: the path, or a file of an object store."""
    return open_input(file.input) if file.is_remote else file.path


def _for_ipc(file: SourceFile) -> Any:
    if file.is_remote:
        return pa.PythonFile(open_input(file.input), mode="r")
    return pa.memory_map(file.path)


def _reraise(error: Exception) -> None:
    """Raise `error` if it is no damage: the file is gone, or the disk does not answer."""
    if isinstance(error, OSError) and error.errno:
        raise error


def _progress(file: SourceFile, input_bytes: int) -> ReadBatch:
    builder = BatchBuilder(file.source.columns)
    builder.input_bytes = input_bytes
    return builder.take()


def _damaged(file: SourceFile, row: int, detail: str, input_bytes: int) -> ReadBatch:
    builder = BatchBuilder(file.source.columns)
    builder.documents_in = 1
    builder.input_bytes = input_bytes
    builder.reject(Rejected(origin_offset=row, reason="rejected_truncated", detail=detail[:300]))
    builder.notices.append(
        f"{file.origin_file} is damaged at row {row}: {detail}. What cannot be read counts as one "
        "rejected document: fetch the file again"
    )
    return builder.take()


__all__ = ["parquet_pieces", "read_arrow", "read_parquet", "read_table_rows"]
