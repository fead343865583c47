"""JSON lines: a byte range of a plain file, or a compressed file, in; batches of documents out.

One bad line costs that line and nothing else. Blank lines are no documents (they are counted).
Nearly all lines are plain, and a kernel reads those, a block of lines at a time; what it calls odd
goes through odd_lines.py, line by line, and comes back to its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..kernels import find_json_strings, unescape_json
from ..kernels.json_lines import ESCAPED, GOOD, MISSING, NULL, OTHER, STRING
from .batches import (
    MAX_BATCH_DOCUMENTS,
    BatchBuilder,
    Piece,
    ReadBatch,
    Rejected,
    as_string,
    int64_array,
    join_batches,
    read_schema,
)
from .documents import ROW_GROUP_TEXT_BYTES
from .formats import WHOLE_ROW
from .lines import (
    MAX_DOCUMENT_BYTES,
    DamagedFileError,
    LineBlock,
    is_utf8,
    read_lines,
    split_lines,
)
from .odd_lines import OddLineReader


def read_jsonl(piece: Piece) -> Iterator[ReadBatch]:
    """Yield the documents of a piece: `origin_offset` is the byte where the line begins."""
    reader = JsonBlockReader(piece)
    waiting: list[ReadBatch] = []
    num_bytes = num_documents = 0
    for block in jsonl_blocks(piece):
        batch = block if isinstance(block, ReadBatch) else reader.read(block)
        waiting.append(batch)
        num_bytes += batch.documents.nbytes
        num_documents += batch.documents_in
        if num_bytes >= ROW_GROUP_TEXT_BYTES or num_documents >= MAX_BATCH_DOCUMENTS:
            yield join_batches(waiting)
            waiting, num_bytes, num_documents = [], 0, 0
    if waiting:
        yield join_batches(waiting)


def jsonl_blocks(piece: Piece) -> Iterator[LineBlock | ReadBatch]:
    """Yield blocks of lines for a `JsonBlockReader`, and as a batch what is no line: damage."""
    file = piece.file
    try:
        yield from read_lines(file.input, file.compression, piece.start, piece.end)
    except DamagedFileError as error:
        builder = BatchBuilder(file.source.columns)
        builder.documents_in += 1
        builder.reject(
            Rejected(origin_offset=error.offset, reason="rejected_truncated", detail=error.detail)
        )
        builder.notices.append(
            f"{file.origin_file} is damaged: {error}. The documents in front of it are kept, what "
            "follows is lost: fetch the file again"
        )
        yield builder.take()


class JsonBlockReader:
    """Reads blocks of lines, one by one and independently: several threads may share it."""

    def __init__(self, piece: Piece) -> None:
        source = piece.file.source
        self._source = source
        self._needs_language = not piece.file.language
        keys = dict.fromkeys((source.text_key, source.id_key, *source.columns))
        if self._needs_language:
            keys |= dict.fromkeys(source.language_keys)
        self._index = {key: number for number, key in enumerate(keys)}
        raw = [key.encode() for key in keys]
        self._keys = np.frombuffer(b"".join(raw), np.uint8)
        self._key_offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
        self._odd = OddLineReader(piece)
        self._schema = read_schema(source.columns)
        self._is_whole = source.text_key == WHOLE_ROW

    def read(self, block: LineBlock) -> ReadBatch:
        """Return the documents of a block, in order, and what became of its other lines."""
        if block.skipped_bytes:
            return self._skipped(block)
        if self._is_whole:
            return self._rows(block)
        data = np.frombuffer(block.data, np.uint8)
        line_offsets, states, kinds, spans = find_json_strings(data, self._keys, self._key_offsets)
        text_kinds = kinds[:, self._index[self._source.text_key]]
        good = (states == GOOD) & ((text_kinds == STRING) | (text_kinds == ESCAPED))
        if not is_utf8(block.data):
            good[:] = False  # which of them it is, and why, is not the kernel's to say
        num_good = int(np.count_nonzero(good))
        if num_good == len(good):
            documents = self._documents(block, line_offsets[:-1], kinds, spans)
            return ReadBatch(
                documents=documents, documents_in=num_good, input_bytes=block.input_bytes
            )
        builder = BatchBuilder(self._source.columns, input_bytes=block.input_bytes)
        for line in np.flatnonzero(~good).tolist():
            start, end = int(line_offsets[line]), int(line_offsets[line + 1]) - 1
            self._odd.read(builder, block.offset + start, block.data[start:end])
        odd = builder.take()
        if num_good == 0:
            return odd
        documents = self._documents(block, line_offsets[:-1][good], kinds[good], spans[good])
        if len(odd.documents):
            documents = _in_order(documents, odd.documents)
        return replace(odd, documents=documents, documents_in=num_good + odd.documents_in)

    def _rows(self, block: LineBlock) -> ReadBatch:
        """Return whole lines: each is parsed, since what is no JSON is no row."""
        builder = BatchBuilder(self._source.columns, input_bytes=block.input_bytes)
        for offset, line in split_lines(block):
            self._odd.read(builder, offset, line)
        return builder.take()

    def _documents(
        self,
        block: LineBlock,
        line_offsets: NDArray[np.int64],
        kinds: NDArray[np.uint8],
        spans: NDArray[np.int64],
    ) -> pa.RecordBatch:
        """Return the documents of good lines."""
        data = np.frombuffer(block.data, np.uint8)
        text = self._index[self._source.text_key]
        content, offsets = unescape_json(data, spans[:, text], kinds[:, text] == ESCAPED)
        texts = pa.Array.from_buffers(
            pa.large_string(), len(kinds), [None, pa.py_buffer(offsets), pa.py_buffer(content)]
        )
        arrays = [
            self._values(data, self._source.id_key, kinds, spans),
            texts,
            self._languages(data, kinds, spans),
            int64_array(line_offsets + block.offset),
            *(self._values(data, name, kinds, spans) for name in self._source.columns),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _values(
        self, data: NDArray[np.uint8], key: str, kinds: NDArray[np.uint8], spans: NDArray[np.int64]
    ) -> pa.Array:
        """Return the values under a key as `as_string` has them."""
        kind, span = kinds[:, self._index[key]], spans[:, self._index[key]]
        found = _strings(data, span, kind, (kind != NULL) & (kind != MISSING))
        other = np.flatnonzero(kind == OTHER).tolist()
        if not other:
            return found
        values = found.to_pylist()
        for row in other:
            raw = data[span[row, 0] : span[row, 1]].tobytes()
            values[row] = as_string(msgspec.json.decode(raw))
        return pa.array(values, pa.string())

    def _languages(
        self, data: NDArray[np.uint8], kinds: NDArray[np.uint8], spans: NDArray[np.int64]
    ) -> pa.Array:
        """Return each line's language: the first of the source's keys with a filled string."""
        keys = self._source.language_keys if self._needs_language else ()
        kind, span = np.zeros(len(kinds), np.uint8), np.zeros((len(kinds), 2), np.int64)
        for key in reversed(keys):
            index = self._index[key]
            one, places = kinds[:, index], spans[:, index]
            is_filled = (one == STRING) | (one == ESCAPED)
            is_filled &= places[:, 1] > places[:, 0]
            kind = np.where(is_filled, one, kind)
            span = np.where(is_filled[:, None], places, span)
        return _strings(data, span, kind, kind != 0)

    def _skipped(self, block: LineBlock) -> ReadBatch:
        builder = BatchBuilder(self._source.columns, input_bytes=block.input_bytes)
        builder.documents_in = 1
        builder.reject(
            Rejected(
                origin_offset=block.offset,
                reason="too_long",
                detail=f"the line has {block.skipped_bytes} bytes; at most "
                f"{MAX_DOCUMENT_BYTES} are read at once",
            )
        )
        return builder.take()


def _strings(
    data: NDArray[np.uint8],
    spans: NDArray[np.int64],
    kinds: NDArray[np.uint8],
    is_there: NDArray[np.bool_],
) -> pa.Array:
    """Return strings (and literals, as they are written) as a string array, null elsewhere."""
    if not is_there.any():
        return pa.nulls(len(kinds), pa.string())
    places = np.where(is_there[:, None], spans, 0)
    content, offsets = unescape_json(data, places, kinds == ESCAPED)
    buffers: list[Any] = [pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(content)]
    bits = np.packbits(is_there, bitorder="little")
    validity = None if is_there.all() else pa.py_buffer(bits)
    return pa.Array.from_buffers(pa.string(), len(kinds), [validity, *buffers])


def _in_order(left: pa.RecordBatch, right: pa.RecordBatch) -> pa.RecordBatch:
    """Join two batches of one block, by the places of their lines."""
    both = pa.Table.from_batches([left, right]).combine_chunks()
    order = np.argsort(both.column("origin_offset").to_numpy(), kind="stable")
    return both.take(pa.array(order)).combine_chunks().to_batches()[0]
