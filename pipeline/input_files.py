"""Input files, local or in an object store: where one lies in, an open binary file out.

A file in a store is read by ranges that grow while it is read on, from a quarter of a megabyte (the
footer of a Parquet file, say) to `RANGE_BYTES`; from then on the next range is fetched while the
last one is used. Every range is tried again when a connection breaks, and a file that was replaced
since it was looked up is an error.
"""

from __future__ import annotations

import io
import os
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, cast

from ..indexed_dataset.object_store import StoredFile, read_range

InputFile = str | os.PathLike[str] | StoredFile
"""A local path, or a file of an object store as it was looked up."""

FIRST_BYTES = 256 << 10
RANGE_BYTES = 8 << 20


def open_input(file: InputFile) -> BinaryIO:
    """Open an input file for reading bytes; it can seek.

    Raises:
        OSError: it cannot be opened; of a file in a store (`ObjectStoreError`), also when reading.
    """
    if isinstance(file, StoredFile):
        return cast(BinaryIO, _RemoteInput(file))
    return open(file, "rb")


def input_size(file: InputFile) -> int:
    """Return the bytes of an input file."""
    return file.size_bytes if isinstance(file, StoredFile) else os.path.getsize(file)


class _RemoteInput(io.RawIOBase):
    """A file of an object store that can be read and sought like a local one."""

    def __init__(self, file: StoredFile) -> None:
        super().__init__()
        self._file = file
        self._position = 0
        self._held = 0, b""  # its first byte, and the bytes
        self._grown = FIRST_BYTES
        self._next: tuple[int, int, Future[bytes]] | None = None  # first byte, bytes, content
        self._thread: ThreadPoolExecutor | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._file.size_bytes}
        self._position = max(base[whence] + offset, 0)
        return self._position

    def size(self) -> int:
        """Return the bytes of the file; Arrow asks for it."""
        return self._file.size_bytes

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, but for the end of the file: Arrow takes less for damage."""
        view = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(view) and self._position < self._file.size_bytes:
            start, data = self._held
            place = self._position - start
            if not 0 <= place < len(data):
                self._fetch(len(view) - filled)
                continue
            part = data[place : place + len(view) - filled]
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._position += len(part)
        return filled

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None
        self._held, self._next = (0, b""), None
        super().close()

    def _fetch(self, wanted: int) -> None:
        """Hold the bytes from the position on, and begin to fetch those behind them."""
        begin, end = self._position, self._file.size_bytes
        reads_on = bool(self._held[1]) and begin == self._held[0] + len(self._held[1])
        self._grown = min(2 * self._grown, RANGE_BYTES) if reads_on else FIRST_BYTES
        coming, self._next = self._next, None
        self._held = begin, b""
        if coming is not None and coming[0] <= begin < coming[0] + coming[1]:
            self._held = coming[0], coming[2].result()
        else:
            stop = min(begin + max(self._grown, min(wanted, RANGE_BYTES)), end)
            self._held = begin, read_range(self._file, begin, stop)
        after = self._held[0] + len(self._held[1])
        if reads_on and after < end:
            size = min(self._grown, end - after)
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="input")
            self._next = after, size, self._thread.submit(
                read_range, self._file, after, after + size
            )  # fmt: skip
