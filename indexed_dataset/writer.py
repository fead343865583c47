"""Writing a prefix: token arrays in, PREFIX.bin, .idx, .json (and .origin) out.

The .bin and .idx are those that megatron-core's builder writes for the same documents. Ids are
checked and checksums taken on the way; `commit.py` sees to it that the prefix appears whole or
not at all. Memory: 8 bytes a document (its length and its number of sequences).
"""

from __future__ import annotations

import hashlib
import os
from array import array as growing_array
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import __version__
from .commit import UnfinishedPrefix
from .errors import IndexedDatasetError, ManifestError, TokenRangeError
from .format import MAX_SEQUENCE_TOKENS, dtype_for_vocab_size, pack_header, storage_dtype
from .manifest import BlockHasher, Checksums, DatasetManifest

_CHUNK = 1 << 20  # sequences turned into index bytes in one go


class IndexedDatasetBuilder:
    """Writes one prefix, document by document or in batches.

        with IndexedDatasetBuilder("data/eng_Latn", vocab_size=32_000) as builder:
            builder.add_document([5, 7, 9, 0])
            builder.finalize(eod_id=0)

    Args:
        prefix: path without suffix; the folder is made if needed.
        dtype: dtype of the tokens in the file; default: uint16 below 65,500 ids, else int32.
        vocab_size: every id must be below it. One of `dtype` and `vocab_size` is needed.
        overwrite: replace an existing dataset, which stays readable until the new one is complete.
        empty_documents: what `add_document([])` and a zero length in `add_documents` leave in the
            index: "no_sequence" (as megatron-core's add_document) or "empty_sequence" (as its
            add_documents). The document is counted either way.

    Raises:
        PrefixExistsError: the prefix exists and `overwrite` is false.
        PrefixBusyError: another process is writing it.

    A block left by an error writes nothing; one left without `finalize` is finalized.
    """

    def __init__(
        self,
        prefix: str | os.PathLike[str],
        dtype: DTypeLike | None = None,
        vocab_size: int | None = None,
        *,
        overwrite: bool = False,
        empty_documents: Literal["no_sequence", "empty_sequence"] = "no_sequence",
    ) -> None:
        if empty_documents not in ("no_sequence", "empty_sequence"):
            raise IndexedDatasetError(
                f"empty_documents is {empty_documents!r}; offered: no_sequence, empty_sequence"
            )
        self._dtype = _stored_dtype(dtype, vocab_size, os.fspath(prefix))
        self._vocab_size = vocab_size
        self._keep_empty = empty_documents == "empty_sequence"
        # A tenth of the memory of a list of arrays, where documents come one at a time.
        self._lengths, self._sequences_per_document = growing_array("i"), growing_array("i")
        self._num_tokens = self._num_documents = 0
        self._max_token_id: int | None = None
        self._has_origins: bool | None = None
        self._bin_hasher, self._origin_hasher = BlockHasher(), hashlib.blake2b(digest_size=16)
        self._files = UnfinishedPrefix(prefix, overwrite=overwrite)

    def add_document(
        self,
        tokens: ArrayLike,
        sequence_lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        *,
        origin: tuple[int, int] | None = None,
    ) -> None:
        """Add one document.

        Args:
            tokens: all its ids, end-of-document token included if it shall have one.
            sequence_lengths: tokens of each of its sequences (default: one sequence).
            origin: file number and row or byte offset it came from; for all documents or none.

        Raises:
            TokenRangeError: an id does not fit; nothing of the document is written.
        """
        array = self._as_tokens(tokens)
        if sequence_lengths is None:
            lengths = np.full(1 if array.size or self._keep_empty else 0, array.size, np.int64)
        else:
            lengths = np.asarray(sequence_lengths, dtype=np.int64).reshape(-1)
        self._check_lengths(lengths, array.size)
        origins = None if origin is None else np.array([origin], dtype="<i8")
        self._append(array, lengths, np.array([lengths.size], dtype=np.int32), origins)

    def add_documents(
        self,
        tokens: ArrayLike,
        lengths: ArrayLike,
        *,
        origins: NDArray[np.int64] | None = None,
    ) -> None:
        """Add many documents of one sequence each.

        Args:
            tokens: integer[num_tokens], the ids of all documents back to back.
            lengths: integer[num_documents], tokens of each document.
            origins: int64[num_documents, 2], file number and row or byte offset of each.

        Raises:
            TokenRangeError: an id does not fit; nothing of the batch is written.
        """
        array = self._as_tokens(tokens)
        sizes = np.asarray(lengths, dtype=np.int64).reshape(-1)
        self._check_lengths(sizes, array.size)
        counts = np.ones(sizes.size, dtype=np.int32)
        if not self._keep_empty:
            counts[sizes == 0] = 0
            sizes = sizes[sizes > 0]
        self._append(array, sizes, counts, origins)

    def finalize(
        self,
        *,
        text_bytes: int | None = None,
        eod_id: int | None = None,
        tokenizer: Mapping[str, str] | None = None,
        document_order: Literal["shuffled", "input"] = "input",
        split: str | None = None,
        group: str | None = None,
        shard: int = 0,
        num_shards: int = 1,
        languages: Mapping[str, Mapping[str, int]] | None = None,
        sources: Mapping[str, Mapping[str, int]] | None = None,
        origin_files: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        stages: Mapping[str, int] | None = None,
    ) -> DatasetManifest:
        """Write index and manifest and let the prefix appear; return the manifest.

        The arguments are the fields of `DatasetManifest` that the tokens do not tell.

        Raises:
            ManifestError: the counts of `languages` or `sources` do not add up to what was
                written, or the end-of-document id is outside the vocabulary.
            DiskFullError: no space left; the temporary files are removed.
        """
        try:
            for noun, table in (("languages", languages), ("sources", sources)):
                self._check_table(noun, table or {}, text_bytes)
            if eod_id is not None and not 0 <= eod_id < (self._vocab_size or eod_id + 1):
                raise ManifestError(
                    f"{self._files.paths.json}: eod_id {eod_id} is not below vocab_size "
                    f"{self._vocab_size}. Give the tokenizer's own id and size"
                )
            lengths = np.asarray(self._lengths, dtype=np.int32)
            counts = np.asarray(self._sequences_per_document, dtype=np.int32)
            index_digest = self._write_index(lengths, counts)
            manifest = DatasetManifest(
                dtype=self._dtype.name,
                num_documents=self._num_documents,
                num_sequences=lengths.size,
                num_tokens=self._num_tokens,
                text_bytes=text_bytes,
                vocab_size=self._vocab_size,
                eod_id=eod_id,
                max_token_id=self._max_token_id,
                tokenizer=tokenizer,
                document_order=document_order,
                split=split,
                group=group,
                shard=shard,
                num_shards=num_shards,
                languages=languages or {},
                sources=sources or {},
                origin_files=tuple(origin_files),
                checksums=Checksums(
                    bin=self._bin_hasher.hexdigests(),
                    idx=index_digest,
                    origin=self._origin_hasher.hexdigest() if self._has_origins else None,
                ),
                config=config or {},
                stages=stages or {},
                gristmill=__version__,
            )
            text = manifest.to_json()
            DatasetManifest.from_json(text, self._files.paths.json)  # readable, or an error now
            self._files.write("json", text.encode())
            self._files.commit()
        except BaseException:
            self.abort()
            raise
        return manifest

    def abort(self) -> None:
        """Write nothing: remove the temporary files. Harmless after `finalize`."""
        self._files.abort()

    def __enter__(self) -> IndexedDatasetBuilder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abort()
        elif self._files.is_open:
            self.finalize()

    def _append(
        self,
        tokens: NDArray[Any],
        lengths: NDArray[np.int64],
        counts: NDArray[np.int32],
        origins: NDArray[np.int64] | None,
    ) -> None:
        """Write checked tokens and remember the shape of their documents."""
        has_origins = origins is not None
        if self._has_origins not in (None, has_origins):
            raise IndexedDatasetError(
                f"{self._files.paths.origin}: some documents come with their origin and some "
                "without, so rows and documents would not match. Give it for all or for none"
            )
        if origins is not None:
            rows = np.ascontiguousarray(origins, dtype="<i8")
            if rows.shape != (counts.size, 2):
                raise IndexedDatasetError(
                    f"origins has shape {rows.shape} for {counts.size} documents; it must be "
                    f"({counts.size}, 2): file number and row or byte offset of each"
                )
            self._origin_hasher.update(rows.tobytes())
            self._files.write("origin", rows.tobytes())
        self._has_origins = has_origins
        raw = tokens.view(np.uint8).data
        self._files.write("bin", raw)
        self._bin_hasher.update(raw)
        self._lengths.frombytes(lengths.astype(np.int32).tobytes())
        self._sequences_per_document.frombytes(counts.tobytes())
        self._num_tokens += tokens.size
        self._num_documents += counts.size
        if tokens.size and self._dtype.kind != "f":
            self._max_token_id = max(int(tokens.max()), self._max_token_id or 0)

    def _as_tokens(self, tokens: ArrayLike) -> NDArray[Any]:
        """Return the tokens in the file's dtype; refuse those that would not survive it."""
        array = np.asarray(tokens)
        if array.size == 0:
            return np.zeros(0, dtype=self._dtype)
        if array.ndim != 1:
            raise IndexedDatasetError(
                f"tokens has shape {array.shape}; give the ids back to back, in one dimension"
            )
        if self._dtype.kind == "f" and array.dtype.kind in "fiu":
            return np.ascontiguousarray(array, dtype=self._dtype)
        if array.dtype.kind not in "iu":
            raise IndexedDatasetError(
                f"tokens has dtype {array.dtype}, but {self._files.paths.bin.name} holds "
                f"{self._dtype.name}. Convert the ids to integers first"
            )
        self._check_range(array)
        return np.ascontiguousarray(array, dtype=self._dtype)

    def _check_range(self, array: NDArray[Any]) -> None:
        limits = np.iinfo(self._dtype)
        floor, ceiling, reason = int(limits.min), int(limits.max), f"the dtype {self._dtype.name}"
        if self._vocab_size is not None:
            floor, ceiling, reason = 0, self._vocab_size - 1, f"vocab_size {self._vocab_size}"
        if int(array.min()) < floor or int(array.max()) > ceiling:
            position = int(np.argmax((array < floor) | (array > ceiling)))
            raise TokenRangeError(
                f"{self._files.paths.bin}: token id {int(array[position])} does not fit {reason}: "
                f"ids must be {floor} to {ceiling} (it is token {position} of what was added after "
                f"document {self._num_documents}). Give the tokenizer's true vocabulary size, or "
                "check which tokenizer made the ids"
            )

    def _check_lengths(self, lengths: NDArray[np.int64], num_tokens: int) -> None:
        if lengths.size and int(lengths.min()) < 0:
            raise IndexedDatasetError(
                f"a sequence length is {int(lengths.min())}; a sequence has 0 tokens or more"
            )
        if int(lengths.sum()) != num_tokens:
            raise IndexedDatasetError(
                f"the lengths add up to {int(lengths.sum())}, but {num_tokens} tokens were given: "
                "tokens would belong to the wrong document. Give the length of every sequence"
            )
        if lengths.size and int(lengths.max()) > MAX_SEQUENCE_TOKENS:
            raise IndexedDatasetError(
                f"a sequence of {int(lengths.max())} tokens is longer than the format's limit of "
                f"{MAX_SEQUENCE_TOKENS}. Give the document in several sequences"
            )

    def _check_table(
        self, noun: str, table: Mapping[str, Mapping[str, int]], text_bytes: int | None
    ) -> None:
        """Refuse counts per language or source that do not add up."""
        written = {"documents": self._num_documents, "tokens": self._num_tokens}
        if text_bytes is not None:
            written["text_bytes"] = text_bytes
        for key, total in written.items():
            said = sum(row[key] for row in table.values())
            if table and said != total:
                raise ManifestError(
                    f"{self._files.paths.json}: the {key} of all {noun} add up to {said}, but the "
                    f"prefix has {total}. Count every document that is added exactly once"
                )

    def _write_index(self, lengths: NDArray[np.int32], counts: NDArray[np.int32]) -> str:
        """Fill the .idx in bounded memory; return its digest."""
        digest = hashlib.blake2b(digest_size=16)

        def put(data: bytes) -> None:
            digest.update(data)
            self._files.write("idx", data)

        put(pack_header(self._dtype, lengths.size, counts.size + 1))
        for first in range(0, lengths.size, _CHUNK):
            put(lengths[first : first + _CHUNK].astype("<i4").tobytes())
        position = 0
        for first in range(0, lengths.size, _CHUNK):
            chunk = lengths[first : first + _CHUNK].astype(np.int64) * self._dtype.itemsize
            ends = position + np.cumsum(chunk)
            put((ends - chunk).astype("<i8").tobytes())
            position = int(ends[-1])
        sequence = 0
        put(np.zeros(1, dtype="<i8").tobytes())
        for first in range(0, counts.size, _CHUNK):
            bounds = sequence + np.cumsum(counts[first : first + _CHUNK], dtype=np.int64)
            put(bounds.astype("<i8").tobytes())
            sequence = int(bounds[-1])
        return digest.hexdigest()


def _stored_dtype(dtype: DTypeLike | None, vocab_size: int | None, prefix: str) -> np.dtype[Any]:
    """Return the dtype of the file, checked against the size of the vocabulary."""
    if vocab_size is None:
        if dtype is None:
            raise IndexedDatasetError(
                f"neither dtype nor vocab_size is given for {prefix}: the width of a token is "
                "unknown. Give vocab_size (and dtype only to differ from the default)"
            )
        return storage_dtype(dtype)
    default = dtype_for_vocab_size(vocab_size)
    if dtype is None:
        return default
    stored = storage_dtype(dtype)
    if stored.kind == "f" or vocab_size - 1 > int(np.iinfo(stored).max):
        raise TokenRangeError(
            f"{prefix}: dtype {stored.name} does not hold every id of a vocabulary of "
            f"{vocab_size}. Leave dtype out ({default.name} would be taken), or give a wider one"
        )
    return stored
