"""What readers hand to cleaning: a piece of a file in, Arrow batches of raw documents out.

Every reader counts its input documents itself (`documents_in`), apart from what becomes of them,
so that the end of a unit can check that none was lost.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .documents import ROW_GROUP_TEXT_BYTES
from .sources import SourceFile


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A part of one file that is read in order."""

    file: SourceFile
    start: int = 0
    """First byte (lines) or row group (Parquet)."""
    end: int | None = None
    """Byte or row group after the last; None: to the end of the file."""
    size_bytes: int = 0
    """Bytes of input, for the progress bar."""


EXCERPT_BYTES = 2_000
"""Beginning of a dropped text, or line, that its row in the reject file has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """A document that could not be read, or was dropped while cleaning."""

    origin_offset: int
    reason: str
    """A key of documents.REASONS."""
    detail: str
    input_id: str | None = None
    language: str | None = None
    """As the input has it."""
    id: bytes | None = None
    text_bytes: int = 0
    excerpt: str = ""
    """The beginning of its clean text, or of the line where that holds none, for the report's
    samples; empty where nothing could be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadBatch:
    """Some documents of one piece, in order, and those that could not be read."""

    documents: pa.RecordBatch
    """Columns of `read_schema`."""
    rejected: tuple[Rejected, ...] = ()
    documents_in: int = 0
    """Documents met, counted before anything is decided about them."""
    input_bytes: int = 0
    """Bytes of the file on disk that were used up."""
    blank_lines: int = 0
    """Empty lines met; they are no documents."""
    notices: tuple[str, ...] = ()
    """What the user should be told."""


def read_schema(columns: Sequence[str]) -> pa.Schema:
    """Return the schema of raw documents; `language` is as the input has it."""
    return pa.schema(
        [
            pa.field("input_id", pa.string()),
            pa.field("text", pa.large_string(), nullable=False),
            pa.field("language", pa.string()),
            pa.field("origin_offset", pa.int64(), nullable=False),
            *(pa.field(name, pa.string()) for name in columns),
        ]
    )


@dataclass(slots=True)
class BatchBuilder:
    """Collects documents one by one until they make a batch."""

    columns: tuple[str, ...]
    documents_in: int = 0
    blank_lines: int = 0
    input_bytes: int = 0
    held_bytes: int = 0
    notices: list[str] = field(default_factory=list)
    _texts: list[bytes | memoryview] = field(default_factory=list)
    _input_ids: list[str | None] = field(default_factory=list)
    _languages: list[str | None] = field(default_factory=list)
    _offsets: list[int] = field(default_factory=list)
    _values: list[list[str | None]] = field(default_factory=list)
    _rejected: list[Rejected] = field(default_factory=list)

    def add(
        self,
        offset: int,
        text: bytes | memoryview,
        input_id: str | None = None,
        language: str | None = None,
        values: list[str | None] | None = None,
    ) -> None:
        """Add a document; `text` is valid UTF-8, `values` those of `columns`."""
        self._offsets.append(offset)
        self._texts.append(text)
        self._input_ids.append(input_id)
        self._languages.append(language)
        self.held_bytes += len(text)
        if self.columns:
            self._values.append(values or [None] * len(self.columns))
            self.held_bytes += sum(len(value) for value in values or () if value)

    def reject(self, rejected: Rejected) -> None:
        """Add a document that could not be read."""
        self._rejected.append(rejected)

    @property
    def is_full(self) -> bool:
        """Whether it is time to `take` the batch."""
        return (
            self.held_bytes >= ROW_GROUP_TEXT_BYTES
            or len(self._texts) + len(self._rejected) >= MAX_BATCH_DOCUMENTS
        )

    def take(self) -> ReadBatch:
        """Return the batch and begin the next one."""
        documents = pa.RecordBatch.from_arrays(
            [
                pa.array(self._input_ids, pa.string()),
                text_array(self._texts),
                pa.array(self._languages, pa.string()),
                pa.array(self._offsets, pa.int64()),
                *(
                    pa.array([values[index] for values in self._values], pa.string())
                    for index in range(len(self.columns))
                ),
            ],
            schema=read_schema(self.columns),
        )
        batch = ReadBatch(
            documents=documents,
            rejected=tuple(self._rejected),
            documents_in=self.documents_in,
            input_bytes=self.input_bytes,
            blank_lines=self.blank_lines,
            notices=tuple(self.notices),
        )
        for items in (
            self._texts,
            self._input_ids,
            self._languages,
            self._offsets,
            self._values,
            self._rejected,
            self.notices,
        ):
            items.clear()
        self.documents_in = self.blank_lines = self.input_bytes = self.held_bytes = 0
        return batch


def join_batches(batches: Sequence[ReadBatch]) -> ReadBatch:
    """Return consecutive batches of one piece as one."""
    if len(batches) == 1:
        return batches[0]
    table = pa.Table.from_batches([batch.documents for batch in batches]).combine_chunks()
    documents = table.to_batches() or [batches[0].documents]  # none: all are empty
    return ReadBatch(
        documents=documents[0],
        rejected=tuple(itertools.chain.from_iterable(batch.rejected for batch in batches)),
        documents_in=sum(batch.documents_in for batch in batches),
        input_bytes=sum(batch.input_bytes for batch in batches),
        blank_lines=sum(batch.blank_lines for batch in batches),
        notices=tuple(itertools.chain.from_iterable(batch.notices for batch in batches)),
    )


MAX_BATCH_DOCUMENTS = 100_000
"""Documents in one batch: bounds memory where texts are tiny."""


def text_array(texts: Sequence[bytes | memoryview]) -> pa.Array:
    """Return valid UTF-8 texts as large_string (pa.array of strings takes five times longer)."""
    offsets = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


def int64_array(values: NDArray[np.int64]) -> pa.Array:
    """Return numbers as an Arrow array (pa.array would import pandas first: half a second)."""
    data = pa.py_buffer(np.ascontiguousarray(values, np.int64))
    return pa.Array.from_buffers(pa.int64(), len(values), [None, data])


def as_string(value: Any) -> str | None:
    """Return a carried value or an id: strings as they are, null as null, the rest as JSON.

    Raises:
        ValueError: the value is a string with lone surrogates, which no file can hold.
    """
    if value is None or value is msgspec.UNSET:
        return None
    if not isinstance(value, str):
        return _encode(value).decode()
    value.encode()  # UnicodeEncodeError is a ValueError
    return value


_encode = msgspec.json.Encoder(enc_hook=str).encode
