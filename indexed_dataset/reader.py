"""Reading a prefix: PREFIX.bin, PREFIX.idx (and PREFIX.json) in, token arrays out.

Opening costs a header, a few bounds and the manifest, whatever the size. A token is only ever
returned if it was read from the file: bytes come by `pread` with their count checked, so a file
cut off while it is in use is an error and not old memory or a crash.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Sequence
from functools import cached_property, partial
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
from .index import Index
from .manifest import DatasetManifest
from .manifest_fields import shown
from .object_store import is_url
from .open_files import Descriptor, Reopenable
from .origins import read_origins
from .paths import PrefixPaths, prefix_paths, strip_suffix
from .remote_bin import RemoteBin
from .remote_prefix import RemotePrefix

_REMEDY = "Copy or write the dataset again"


class IndexedDataset:
    """The sequences of one prefix, by number: `len(dataset)`, `dataset[i]`, `dataset.get(...)`.

    Args:
        prefix: path without suffix (with .bin, .idx or .json is understood too), or a URL of an
            object store (`s3://bucket/data/eng_Latn`): index and manifest are copied once into a
            cache (`store_cache.py`), tokens are read by ranges; `read_in_order` reads them ahead.

    Raises:
        PrefixNotFoundError: .idx or .bin is missing.
        NotAnIndexError, UnsupportedVersionError, CorruptIndexError: the .idx is not usable.
        TruncatedDataError: the .bin is shorter or longer than the index says.
        ObjectStoreError: the object store does not answer.
        ManifestError: the .json is damaged or belongs to another dataset.

    Arrays of tokens that come back are the caller's own. Threads may read at the same time. Pickles
    as its path: a worker process opens the files again. Files are open while they are used, and
    not too many at once (`open_files.py`): there may be thousands of prefixes.
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        self.prefix = strip_suffix(prefix)
        self._remote_files = RemotePrefix(self.prefix) if is_url(self.prefix) else None
        self.remote: RemoteBin | None = None
        """The .bin, where it lies in an object store."""
        if self._remote_files is None:
            self._paths = prefix_paths(prefix)
        else:
            self._paths = self._remote_files.paths
            self.remote = self._remote_files.bin
        try:
            self._index = Index(self._paths.idx)
            bin_bytes = (
                os.stat(self._paths.bin).st_size
                if self.remote is None
                else self.remote.stored.size_bytes
            )
        except FileNotFoundError as error:
            raise self._not_found(Path(error.filename)) from None
        _check_bin_size(f"{self.prefix}.bin", bin_bytes, self._index.bin_bytes)
        self.dtype: np.dtype[Any] = self._index.header.dtype
        """The dtype of the tokens in the file."""
        self.num_tokens = self._index.bin_bytes // self.dtype.itemsize
        """Number of tokens in the file."""
        self._itemsize = self.dtype.itemsize
        self._bin = Reopenable(partial(_open_bin, self._paths, self._index.bin_bytes))
        self.manifest = DatasetManifest.load(self._paths.json)
        if self.manifest is not None:
            self._compare_manifest(self.manifest)

    def __len__(self) -> int:
        """Return the number of sequences."""
        return self._index.num_sequences

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
        start, stop = self._index.sequence_span(self._number(index, len(self), "sequence"))
        if length is None:
            length = stop - start - offset
        if offset < 0 or length < 0 or offset + length > stop - start:
            raise IndexedDatasetError(
                f"{self.prefix}: {length} tokens from offset {offset} were asked for, but sequence "
                f"{index} has {stop - start} tokens. Ask for a part of it"
            )
        return self.read_tokens(start + offset, length)

    def get_document(self, index: int) -> NDArray[Any]:
        """Return all tokens of document `index`, whatever sequences it was split into."""
        number = self._number(index, self.num_documents, "document")
        start, stop = self._index.document_span(number)
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
        position = start * self.dtype.itemsize
        if self.remote is not None:
            return np.frombuffer(
                bytearray(self._read_remote(start, start + num_tokens)), self.dtype
            )
        tokens = np.empty(num_tokens, dtype=self.dtype)
        file = self._bin.get()
        count = os.preadv(file.number, [tokens.data], position) if num_tokens else 0
        if count < tokens.nbytes:  # one call reads at most 2 GiB
            self._read_rest(file, tokens.view(np.uint8).data[count:], position + count)
        return tokens

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """Return the tokens at the positions [start, stop) of each span, joined into one array.

        What `read_tokens` does for each, in a quarter of the time for short ones. The array is
        read-only. Raises the same errors.
        """
        if self.remote is not None:
            joined = b"".join([self._read_remote(start, stop) for start, stop in spans])
            return np.frombuffer(joined, dtype=self.dtype)
        itemsize, file = self._itemsize, self._bin.get()
        try:
            if len(spans) == 1:
                ((start, stop),) = spans
                joined = os.pread(file.number, (stop - start) * itemsize, start * itemsize)
                whole = len(joined) == (stop - start) * itemsize
            else:
                pieces = [
                    os.pread(file.number, (stop - start) * itemsize, start * itemsize)
                    for start, stop in spans
                ]
                joined = b"".join(pieces)
                whole = len(joined) == sum([stop - start for start, stop in spans]) * itemsize
        except OSError:  # a position below 0, or a broken disk, which fails again below
            whole = False
        if whole:
            return np.frombuffer(joined, dtype=self.dtype)
        return np.concatenate([self.read_tokens(start, stop - start) for start, stop in spans])

    def _read_remote(self, start: int, stop: int) -> bytes | bytearray:
        """Return the bytes of the tokens [start, stop)."""
        assert self.remote is not None
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexedDatasetError(
                f"{self.prefix}: the tokens {start} to {stop} were asked for, but there are "
                f"{self.num_tokens}"
            )
        return self.remote.read(start * self._itemsize, stop * self._itemsize)

    def _read_rest(self, file: Descriptor, buffer: memoryview, position: int) -> None:
        while buffer:
            count = os.preadv(file.number, [buffer], position)
            if count == 0:
                raise TruncatedDataError(
                    f"{self._paths.bin} ended {len(buffer)} bytes early at byte {position}: it was "
                    f"cut off after it was opened. {_REMEDY}"
                )
            buffer, position = buffer[count:], position + count

    @property
    def num_sequences(self) -> int:
        """Number of sequences, the same as `len`."""
        return self._index.num_sequences

    @property
    def num_documents(self) -> int:
        """Number of documents, empty ones included."""
        return self._index.num_documents

    @property
    def sequence_lengths(self) -> NDArray[np.int32]:
        """int32[num_sequences], memory-mapped, read-only and not aligned."""
        return self._index.lengths

    @property
    def sequence_pointers(self) -> NDArray[np.int64]:
        """int64[num_sequences], byte offsets in the .bin, memory-mapped, read-only."""
        return self._index.pointers

    @property
    def document_indices(self) -> NDArray[np.int64]:
        """int64[num_documents + 1], bounds of the documents in sequences, memory-mapped."""
        return self._index.document_indices

    @property
    def sequence_modes(self) -> NDArray[np.int8] | None:
        """int8[num_sequences] of a multimodal dataset (0 text, 1 image), else None."""
        return self._index.modes

    @property
    def document_lengths(self) -> NDArray[np.int64]:
        """int64[num_documents], tokens of each document (computed: 8 bytes a document)."""
        return self._index.document_lengths

    def document_lengths_between(self, first: int, stop: int) -> NDArray[np.int64]:
        """int64[n], tokens of the documents [first, stop), cut to those that there are."""
        stop = min(stop, self.num_documents)
        return self._index.document_lengths_between(min(max(first, 0), stop), stop)

    def document_starts(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the token positions in [start, stop) at which a document with tokens starts.

        Example: documents of 3, 2 and 4 tokens: document_starts(1, 6) == [3, 5].
        """
        return self._index.document_starts(start, min(stop, self.num_tokens))

    def document_span(self, index: int) -> tuple[int, int]:
        """Return the token positions [start, stop) of document `index` in the .bin."""
        return self._index.document_span(self._number(index, self.num_documents, "document"))

    def document_at(self, position: int) -> int:
        """Return the number of the document that holds token `position` of the .bin."""
        return self._index.document_at(self._number(position, self.num_tokens, "token"))

    def origin(self, index: int) -> tuple[str, int] | None:
        """Return the input file and the row or byte offset that document `index` came from.

        None if the dataset has no PREFIX.origin.
        """
        number = self._number(index, self.num_documents, "document")
        path = self.local_file(".origin")
        if self.manifest is None or not path.exists():
            return None
        ((file, offset),) = read_origins(path, self.num_documents, number, 1).tolist()
        files = self.manifest.origin_files
        if not 0 <= file < len(files):
            raise IndexedDatasetError(
                f"{path}: document {number} came from file {file}, but the manifest "
                f"lists {len(files)}. {_REMEDY}"
            )
        return files[file], offset

    @cached_property
    def fingerprint(self) -> str:
        """Hex of 32 digits that other tokens would not have; side streams are left aside.

        With a manifest it is made of its checksums; without one of the .idx, the size of the .bin
        and 64 pieces of 4 KiB spread over it, so a foreign dataset costs one pass over its index.
        """
        digest = hashlib.blake2b(digest_size=16)
        checksums = None if self.manifest is None else self.manifest.checksums
        if checksums is not None:
            digest.update(b"checksums\0")
            digest.update("\n".join((checksums.idx, *checksums.bin)).encode())
            return digest.hexdigest()
        digest.update(b"foreign\0%d\0" % self._index.bin_bytes)
        with open(self._paths.idx, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        for piece in range(64):
            position = max(self._index.bin_bytes - 4096, 0) * piece // 63
            if self.remote is not None:
                end = min(position + 4096, self._index.bin_bytes)
                digest.update(self.remote.read(position, end))
            else:
                digest.update(os.pread(self._bin.get().number, 4096, position))
        return digest.hexdigest()

    def local_file(self, suffix: str) -> Path:
        """Return the path of a file of the prefix; of one in a store, of a copy made for it.

        It need not exist: then there is no such file in the store either.
        """
        if self._remote_files is not None:
            return self._remote_files.copy(suffix)
        return Path(self.prefix + suffix)

    def close(self) -> None:
        """Close the files; the next read opens them again."""
        self._bin.close()
        self._index.close()

    def __repr__(self) -> str:
        return (
            f"IndexedDataset({self.prefix!r}: {self.num_documents} documents, "
            f"{self.num_tokens} tokens, {self.dtype.name})"
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"prefix": self.prefix, "header": self._index.header, "manifest": self.manifest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["prefix"])  # type: ignore[misc]
        if (self._index.header, self.manifest) != (state["header"], state["manifest"]):
            raise IndexedDatasetError(
                f"{self.prefix} was replaced by another dataset while it was in use. "
                "Start the job again, so that all processes see the same data"
            )

    def _not_found(self, missing: Path) -> PrefixNotFoundError:
        other = self._paths.bin if missing == self._paths.idx else self._paths.idx
        hint = "Check the path: a prefix is given without suffix"
        if other.exists():
            hint = (
                f"{other.name} is there, so the copy is incomplete or its writer was killed "
                f"before it was done. {_REMEDY}"
            )
        return PrefixNotFoundError(f"there is no file {missing}. {hint}")

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
                    f"{self._paths.json} says {name} = {shown(said)}, but the .bin and .idx have "
                    f"{found}: they do not belong together. {_REMEDY}"
                )
        checksums, digest = manifest.checksums, self._index.digest
        if checksums is not None and digest is not None and digest != checksums.idx:
            raise CorruptIndexError(
                f"{self._paths.idx} has the checksum {digest}, but {self._paths.json.name} says "
                f"{checksums.idx}: one of them was altered or is of another dataset. {_REMEDY}, or "
                "let `gristmill repair` make the index again"
            )

    def _number(self, index: int, size: int, noun: str) -> int:
        """Return a place in [0, size), counted from the end if negative."""
        number = operator.index(index)
        if not -size <= number < size:
            raise IndexError(f"{self.prefix}: {noun} {number} was asked for, but there are {size}")
        return number % size


def _open_bin(paths: PrefixPaths, described: int) -> Descriptor:
    """Open the .bin; not a method, so that a dataset that is dropped is closed at once."""
    file = Descriptor(paths.bin)
    _check_bin_size(str(paths.bin), os.fstat(file.number).st_size, described)
    return file


def _check_bin_size(path: str, size: int, described: int) -> None:
    if size != described:
        state = "cut off" if size < described else "of another dataset"
        index = os.path.basename(path).removesuffix(".bin") + ".idx"
        raise TruncatedDataError(
            f"{path} has {size} bytes, but {index} describes {described}: it is {state}. {_REMEDY}"
        )
