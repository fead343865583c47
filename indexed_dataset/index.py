"""PREFIX.idx in; where sequences and documents lie in PREFIX.bin out.

Opening reads the header and the bounds, and checks a small index entry by entry; the file is
mapped while entries are used, as far as there is room for open files. Entries are checked when
they are used: two neighbours must agree on where one ends and the other starts.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from bisect import bisect_left, bisect_right
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptIndexError
from .format import HEADER_BYTES, Header, check_document_ends, check_index_arrays, unpack_header
from .open_files import Reopenable, open_for_reading

_CHECKED_AT_OPEN_BYTES = 1 << 20  # an index up to this size is checked whole: half a millisecond
_DIGESTED_AT_OPEN_BYTES = 1 << 18  # and up to this one its digest is made: a third of one
_CHUNK_DOCUMENTS = 1 << 18  # looked at in one go
_REMEDY = "The index is damaged: copy or write the dataset again"


class Index:
    """The index of one prefix.

    Args:
        path: the .idx file.

    Raises:
        FileNotFoundError: there is no such file.
        NotAnIndexError, UnsupportedVersionError, CorruptIndexError: it is not usable.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.digest: str | None = None
        """As in `Checksums.idx`; None for a large index, which is not read when it is opened."""
        with os.fdopen(open_for_reading(path), "rb") as stream:
            first = stream.read(HEADER_BYTES)
            self.header = unpack_header(first, path)
            size = os.fstat(stream.fileno()).st_size
            _check_size(path, self.header, size)
            self.bin_bytes = self._check_bounds(stream.fileno())
            if self.header.index_bytes <= _CHECKED_AT_OPEN_BYTES:
                rest = stream.read(size - HEADER_BYTES)
                self._check_all(rest)
                if size <= _DIGESTED_AT_OPEN_BYTES:
                    self.digest = hashlib.blake2b(first + rest, digest_size=16).hexdigest()
        self._map = Reopenable(partial(_open_map, path, self.header))

    @property
    def num_sequences(self) -> int:
        """Number of sequences."""
        return self.header.num_sequences

    @property
    def num_documents(self) -> int:
        """Number of documents, empty ones included."""
        return self.header.num_document_indices - 1

    @property
    def lengths(self) -> NDArray[np.int32]:
        """int32[num_sequences], tokens of each; mapped, read-only, not aligned."""
        lengths: NDArray[np.int32] = self._bytes[HEADER_BYTES:][: 4 * self.num_sequences].view(
            "<i4"
        )
        return lengths

    @property
    def pointers(self) -> NDArray[np.int64]:
        """int64[num_sequences], byte offset of each in the .bin; mapped, read-only."""
        first = HEADER_BYTES + 4 * self.num_sequences
        pointers: NDArray[np.int64] = self._bytes[first:][: 8 * self.num_sequences].view("<i8")
        return pointers

    @property
    def document_indices(self) -> NDArray[np.int64]:
        """int64[num_documents + 1], bounds of the documents in sequences; mapped, read-only."""
        first = HEADER_BYTES + 12 * self.num_sequences
        bounds: NDArray[np.int64] = self._bytes[first : self.header.index_bytes].view("<i8")
        return bounds

    @property
    def modes(self) -> NDArray[np.int8] | None:
        """int8[num_sequences] of a multimodal dataset (0 text, 1 image), else None."""
        first = self.header.index_bytes
        if len(self._bytes) == first:
            return None
        modes: NDArray[np.int8] = self._bytes[first:].view("i1")
        return modes

    @property
    def document_lengths(self) -> NDArray[np.int64]:
        """int64[num_documents], tokens of each document (computed: 8 bytes a document)."""
        lengths = np.empty(self.num_documents, dtype=np.int64)
        for first in range(0, self.num_documents, _CHUNK_DOCUMENTS):
            stop = min(first + _CHUNK_DOCUMENTS, self.num_documents)
            lengths[first:stop] = self.document_lengths_between(first, stop)
        return lengths

    def document_lengths_between(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return int64[stop - first], tokens of the documents [first, stop)."""
        bounds = np.asarray(self.document_indices[first : stop + 1])
        low, high = int(bounds[0]), int(bounds[-1])
        if not 0 <= low <= high <= self.num_sequences or (np.diff(bounds) < 0).any():
            raise self._corrupt(f"the bounds of the documents {first} to {stop} are not in order")
        ends = np.zeros(high - low + 1, dtype=np.int64)
        np.cumsum(self.lengths[low:high], out=ends[1:])
        starts = self.pointers[low:high] - self.header.dtype.itemsize * ends[:-1]
        if len(starts) and (starts != starts[0]).any():
            raise self._corrupt(f"the sequences {low} to {high} are not in order")
        return np.diff(ends[bounds - low])

    def sequence_span(self, number: int) -> tuple[int, int]:
        """Return the tokens of the .bin, from and to, that sequence `number` has."""
        length = int(self.lengths[number])
        start, stop = self._token_position(number), self._token_position(number + 1)
        if length < 0 or stop - start != length:
            raise self._corrupt(
                f"sequence {number} has length {length} but spans the tokens {start} to {stop}"
            )
        return start, stop

    def document_span(self, number: int) -> tuple[int, int]:
        """Return the tokens of the .bin, from and to, that document `number` has."""
        first, last = (int(bound) for bound in self.document_indices[number : number + 2])
        if not 0 <= first <= last <= self.num_sequences:
            raise self._corrupt(f"document {number} spans the sequences {first} to {last}")
        start, stop = self._token_position(first), self._token_position(last)
        if start > stop:
            raise self._corrupt(f"document {number} spans the tokens {start} to {stop}")
        return start, stop

    def document_starts(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the token positions in [start, stop) at which a document with tokens starts.

        Found by bisection, never by looking at token values. Example: documents of 3, 2 and 4
        tokens have the starts 0, 3 and 5, so document_starts(1, 6) == [3, 5].
        """
        itemsize = self.header.dtype.itemsize
        pointers, bounds = self.pointers, self.document_indices
        first = bisect_left(pointers, start * itemsize)
        last = bisect_left(pointers, min(stop * itemsize, self.bin_bytes), lo=first)
        low = bisect_left(bounds, first)
        high = bisect_left(bounds, last, lo=low)
        sequences = np.asarray(bounds[low:high])
        if sequences.size and not first <= sequences.min() <= sequences.max() < last:
            raise self._corrupt(f"the bounds of the documents {low} to {high} are not in order")
        starts = np.unique(np.asarray(pointers[sequences]) // itemsize)
        if starts.size and not start <= starts[0] <= starts[-1] < stop:
            raise self._corrupt(f"the sequences {first} to {last} are not in order")
        return starts

    def document_at(self, position: int) -> int:
        """Return the number of the document that holds token `position` of the .bin."""
        sequence = bisect_right(self.pointers, position * self.header.dtype.itemsize) - 1
        number = bisect_right(self.document_indices, sequence) - 1
        start, stop = self.document_span(number) if 0 <= number < self.num_documents else (0, 0)
        if not start <= position < stop:
            raise self._corrupt(
                f"token {position} should be in document {number}, which has the tokens {start} to "
                f"{stop}"
            )
        return number

    def close(self) -> None:
        """Give the memory map up; arrays that were taken from it keep it."""
        self._map.close()

    @property
    def _bytes(self) -> NDArray[np.uint8]:
        """The file, memory-mapped, and still as long as it was.

        To touch the map beyond the end of a file that was cut off would kill the process.
        """
        mapped = self._map.get()
        if mapped.file.size() < len(mapped.content):
            raise self._corrupt("it was cut off after it was opened")
        return mapped.content

    def _token_position(self, number: int) -> int:
        """Return the token at which sequence `number` starts (for the last + 1: the end)."""
        itemsize = self.header.dtype.itemsize
        position = int(self.pointers[number]) if number < self.num_sequences else self.bin_bytes
        before = 0
        if number > 0:
            before = int(self.pointers[number - 1]) + int(self.lengths[number - 1]) * itemsize
        if position != before or not 0 <= position <= self.bin_bytes or position % itemsize:
            raise self._corrupt(
                f"sequence {number} starts at byte {position}, the one before it ends at {before}"
            )
        return position // itemsize

    def _check_bounds(self, descriptor: int) -> int:
        """Check the ends of the documents; return the end of the last sequence in bytes."""
        num = self.header.num_sequences

        def entry(offset: int, size: int) -> int:
            return int.from_bytes(os.pread(descriptor, size, offset), "little", signed=True)

        first_document = HEADER_BYTES + 12 * num
        check_document_ends(
            entry(first_document, 8), entry(self.header.index_bytes - 8, 8), num, self._path
        )
        if num == 0:
            return 0
        length = entry(HEADER_BYTES + 4 * (num - 1), 4)
        pointer = entry(first_document - 8, 8)
        if length < 0 or pointer < 0 or pointer % self.header.dtype.itemsize:
            raise self._corrupt(
                f"the last sequence has {length} tokens and starts at byte {pointer}"
            )
        return pointer + length * self.header.dtype.itemsize

    def _check_all(self, data: bytes) -> None:
        """Check every entry of a small index."""
        num = self.num_sequences
        if len(data) < self.header.index_bytes - HEADER_BYTES:
            raise self._corrupt("it became shorter while it was read")
        check_index_arrays(
            np.frombuffer(data, "<i4", num),
            np.frombuffer(data, "<i8", num, 4 * num),
            np.frombuffer(data, "<i8", self.num_documents + 1, 12 * num),
            self.header.dtype.itemsize,
            self._path,
        )

    def _corrupt(self, what: str) -> CorruptIndexError:
        return CorruptIndexError(f"{self._path}: {what}. {_REMEDY}")


class _Map(NamedTuple):
    """A mapped file."""

    file: mmap.mmap
    content: NDArray[np.uint8]


def _open_map(path: Path, header: Header) -> _Map:
    """Map the .idx; not a method, so that an index that is dropped is closed at once."""
    descriptor = open_for_reading(path)
    try:
        size = os.fstat(descriptor).st_size
        _check_size(path, header, size)
        file = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return _Map(file, np.frombuffer(file, np.uint8))


def _check_size(path: Path, header: Header, size: int) -> None:
    if size not in (header.index_bytes, header.index_bytes + header.num_sequences):
        raise CorruptIndexError(
            f"{path} has {size} bytes, but its header announces {header.num_sequences} sequences "
            f"and {header.num_document_indices - 1} documents in {header.index_bytes} bytes: it "
            f"was cut off or damaged. {_REMEDY}"
        )
