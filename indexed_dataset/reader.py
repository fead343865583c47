"""Reading a prefix: PREFIX.bin, PREFIX.idx (and PREFIX.json) in, token arrays out.

Opening costs a header, a few bounds and the manifest, whatever the size; the index of a small
dataset is also checked entry by entry. Each read checks the entries that it uses, and a token is
only ever returned if it was read from the file: bytes come by `pread` with their count checked,
so a file cut off later is an error and not old memory or a crash.
"""

from __future__ import annotations

import hashlib
import operator
import os
from bisect import bisect_left, bisect_right
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .errors import (
    CorruptIndexError,
    IndexedDatasetError,
    ManifestError,
    PrefixNotFoundError,
    TruncatedDataError,
)
from .format import (
    HEADER_BYTES,
    Header,
    check_document_ends,
    check_index_arrays,
    unpack_header,
)
from .manifest import DatasetManifest
from .paths import prefix_paths, strip_suffix

_CHECKED_AT_OPEN_BYTES = 1 << 20  # an index up to this size is checked whole: half a millisecond
_REMEDY = "Copy or write the dataset again"


class IndexedDataset:
    """The sequences of one prefix, by number: `len(dataset)`, `dataset[i]`, `dataset.get(...)`.

    Args:
        prefix: path without suffix (with .bin, .idx or .json is understood too).

    Raises:
        PrefixNotFoundError: .idx or .bin is missing.
        NotAnIndexError, UnsupportedVersionError, CorruptIndexError: the .idx is not usable.
        TruncatedDataError: the .bin is shorter or longer than the index says.
        ManifestError: the .json is damaged or belongs to another dataset.

    Arrays that come back are the caller's own. Pickles as its path: a worker process opens the
    files again. The files stay closed until tokens are read.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = strip_suffix(prefix)
        self._paths = prefix_paths(prefix)
        self._bin_descriptor: int | None = None
        self._header, self._bin_bytes = self._open_index()
        self.manifest = DatasetManifest.load(self._paths.json)
        if self.manifest is not None:
            self._compare_manifest(self.manifest)

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self._header.num_sequences

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[NDArray[Any]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any] | list[NDArray[Any]]:
        """Return sequence `index` (or a list of sequences for a slice) in the file's dtype."""
        if isinstance(index, slice):
            return [self.get(i) for i in range(*index.indices(len(self)))]
        return self.get(index)

    def get(self, index: int, offset: int = 0, length: int | None = None) -> NDArray[Any]:
        """Return `length` tokens of sequence `index` from `offset` on (default: to its end).

        Raises:
            IndexError: no such sequence.
            IndexedDatasetError: the sequence has no such tokens.
        """
        start, num_tokens = self._sequence_span(index)
        if length is None:
            length = num_tokens - offset
        if offset < 0 or length < 0 or offset + length > num_tokens:
            raise IndexedDatasetError(
                f"{self.prefix}: {length} tokens from offset {offset} were asked for, but sequence "
                f"{index} has {num_tokens} tokens. Ask for a part of it"
            )
        return self.read_tokens(start + offset, length)

    def get_document(self, index: int) -> NDArray[Any]:
        """Return all tokens of document `index`, whatever sequences it was split into."""
        index = self._normal_index(index, self.num_documents, "document")
        first, last = (int(bound) for bound in self.document_indices[index : index + 2])
        if not 0 <= first <= last <= len(self):
            raise self._corrupt(f"document {index} spans the sequences {first} to {last}")
        start, stop = self._token_position(first), self._token_position(last)
        return self.read_tokens(start, stop - start)

    def read_tokens(self, start: int, num_tokens: int) -> NDArray[Any]:
        """Return `num_tokens` tokens from position `start` of the .bin on, as they lie there.

        Raises:
            IndexedDatasetError: the dataset has no such positions.
            TruncatedDataError: the file was cut off since it was opened.
        """
        if start < 0 or num_tokens < 0 or start + num_tokens > self.num_tokens:
            raise IndexedDatasetError(
                f"{self.prefix}: the tokens {start} to {start + num_tokens} were asked for, but "
                f"there are {self.num_tokens}"
            )
        tokens = np.empty(num_tokens, dtype=self.dtype)
        buffer = tokens.view(np.uint8).data
        position, missing = start * self.dtype.itemsize, len(buffer)
        while missing:
            count = os.preadv(self._bin_file(), [buffer[-missing:]], position)
            if count == 0:
                raise TruncatedDataError(
                    f"{self._paths.bin} ended {missing} bytes early at byte {position}: it was cut "
                    f"off after it was opened. {_REMEDY}"
                )
            position, missing = position + count, missing - count
        return tokens

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the tokens in the file."""
        return self._header.dtype

    @property
    def num_sequences(self) -> int:
        """Number of sequences, the same as `len`."""
        return self._header.num_sequences

    @property
    def num_documents(self) -> int:
        """Number of documents, empty ones included."""
        return self._header.num_document_indices - 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the file."""
        return self._bin_bytes // self.dtype.itemsize

    @property
    def sequence_lengths(self) -> NDArray[np.int32]:
        """int32[num_sequences], memory-mapped, read-only and not aligned."""
        lengths: NDArray[np.int32] = self._index_map[HEADER_BYTES:][: 4 * len(self)].view("<i4")
        return lengths

    @property
    def sequence_pointers(self) -> NDArray[np.int64]:
        """int64[num_sequences], byte offsets in the .bin, memory-mapped, read-only."""
        first = HEADER_BYTES + 4 * len(self)
        pointers: NDArray[np.int64] = self._index_map[first:][: 8 * len(self)].view("<i8")
        return pointers

    @property
    def document_indices(self) -> NDArray[np.int64]:
        """int64[num_documents + 1], bounds of the documents in sequences, memory-mapped."""
        first = HEADER_BYTES + 12 * len(self)
        size = 8 * self._header.num_document_indices
        bounds: NDArray[np.int64] = self._index_map[first:][:size].view("<i8")
        return bounds

    @property
    def sequence_modes(self) -> NDArray[np.int8] | None:
        """int8[num_sequences] of a multimodal dataset (0 text, 1 image), else None."""
        first = self._header.index_bytes
        if len(self._index_map) == first:
            return None
        modes: NDArray[np.int8] = self._index_map[first:].view("i1")
        return modes

    @property
    def document_lengths(self) -> NDArray[np.int64]:
        """int64[num_documents], tokens of each document (computed: 8 bytes a document)."""
        ends = np.zeros(len(self) + 1, dtype=np.int64)
        np.cumsum(self.sequence_lengths, dtype=np.int64, out=ends[1:])
        bounds = np.asarray(self.document_indices)
        if bounds.min() < 0 or bounds.max() > len(self):
            raise self._corrupt("a document bound lies outside of the sequences")
        return np.diff(ends[bounds])

    def document_starts(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the token positions in [start, stop) at which a document with tokens starts.

        Found by bisection in the index, never by looking at token values. Example: documents of
        3, 2 and 4 tokens have the starts 0, 3 and 5, so document_starts(1, 6) == [3, 5].
        """
        stop = min(stop, self.num_tokens)
        if start >= stop:
            return np.zeros(0, dtype=np.int64)
        itemsize = self.dtype.itemsize
        pointers, bounds = self.sequence_pointers, self.document_indices
        first = bisect_left(pointers, start * itemsize)
        last = bisect_left(pointers, stop * itemsize, lo=first)
        low = bisect_left(bounds, first)
        high = bisect_left(bounds, last, lo=low)
        sequences = np.asarray(bounds[low:high])
        if sequences.size and not (first <= sequences.min() and sequences.max() < last):
            raise self._corrupt(f"the document bounds {low} to {high} are not in order")
        starts = np.unique(np.asarray(pointers[sequences]) // itemsize)
        if starts.size and not (start <= starts[0] and starts[-1] < stop):
            raise self._corrupt(f"the sequences {first} to {last} are not in order")
        return starts

    def document_at(self, position: int) -> int:
        """Return the number of the document that holds token `position` of the .bin."""
        if not 0 <= position < self.num_tokens:
            raise IndexError(f"{self.prefix}: token {position} of {self.num_tokens}")
        sequence = bisect_right(self.sequence_pointers, position * self.dtype.itemsize) - 1
        return bisect_right(self.document_indices, sequence) - 1

    @cached_property
    def fingerprint(self) -> str:
        """Hex of 32 digits that other content would not have.

        With a manifest it is made of its checksums; without one of the .idx, the size of the .bin
        and 64 pieces of 4 KiB spread over it, so a foreign dataset costs one pass over its index.
        """
        digest = hashlib.blake2b(digest_size=16)
        checksums = None if self.manifest is None else self.manifest.checksums
        if checksums is not None:
            digest.update(b"checksums\0")
            digest.update("\n".join((checksums.idx, *checksums.bin)).encode())
            return digest.hexdigest()
        digest.update(b"foreign\0%d\0" % self._bin_bytes)
        with open(self._paths.idx, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        for piece in range(64):
            position = max(self._bin_bytes - 4096, 0) * piece // 63
            digest.update(os.pread(self._bin_file(), 4096, position))
        return digest.hexdigest()

    def close(self) -> None:
        """Close the .bin; the next read opens it again."""
        if self._bin_descriptor is not None:
            os.close(self._bin_descriptor)
            self._bin_descriptor = None

    def __del__(self) -> None:
        if getattr(self, "_bin_descriptor", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return (
            f"IndexedDataset({self.prefix!r}: {self.num_documents} documents, "
            f"{self.num_tokens} tokens, {self.dtype.name})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"prefix": self.prefix, "header": self._header, "bin_bytes": self._bin_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["prefix"])  # type: ignore[misc]
        if (self._header, self._bin_bytes) != (state["header"], state["bin_bytes"]):
            raise IndexedDatasetError(
                f"{self.prefix} was replaced by another dataset while it was in use. "
                "Start the job again, so that all processes see the same data"
            )

    def _open_index(self) -> tuple[Header, int]:
        """Check the index and its bounds; return its header and the size of the .bin."""
        path = self._paths.idx
        try:
            with open(path, "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                header = unpack_header(stream.read(HEADER_BYTES), path)
                self._check_index_size(header, size)
                if header.index_bytes <= _CHECKED_AT_OPEN_BYTES:
                    self._check_all(header, stream.read(header.index_bytes - HEADER_BYTES))
                else:
                    first = HEADER_BYTES + 12 * header.num_sequences
                    check_document_ends(
                        np.array(
                            [
                                int.from_bytes(os.pread(stream.fileno(), 8, at), "little")
                                for at in (first, header.index_bytes - 8)
                            ]
                        ),
                        header.num_sequences,
                        path,
                    )
                expected = _expected_bin_bytes(stream.fileno(), header)
            actual = os.stat(self._paths.bin).st_size
        except FileNotFoundError as error:
            missing = Path(error.filename)
            other = self._paths.bin if missing == path else path
            hint = (
                f"{other.name} is there: the copy is incomplete, or its writer was killed before "
                "it was done. Copy or write the dataset again"
                if other.exists()
                else "Check the path: a prefix is given without suffix"
            )
            raise PrefixNotFoundError(f"there is no {missing}. {hint}") from None
        if actual != expected:
            state = "cut off" if actual < expected else "of another dataset, or written to again"
            raise TruncatedDataError(
                f"{self._paths.bin} has {actual} bytes, but {path.name} describes {expected}: it "
                f"is {state}. {_REMEDY}"
            )
        return header, actual

    def _check_index_size(self, header: Header, size: int) -> None:
        sizes = (header.index_bytes, header.index_bytes + header.num_sequences)
        if size not in sizes:
            raise CorruptIndexError(
                f"{self._paths.idx} has {size} bytes, but its header announces "
                f"{header.num_sequences} sequences and {header.num_document_indices - 1} documents "
                f"in {sizes[0]} bytes. It was cut off or damaged. {_REMEDY}"
            )

    def _check_all(self, header: Header, data: bytes) -> None:
        """Check every entry of a small index."""
        num = header.num_sequences
        if len(data) != header.index_bytes - HEADER_BYTES:
            raise CorruptIndexError(f"{self._paths.idx} became shorter while it was read")
        check_index_arrays(
            np.frombuffer(data, "<i4", num),
            np.frombuffer(data, "<i8", num, 4 * num),
            np.frombuffer(data, "<i8", header.num_document_indices, 12 * num),
            header.dtype.itemsize,
            self._paths.idx,
        )

    def _compare_manifest(self, manifest: DatasetManifest) -> None:
        """Refuse a manifest that describes other files."""
        for name, said, found in (
            ("format", manifest.format, "MMIDIDX"),
            ("dtype", manifest.dtype, self.dtype.name),
            ("num_documents", manifest.num_documents, self.num_documents),
            ("num_sequences", manifest.num_sequences, self.num_sequences),
            ("num_tokens", manifest.num_tokens, self.num_tokens),
        ):
            if said != found:
                raise ManifestError(
                    f"{self._paths.json} says {name} = {said}, but the .bin and .idx have {found}: "
                    f"they do not belong together. {_REMEDY}"
                )

    @cached_property
    def _index_map(self) -> NDArray[np.uint8]:
        """The bytes of the .idx, memory-mapped when an entry is first needed."""
        index = np.asarray(np.memmap(self._paths.idx, mode="r", dtype=np.uint8))
        self._check_index_size(self._header, len(index))
        return index

    def _bin_file(self) -> int:
        if self._bin_descriptor is None:
            self._bin_descriptor = os.open(self._paths.bin, os.O_RDONLY | os.O_CLOEXEC)
        return self._bin_descriptor

    def _normal_index(self, index: int, size: int, noun: str) -> int:
        number = operator.index(index)
        if not -size <= number < size:
            raise IndexError(f"{self.prefix}: {noun} {number} was asked for, but there are {size}")
        return number % size

    def _sequence_span(self, index: int) -> tuple[int, int]:
        """Return the first token position of a sequence and its length, checked both ways."""
        index = self._normal_index(index, len(self), "sequence")
        length = int(self.sequence_lengths[index])
        start, end = self._token_position(index), self._token_position(index + 1)
        if length < 0 or end - start != length:
            raise self._corrupt(
                f"sequence {index} has length {length} but spans the tokens {start} to {end}"
            )
        return start, length

    def _token_position(self, index: int) -> int:
        """Return the token position at which sequence `index` starts (the end, for the last + 1).

        Two neighbours must agree on it: the one that starts there and the one that ends there.
        """
        pointers, lengths, itemsize = (
            self.sequence_pointers,
            self.sequence_lengths,
            self.dtype.itemsize,
        )
        position = int(pointers[index]) if index < len(self) else self._bin_bytes
        before = 0
        if index > 0:
            before = int(pointers[index - 1]) + int(lengths[index - 1]) * itemsize
        if position != before or not 0 <= position <= self._bin_bytes or position % itemsize:
            raise self._corrupt(
                f"sequence {index} starts at byte {position}, the one before it ends at {before}"
            )
        return position // itemsize

    def _corrupt(self, what: str) -> CorruptIndexError:
        return CorruptIndexError(f"{self._paths.idx}: {what}. The index is damaged. {_REMEDY}")


def _expected_bin_bytes(descriptor: int, header: Header) -> int:
    """Return the end of the last sequence, as the index has it."""
    num = header.num_sequences
    if num == 0:
        return 0
    length = int.from_bytes(
        os.pread(descriptor, 4, HEADER_BYTES + 4 * (num - 1)), "little", signed=True
    )
    pointer = int.from_bytes(
        os.pread(descriptor, 8, HEADER_BYTES + 4 * num + 8 * (num - 1)), "little", signed=True
    )
    return pointer + length * header.dtype.itemsize
