"""Lines of a file with their places: a plain, .gz or .zst file in, blocks of whole lines out.

Decompression is Arrow's, which is fast, reads files of many frames or members, and notices where a
file was cut off. Only when it fails is the file read again, slowly, so that every byte in front of
the damage comes out, and then the damage is reported.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import zstandard

from ..indexed_dataset.object_store import ObjectStoreError, StoredFile
from .input_files import InputFile, input_size, open_input

Compression = Literal["", "gzip", "zstd"]

CHUNK_BYTES = 1 << 20
"""Bytes asked for at a time: larger chunks are slower, they leave the processor's cache."""

MAX_DOCUMENT_BYTES = 64 << 20
"""Longer lines and texts are dropped as `too_long`: one text of this size already takes half a
gigabyte while it is decoded and cleaned (Python keeps 4 bytes a character if there is an emoji)."""


class DamagedFileError(ValueError):
    """A file ends in the middle, or holds bytes that cannot be decompressed."""

    def __init__(self, offset: int, detail: str) -> None:
        super().__init__(offset, detail)
        self.offset = offset
        """Where the first line that could not be read whole begins (decompressed bytes)."""
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail} (at byte {self.offset} of the decompressed file)"


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Whole lines, or one line that is too long to be held."""

    offset: int
    """Where the first line begins in the (decompressed) file."""
    data: bytes
    """Lines separated by LF, without the last LF; empty if `skipped_bytes` is not 0."""
    skipped_bytes: int
    """Length of the line at `offset` when it is longer than allowed; 0: `data` are lines."""
    input_bytes: int
    """Bytes of the file as it lies on disk that this block used up."""


def read_lines(
    path: InputFile,
    compression: Compression,
    start: int = 0,
    end: int | None = None,
    max_line_bytes: int = MAX_DOCUMENT_BYTES,
) -> Iterator[LineBlock]:
    """Yield the lines whose first byte lies in [start, end) of the file.

    A byte order mark at the start of the file is skipped (offsets count it). A compressed file has
    no ranges: `start` is 0 and `end` None.

    Raises:
        DamagedFileError: after everything in front of the damage has been yielded.
    """
    assert not compression or (start == 0 and end is None)
    if compression:
        offset, chunks = 0, _decompressed(path, compression)
    else:
        size = input_size(path)
        with open_input(path) as file:
            offset = _line_start(file, start, size)
            stop = size if end is None else _line_start(file, end, size)
        chunks = _plain(path, offset, stop)

    parts: list[bytes] = []  # of the line that is not finished yet
    pending = 0  # its length so far, also when it is too long and `parts` are no longer kept
    input_bytes = 0
    first = offset == 0
    try:
        for chunk, used in chunks:
            input_bytes += used
            if first and chunk:
                first = False
                if chunk.startswith(b"\xef\xbb\xbf"):
                    chunk = chunk[3:]
                    offset = 3
            last_end = chunk.rfind(b"\n")
            if last_end < 0:
                pending += len(chunk)
                parts = [*parts, chunk] if pending <= max_line_bytes else []
                continue
            first_end = chunk.find(b"\n")
            begin = 0
            if pending + first_end > max_line_bytes:
                yield LineBlock(offset, b"", pending + first_end, 0)
                offset += pending + first_end + 1
                begin, pending, parts = first_end + 1, 0, []
            data = b"".join([*parts, chunk[begin:last_end]]) if begin <= last_end else None
            parts = [chunk[last_end + 1 :]]  # before the yield: a long line is held once only
            pending = len(parts[0])
            if data is not None:
                yield LineBlock(offset, data, 0, input_bytes)
                offset += len(data) + 1
                input_bytes = 0
    except DamagedFileError as error:
        raise DamagedFileError(offset, error.detail) from error
    if pending > max_line_bytes:
        yield LineBlock(offset, b"", pending, input_bytes)
    elif pending:
        yield LineBlock(offset, b"".join(parts), 0, input_bytes)


def split_lines(block: LineBlock) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, line without its LF) of a block that is not one skipped line."""
    offset = block.offset
    for line in block.data.split(b"\n"):
        yield offset, line
        offset += len(line) + 1


