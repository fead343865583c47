"""The shape of a prefix while it grows: lengths of sequences in, the bytes of its .idx out.

Memory is bounded whatever the number of documents: what goes beyond `MEMORY_BYTES` of each array
moves to unnamed files in the prefix's folder, which vanish with the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from .format import pack_header

MEMORY_BYTES = 16 << 20
"""Bytes of each array that are held in memory: four million documents."""

_CHUNK = 1 << 20  # entries turned into index bytes in one go


class GrowingIndex:
    """Lengths, documents and modes of the sequences that were added so far.

    Args:
        folder: where the arrays go when they outgrow memory.
        has_modes: whether every sequence has a mode (multimodal datasets).
    """

    def __init__(self, folder: Path, *, has_modes: bool = False) -> None:
        self.num_sequences = self.num_documents = self.num_tokens = 0
        self.has_modes = has_modes
        self._lengths, self._counts, self._modes = (_spool(folder) for _ in range(3))

    def append(
        self,
        lengths: NDArray[np.int32],
        counts: NDArray[np.int32],
        modes: NDArray[np.int8] | None = None,
    ) -> None:
        """Add documents.

        Args:
            lengths: int32[sequences], tokens of each sequence.
            counts: int32[documents], sequences of each document.
            modes: int8[sequences]; needed if the index has modes, not read otherwise.
        """
        self._lengths.write(np.ascontiguousarray(lengths, "<i4").data)
        self._counts.write(np.ascontiguousarray(counts, "<i4").data)
        if self.has_modes and modes is not None:
            self._modes.write(np.ascontiguousarray(modes, "i1").data)
        self.num_sequences += len(lengths)
        self.num_documents += len(counts)
        self.num_tokens += int(lengths.sum(dtype=np.int64))

    def write(self, dtype: np.dtype[Any], put: Callable[[bytes], None]) -> None:
        """Give `put` the bytes of the .idx, piece by piece, for tokens of `dtype`."""
        put(pack_header(dtype, self.num_sequences, self.num_documents + 1))
        for chunk in _chunks(self._lengths, "<i4"):
            put(chunk.tobytes())
        for chunk in starts_of(_chunks(self._lengths, "<i4"), dtype.itemsize):
            put(chunk.tobytes())
        put(bytes(8))
        for chunk in ends_of(_chunks(self._counts, "<i4")):
            put(chunk.tobytes())
        if self.has_modes:
            for chunk in _chunks(self._modes, "i1"):
                put(chunk.tobytes())

    def close(self) -> None:
        """Give the memory and the files back."""
        for spool in (self._lengths, self._counts, self._modes):
            spool.close()


def starts_of(lengths: Iterable[NDArray[np.int32]], itemsize: int) -> Iterator[NDArray[np.int64]]:
    """Yield the byte at which each sequence starts, for chunks of their lengths in tokens.

    Example: lengths [3, 2], [4] of two bytes a token start at [0, 6], [10].
    """
    position = 0
    for chunk in lengths:
        sizes = chunk.astype("<i8") * itemsize
        ends = position + np.cumsum(sizes, dtype="<i8")
        yield ends - sizes
        position = int(ends[-1])


def ends_of(counts: Iterable[NDArray[np.int32]]) -> Iterator[NDArray[np.int64]]:
    """Yield the running sum after each document, for chunks of their numbers of sequences."""
    total = 0
    for chunk in counts:
        bounds = total + np.cumsum(chunk, dtype="<i8")
        yield bounds
        total = int(bounds[-1])


def _spool(folder: Path) -> IO[bytes]:
    # GrowingIndex.close closes it.
    spool = tempfile.SpooledTemporaryFile(  # noqa: SIM115
        max_size=MEMORY_BYTES, mode="w+b", dir=str(folder)
    )
    return cast(IO[bytes], spool)  # it has the methods, not the base class


def _chunks(spool: IO[bytes], dtype: str) -> Iterator[NDArray[Any]]:
    """Yield all entries of one array; the spool is ready to grow again afterwards."""
    spool.seek(0)
    size = np.dtype(dtype).itemsize * _CHUNK
    while data := spool.read(size):
        yield np.frombuffer(data, dtype)
