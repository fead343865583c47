"""Writing a prefix: token arrays in, PREFIX.bin, .idx, .json (.origin, .NAME.side) out.

The .bin and .idx are those that megatron-core's builder writes for the same documents. Ids are
checked and checksums taken on the way; `commit.py` sees to it that the prefix appears whole or
not at all. Memory: what `growing_index.py` holds, whatever the number of documents.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import __version__
from .commit import UnfinishedPrefix
from .errors import IndexedDatasetError, ManifestError
from .format import MAX_SEQUENCE_TOKENS, storage_dtype
from .growing_index import GrowingIndex
from .manifest import BlockHasher, Checksums, DatasetManifest, SideStreamEntry, side_suffix
from .storing import as_stored, token_dtype


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
        multimodal: store a mode for each sequence (0 text, 1 image), as megatron-core's builder
            does with the option of this name.
        streams: dtype of each side stream: arrays with one entry for each token, such as
            {"loss_mask": "uint8"}. Every document then comes with its entries.

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
        multimodal: bool = False,
        streams: Mapping[str, DTypeLike] | None = None,
    ) -> None:
        if empty_documents not in ("no_sequence", "empty_sequence"):
            raise IndexedDatasetError(
                f"empty_documents is {empty_documents!r}; offered: no_sequence, empty_sequence"
            )
        self._dtype = token_dtype(dtype, vocab_size, os.fspath(prefix))
        self._streams = {n: storage_dtype(d) for n, d in sorted((streams or {}).items())}
        self._stream_hashers = {name: BlockHasher() for name in self._streams}
        self._kinds = {name: side_suffix(name)[1:] for name in self._streams}
        self._vocab_size = vocab_size
        self._keep_empty = empty_documents == "empty_sequence"
        self._max_token_id: int | None = None
        self._has_origins: bool | None = None
        self._bin_hasher, self._origin_hasher = BlockHasher(), hashlib.blake2b(digest_size=16)
        self._files = UnfinishedPrefix(prefix, overwrite=overwrite)
        self._index = GrowingIndex(self._files.paths.idx.parent, has_modes=multimodal)

    def add_document(
        self,
        tokens: ArrayLike,
        sequence_lengths: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        modes: ArrayLike | None = None,
        *,
        origin: tuple[int, int] | None = None,
        streams: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Add one document.

        Args:
            tokens: all its ids, end-of-document token included if it shall have one.
            sequence_lengths: tokens of each of its sequences (default: one sequence).
            modes: mode of each of its sequences (default: 0, text); multimodal builders only.
            origin: file number and row or byte offset it came from; for all documents or none.
            streams: for each side stream its entries, one for each token.

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
        self._append(
            array,
            lengths,
            np.array([lengths.size], dtype=np.int32),
            self._as_modes(modes, lengths.size),
            origins,
            self._as_entries(streams, array.size),
        )

    def add_documents(
        self,
        tokens: ArrayLike,
        lengths: ArrayLike,
        *,
        modes: ArrayLike | None = None,
        origins: NDArray[np.int64] | None = None,
        streams: Mapping[str, ArrayLike] | None = None,
    ) -> None:
        """Add many documents of one sequence each.

        Args:
            tokens: integer[num_tokens], the ids of all documents back to back.
            lengths: integer[num_documents], tokens of each document.
            modes: integer[num_documents], mode of each (default: 0, text).
            origins: int64[num_documents, 2], file number and row or byte offset of each.
            streams: for each side stream number[num_tokens], the entries of all tokens.

        Raises:
            TokenRangeError: an id does not fit; nothing of the batch is written.
        """
        array = self._as_tokens(tokens)
        sizes = np.asarray(lengths, dtype=np.int64).reshape(-1)
        self._check_lengths(sizes, array.size)
        counts = np.ones(sizes.size, dtype=np.int32)
        chosen = self._as_modes(modes, sizes.size)
        if not self._keep_empty:
            counts[sizes == 0] = 0
            chosen = None if chosen is None else chosen[sizes > 0]
            sizes = sizes[sizes > 0]
        self._append(array, sizes, counts, chosen, origins, self._as_entries(streams, array.size))

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
            if eod_id is not None and not 0 <= eod_id < (self._vocab_size or eod_id + 1):
                raise ManifestError(
                    f"{self._files.paths.json}: eod_id {eod_id} is not below vocab_size "
                    f"{self._vocab_size}. Give the tokenizer's own id and size"
                )
            index_digest = self._write_index()
            manifest = DatasetManifest(
                dtype=self._dtype.name,
                num_documents=self._index.num_documents,
                num_sequences=self._index.num_sequences,
                num_tokens=self._index.num_tokens,
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
                side_streams={
                    name: SideStreamEntry(
                        dtype=dtype.name,
                        suffix=side_suffix(name),
                        blocks=self._stream_hashers[name].hexdigests(),
                    )
                    for name, dtype in self._streams.items()
                },
                checksums=Checksums(
                    bin=self._bin_hasher.hexdigests(),
                    idx=index_digest,
                    origin=self._origin_hasher.hexdigest() if self._has_origins else None,
                ),
                config=config or {},
                stages=stages or {},
                gristmill=__version__,
            )
            for problem in manifest.wrong_sums():
                raise ManifestError(
                    f"{self._files.paths.json} would be wrong: {problem}. Count every document "
                    "that is added exactly once"
                )
            text = manifest.to_json()
            DatasetManifest.from_json(text, self._files.paths.json)  # readable, or an error now
            self._files.write("json", text.encode())
            for name in self._streams:
                self._files.write(self._kinds[name], b"")  # an empty dataset has an empty one
            self._files.commit()
        except BaseException:
            self.abort()
            raise
        self._index.close()
        return manifest

    def abort(self) -> None:
        """Write nothing: remove the temporary files. Harmless after `finalize`."""
        self._files.abort()
        self._index.close()

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
        modes: NDArray[np.int8] | None,
        origins: NDArray[np.int64] | None,
        entries: Mapping[str, NDArray[Any]],
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
        for name, values in entries.items():
            raw = values.view(np.uint8).data
            self._files.write(self._kinds[name], raw)
            self._stream_hashers[name].update(raw)
        raw = tokens.view(np.uint8).data
        self._files.write("bin", raw)
        self._bin_hasher.update(raw)
        with self._files.aborting("idx"):
            self._index.append(lengths.astype(np.int32), counts, modes)
        if tokens.size and self._dtype.kind != "f":
            self._max_token_id = max(int(tokens.max()), self._max_token_id or 0)

    def _as_tokens(self, tokens: ArrayLike) -> NDArray[Any]:
        """Return the tokens in the file's dtype; refuse those that would not survive it."""
        return as_stored(
            tokens,
            self._dtype,
            self._files.paths.bin,
            vocab_size=self._vocab_size,
            after=self._index.num_documents,
        )

    def _as_modes(self, modes: ArrayLike | None, num_sequences: int) -> NDArray[np.int8] | None:
        if not self._index.has_modes:
            if modes is not None:
                raise IndexedDatasetError(
                    f"{self._files.prefix}: modes were given, but the builder would not store them."
                    " Make it with multimodal=True"
                )
            return None
        if modes is None:
            return np.zeros(num_sequences, np.int8)
        chosen = np.asarray(modes)
        if chosen.shape != (num_sequences,) or (chosen != chosen.astype(np.int8)).any():
            raise IndexedDatasetError(
                f"modes has shape {chosen.shape} for {num_sequences} sequences, or one does not "
                "fit int8: give one small whole number for each sequence"
            )
        return chosen.astype(np.int8)

    def _as_entries(
        self, streams: Mapping[str, ArrayLike] | None, num_tokens: int
    ) -> dict[str, NDArray[Any]]:
        """Return the entries of each side stream in its dtype, in the order of their names."""
        given = {} if streams is None else dict(streams)
        if set(given) != set(self._streams):
            raise IndexedDatasetError(
                f"{self._files.prefix} has the side streams {sorted(self._streams)}, but entries "
                f"of {sorted(given)} were given: streams and tokens would no longer match. Name "
                "all streams when the builder is made, and give each with every document"
            )
        entries = {}
        for name, dtype in self._streams.items():
            path = Path(f"{self._files.prefix}{side_suffix(name)}")
            after = self._index.num_documents
            entries[name] = as_stored(given[name], dtype, path, vocab_size=None, after=after)
            if entries[name].size != num_tokens:
                raise IndexedDatasetError(
                    f"{path}: {entries[name].size} entries for {num_tokens} tokens. Give one for "
                    "each token"
                )
        return entries

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

    def _write_index(self) -> str:
        """Fill the .idx in bounded memory; return its digest."""
        digest = hashlib.blake2b(digest_size=16)

        def put(data: bytes) -> None:
            digest.update(data)
            self._files.write("idx", data)

        self._index.write(self._dtype, put)
        return digest.hexdigest()