def is_utf8(data: bytes) -> bool:
    """Say whether `data` is valid UTF-8 (Arrow's check: five times faster than decoding)."""
    offsets = pa.py_buffer(memoryview(_int64(0, len(data))))
    array = pa.Array.from_buffers(pa.large_string(), 1, [None, offsets, pa.py_buffer(data)])
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _int64(*values: int) -> Any:
    import numpy as np

    return np.array(values, dtype=np.int64)


def _line_start(file: Any, position: int, size: int) -> int:
    """Return where the first line that begins at or after `position` begins."""
    if position == 0 or position > size:
        return min(position, size)
    file.seek(position - 1)
    while chunk := file.read(CHUNK_BYTES):
        found = chunk.find(b"\n")
        if found >= 0:
            return int(file.tell() - len(chunk) + found + 1)
    return size


def _plain(path: InputFile, start: int, stop: int) -> Iterator[tuple[bytes, int]]:
    with open_input(path) as file:
        file.seek(start)
        while start < stop and (chunk := file.read(min(CHUNK_BYTES, stop - start))):
            start += len(chunk)
            yield chunk, len(chunk)


def _decompressed(path: InputFile, compression: Compression) -> Iterator[tuple[bytes, int]]:
    """Yield (decompressed bytes, compressed bytes used up) of the whole file."""
    if input_size(path) == 0:
        return
    with _arrow_file(path) as file:
        stream = pa.CompressedInputStream(file, compression)
        produced = position = 0
        while True:
            try:
                chunk = stream.read(CHUNK_BYTES)
            except ObjectStoreError:
                raise
            except (OSError, pa.ArrowException):
                break
            if not chunk:
                return
            produced += len(chunk)
            used, position = file.tell() - position, file.tell()
            yield chunk, used
    for chunk in _salvaged(path, compression, produced):
        yield chunk, 0


def _arrow_file(path: InputFile) -> Any:
    if isinstance(path, StoredFile):
        return pa.PythonFile(open_input(path), mode="r")
    return pa.OSFile(os.fspath(path))


class _Decoder:
    """Decompresses frame after frame (zstd) or member after member (gzip), fed bit by bit."""

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._frame: Any = None  # None: between two frames

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._frame is None:
                if self._compression == "gzip" and not data.strip(b"\0"):
                    return  # padding, as tapes and some copying tools leave it
                self._frame = (
                    zlib.decompressobj(wbits=31)
                    if self._compression == "gzip"
                    else zstandard.ZstdDecompressor().decompressobj()
                )
            yield self._frame.decompress(data)
            if not self._frame.eof:
                return
            data = self._frame.unused_data
            self._frame = None

    @property
    def is_between_frames(self) -> bool:
        return self._frame is None


def _salvaged(path: InputFile, compression: Compression, skip: int) -> Iterator[bytes]:
    """Yield what can be decompressed after the first `skip` bytes, then raise."""
    size = input_size(path)
    position, problem = _find_damage(path, compression)
    decoder = _Decoder(compression)
    with open_input(path) as file:
        try:
            while True:
                # Byte by byte near the damage: a failing call returns nothing of what it decoded.
                near = position is not None and file.tell() >= position
                data = file.read(1 if near else CHUNK_BYTES if position is None else _STEP_BYTES)
                if not data:
                    break
                for decoded in decoder.feed(data):
                    fresh = decoded[skip:]
                    skip = max(0, skip - len(decoded))
                    if fresh:
                        yield fresh
        except (zlib.error, zstandard.ZstdError):
            raise DamagedFileError(
                0, f"damaged {compression} data at byte {file.tell()} of {size}: {problem}"
            ) from None
    if not decoder.is_between_frames:
        raise DamagedFileError(0, f"the {compression} file ends too early, at byte {size}")


_STEP_BYTES = 1 << 16


def _find_damage(path: InputFile, compression: Compression) -> tuple[int | None, str]:
    """Return the place of the step that cannot be decompressed (None: there is none) and why."""
    decoder = _Decoder(compression)
    with open_input(path) as file:
        position = 0
        while data := file.read(_STEP_BYTES):
            try:
                for _ in decoder.feed(data):
                    pass
            except (zlib.error, zstandard.ZstdError) as error:
                return position, str(error)
            position += len(data)
    return None, ""
