"""Plain text files in; batches of documents out: a document is a file, a paragraph or a line.

Offsets are bytes of the (decompressed) file. Empty lines are no documents.
"""

from __future__ import annotations

from collections.abc import Iterator

from .batches import BatchBuilder, Piece, ReadBatch, Rejected
from .lines import (
    MAX_DOCUMENT_BYTES,
    DamagedFileError,
    LineBlock,
    read_lines,
    split_lines,
)


def read_text(piece: Piece) -> Iterator[ReadBatch]:
    """Yield the documents of a text file; see `SourceConfig.text_unit`."""
    file = piece.file
    builder = BatchBuilder(file.source.columns)
    collector = _Collector(builder, file.source.text_unit)
    try:
        for block in read_lines(file.input, file.compression, piece.start, piece.end):
            builder.input_bytes += block.input_bytes
            for offset, line in _lines(block):
                collector.add(offset, line)
                if builder.is_full:
                    yield builder.take()
        collector.finish()
    except DamagedFileError as error:
        collector.damage(error)
        builder.notices.append(
            f"{file.origin_file} is damaged: {error}. What lies in front of it is kept as far as "
            "it is whole, what follows is lost: fetch the file again"
        )
    yield builder.take()


def _lines(block: LineBlock) -> Iterator[tuple[int, bytes | int]]:
    """Yield (offset, line), or (offset, number of bytes) for a line that is too long."""
    if block.skipped_bytes:
        yield block.offset, block.skipped_bytes
    else:
        yield from split_lines(block)


class _Collector:
    """Puts lines together into documents."""

    def __init__(self, builder: BatchBuilder, unit: str) -> None:
        self._builder = builder
        self._unit = unit
        self._lines: list[bytes] = []
        self._start = 0
        self._size = 0
        self._is_open = False

    def add(self, offset: int, line: bytes | int) -> None:
        """Take one line, or the length of one that is too long."""
        if isinstance(line, int):
            self._extend(offset, b"", line)
        elif self._unit != "file" and (not line or line.isspace()):
            self._builder.blank_lines += 1
            self.finish()
            return
        else:
            self._extend(offset, line, len(line))
        if self._unit == "line":
            self.finish()

    def finish(self) -> None:
        """End the document that is being put together, if there is one."""
        if not self._is_open:
            return
        builder = self._builder
        builder.documents_in += 1
        if self._size > MAX_DOCUMENT_BYTES:
            detail = f"{self._size} bytes; at most {MAX_DOCUMENT_BYTES} are read at once"
            builder.reject(Rejected(origin_offset=self._start, reason="too_long", detail=detail))
        else:
            text = b"\n".join(self._lines)
            try:
                text.decode()
                builder.add(self._start, text)
            except UnicodeDecodeError as error:
                detail = f"byte {error.start} of the document: {error.reason}"
                builder.reject(
                    Rejected(origin_offset=self._start, reason="rejected_utf8", detail=detail)
                )
        self._is_open, self._lines, self._size = False, [], 0

    def damage(self, error: DamagedFileError) -> None:
        """Reject what was being put together when the file turned out to be damaged."""
        offset = self._start if self._is_open else error.offset
        self._is_open, self._lines, self._size = False, [], 0
        self._builder.documents_in += 1
        self._builder.reject(
            Rejected(origin_offset=offset, reason="rejected_truncated", detail=error.detail)
        )

    def _extend(self, offset: int, line: bytes, size: int) -> None:
        if not self._is_open:
            self._is_open, self._start, self._size = True, offset, 0
        else:
            self._size += 1  # the LF between two lines
        self._size += size
        if self._size <= MAX_DOCUMENT_BYTES:
            self._lines.append(line)
        else:
            self._lines = []
