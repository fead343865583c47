"""Tokens from files into another file: spans of tokens in, their bytes and block checksums out.

Merging, dropping and dividing are this one thing with other spans. The output is cut into checksum
blocks, and threads take one block after another: read, hash, write. The system calls and BLAKE2b
release the interpreter's lock, so hashing runs beside the disk. A block that lies in its source
exactly as it will lie in the output keeps the checksum that the source's manifest has, and the
kernel copies it (or shares it, where the file system can). Memory: a buffer a thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import TruncatedDataError
from .manifest import CHECKSUM_BLOCK_BYTES
from .manifest_fields import CHECKSUM_ALGORITHM

_BUFFER_BYTES = 1 << 20  # stays in the processor's cache between reading, hashing and writing
_MAX_THREADS = 8  # of little use beyond: two or three fill a fast disk

Progress = Callable[[int], None]
"""Called with the number of bytes that were done since the last call, by any thread."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenSource:
    """A file of tokens (or of a side stream) to copy from."""

    path: Path
    dtype: np.dtype[Any]
    num_tokens: int
    blocks: tuple[str, ...] = ()
    """Known digests of its blocks of `CHECKSUM_BLOCK_BYTES`; empty: none are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What a copy is known by."""

    blocks: tuple[str, ...]
    """Digest of each block of the output."""
    low: int | None
    """Smallest and largest value, where they were asked for and there is one."""
    high: int | None


def copy_tokens(
    sources: Sequence[TokenSource],
    spans: NDArray[np.int64],
    descriptor: int,
    dtype: np.dtype[Any],
    *,
    find_range: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Write spans of tokens back to back into an open file.

    Args:
        sources: the files.
        spans: int64[n, 3], each a source's number, its first token and a number of tokens.
        descriptor: the output, open for writing.
        dtype: of the output; must hold every value of the sources' dtypes.
        find_range: look for the smallest and the largest value.
        progress: told the bytes written.

    Raises:
        TruncatedDataError: a source ended early.
        OSError: what the system says, for instance that the disk is full.
    """
    plan = _Plan(sources, spans, dtype, find_range)
    digests = [""] * plan.num_blocks
    ranges: list[tuple[int, int]] = []
    blocks, lock = iter(range(plan.num_blocks)), threading.Lock()
    stopped = threading.Event()

    def work() -> None:
        with _Copier(plan, descriptor) as copier:
            while not stopped.is_set():
                with lock:
                    block = next(blocks, None)
                if block is None:
                    break
                num_bytes = copier.copy(block)
                digests[block] = copier.digest
                if progress is not None:
                    with lock:
                        progress(num_bytes)
            if copier.range is not None:
                ranges.append(copier.range)

    num_threads = min(len(os.sched_getaffinity(0)), _MAX_THREADS, max(plan.num_blocks, 1))
    with ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(work) for _ in range(num_threads)]
        try:
            for future in futures:
                future.result()
        finally:
            stopped.set()  # after an error or an interrupt the others end with their block
    return Copied(
        blocks=tuple(digests),
        low=min((low for low, _ in ranges), default=None),
        high=max((high for _, high in ranges), default=None),
    )


class _Plan:
    """Where each block of the output comes from."""

    def __init__(
        self,
        sources: Sequence[TokenSource],
        spans: NDArray[np.int64],
        dtype: np.dtype[Any],
        find_range: bool,
    ) -> None:
        self.sources, self.dtype, self.find_range = sources, dtype, find_range
        self.spans = spans[spans[:, 2] > 0]
        self.ends = np.cumsum(self.spans[:, 2])
        self.num_tokens = int(self.ends[-1]) if len(self.ends) else 0
        self.block_tokens = CHECKSUM_BLOCK_BYTES // dtype.itemsize
        self.num_blocks = -(-self.num_tokens // self.block_tokens)

    def pieces(self, block: int) -> Iterator[tuple[int, int, int]]:
        """Yield (source, first token, tokens) of what makes a block."""
        position = block * self.block_tokens
        stop = min(position + self.block_tokens, self.num_tokens)
        number = int(np.searchsorted(self.ends, position, side="right"))
        while position < stop:
            source, start, length = (int(value) for value in self.spans[number])
            skip = position - (int(self.ends[number]) - length)
            count = min(length - skip, stop - position)
            yield source, start + skip, count
            position, number = position + count, number + 1

    def known_digest(self, source: TokenSource, start: int, count: int) -> str | None:
        """Return the digest that the source's manifest has for exactly these bytes, if any."""
        block, rest = divmod(start, self.block_tokens)
        if rest or self.find_range or source.dtype != self.dtype or block >= len(source.blocks):
            return None
        is_whole = count == min(self.block_tokens, source.num_tokens - start)
        return source.blocks[block] if is_whole else None


class _Copier:
    """One thread's buffer, open source and running digest."""

    def __init__(self, plan: _Plan, descriptor: int) -> None:
        self.digest = ""
        self.range: tuple[int, int] | None = None
        self._plan, self._output = plan, descriptor
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._open: tuple[int, int] | None = None  # number and descriptor of a source

    def __enter__(self) -> _Copier:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open is not None:
            os.close(self._open[1])

    def copy(self, block: int) -> int:
        """Write one block, leave its digest in `digest`; return its size in bytes."""
        plan = self._plan
        position = first = block * plan.block_tokens * plan.dtype.itemsize
        pieces = list(plan.pieces(block))
        if len(pieces) == 1:
            number, start, count = pieces[0]
            known = plan.known_digest(plan.sources[number], start, count)
            if known is not None and self._copy_in_kernel(number, start, count, position):
                self.digest = known
                return count * plan.dtype.itemsize
        digest = hashlib.blake2b(digest_size=16)
        for number, start, count in pieces:
            for data in self._read(number, start, count):
                digest.update(data)
                _write_at(self._output, data, position)
                position += len(data)
        self.digest = digest.hexdigest()
        self._start_writeback(first, position - first)
        return position - first

    def _read(self, number: int, start: int, count: int) -> Iterator[memoryview]:
        """Yield the bytes of a piece in the output's dtype; each lasts until the next."""
        source, dtype = self._plan.sources[number], self._plan.dtype
        step = _BUFFER_BYTES // source.dtype.itemsize
        for first in range(start, start + count, step):
            size = min(step, start + count - first) * source.dtype.itemsize
            data = self._buffer[:size]
            _read_at(self._source(number), data, first * source.dtype.itemsize, source.path)
            if source.dtype == dtype and not self._plan.find_range:
                yield data
                continue
            tokens = np.frombuffer(data, source.dtype)
            if self._plan.find_range:
                low, high = self.range or (int(tokens[0]), int(tokens[0]))
                self.range = min(low, int(tokens.min())), max(high, int(tokens.max()))
            yield data if source.dtype == dtype else tokens.astype(dtype).view(np.uint8).data

    def _copy_in_kernel(self, number: int, start: int, count: int, position: int) -> bool:
        """Copy without looking at the bytes; False where the system cannot."""
        source, itemsize = self._plan.sources[number], self._plan.dtype.itemsize
        offset, missing = start * itemsize, count * itemsize
        first, size = position, missing
        while missing:
            try:
                copied = os.copy_file_range(
                    self._source(number), self._output, missing, offset, position
                )
            except OSError as error:
                if error.errno in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
                    return False
                raise
            if copied == 0:
                raise _truncated(source.path, missing, offset)
            missing, offset, position = missing - copied, offset + copied, position + copied
        self._start_writeback(first, size)
        return True

    def _start_writeback(self, position: int, size: int) -> None:
        """Let the disk begin now, so that the sync at the end has little left to wait for."""
        os.posix_fadvise(self._output, position, size, os.POSIX_FADV_DONTNEED)

    def _source(self, number: int) -> int:
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                os.close(self._open[1])
                self._open = None
            path = self._plan.sources[number].path
            self._open = number, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return self._open[1]


def _read_at(descriptor: int, data: memoryview, position: int, path: Path) -> None:
    while data:
        count = os.preadv(descriptor, [data], position)
        if count == 0:
            raise _truncated(path, len(data), position)
        data, position = data[count:], position + count


def _write_at(descriptor: int, data: memoryview, position: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, position)
        data, position = data[count:], position + count


def _truncated(path: Path, missing: int, position: int) -> TruncatedDataError:
    return TruncatedDataError(
        f"{path} ended {missing} bytes early at byte {position}: it was cut off while it was "
        "copied. Copy or write the dataset again"
    )


KNOWN_BLOCKS = (CHECKSUM_ALGORITHM, CHECKSUM_BLOCK_BYTES)
"""Algorithm and block size of checksums that a copy can take over."""
