"""Documents of some prefixes into one new prefix: choices and a manifest in, a whole prefix out.

Merging, dropping and dividing choose documents; the rest of the work is the same and stands here:
index and origins chunk by chunk, then tokens and side streams by `copying.py`, then the manifest,
and everything appears at once (`commit.py`). The .bin and .idx are those that megatron-core's
`add_index` writes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .chosen_documents import ChosenDocuments, is_multimodal, read_chunks
from .commit import UnfinishedPrefix
from .copying import KNOWN_BLOCKS, Copied, TokenSource, copy_tokens
from .errors import IndexedDatasetError, ManifestError, TokenRangeError
from .growing_index import GrowingIndex
from .manifest import Checksums, DatasetManifest, SideStreamEntry
from .paths import prefix_paths
from .reader import IndexedDataset
from .side_streams import SideStream

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all; by one thread at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembly:
    """What a new prefix is made of."""

    parts: Sequence[ChosenDocuments]
    """Documents in the order they shall have."""
    manifest: DatasetManifest
    """What the files do not tell; counts, checksums and largest id are filled in."""
    file_numbers: Sequence[NDArray[np.int64]] | None
    """For each part the new number of each of its origin files; None: no origins are written."""


def assemble(
    assembly: Assembly,
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DatasetManifest:
    """Write the prefix `output`; return its manifest.

    Raises:
        PrefixExistsError, PrefixBusyError: as for a builder.
        CorruptIndexError, TruncatedDataError: an input is damaged.
        TokenRangeError: an input without manifest holds an id outside of the vocabulary.
        ManifestError: the counts of languages or sources do not add up.
        IndexedDatasetError: an input was replaced meanwhile.
        DiskFullError: no space left; the temporary files are removed.
    """
    files = UnfinishedPrefix(output, overwrite=overwrite)
    try:
        return _Assembler(assembly, files, progress).run()
    finally:
        files.abort()  # harmless after the commit


class _Assembler:
    def __init__(
        self, assembly: Assembly, files: UnfinishedPrefix, progress: Progress | None
    ) -> None:
        self._assembly, self._files, self._progress = assembly, files, progress
        self._datasets = [part.dataset for part in assembly.parts]
        self._dtype = np.dtype(assembly.manifest.dtype)
        self._done = self._total = 0

    def run(self) -> DatasetManifest:
        stamps = self._stamps()
        modal = {is_multimodal(d) for d in self._datasets if d.num_sequences}
        if len(modal) > 1:
            raise IndexedDatasetError(
                f"{self._files.prefix}: some of the datasets have sequence modes and some have "
                "none, and an index has them for all sequences or for none. Merge them apart"
            )
        index = GrowingIndex(self._files.paths.idx.parent, has_modes=True in modal)
        try:
            spans, origin_digest = self._write_shape(index)
            index_digest = self._write_index(index)
            counts = (index.num_documents, index.num_sequences, index.num_tokens)
        finally:
            index.close()
        streams = self._assembly.manifest.side_streams
        widths = [self._dtype.itemsize, *(np.dtype(s.dtype).itemsize for s in streams.values())]
        self._total = counts[2] * sum(widths)
        tokens = self._copy("bin", self._bin_sources(), spans, self._dtype)
        entries = {
            name: replace(
                entry,
                blocks=self._copy(
                    entry.suffix[1:],
                    self._stream_sources(name, entry),
                    spans,
                    np.dtype(entry.dtype),
                ).blocks,
            )
            for name, entry in streams.items()
        }
        if self._stamps() != stamps:
            raise IndexedDatasetError(
                f"a dataset that goes into {self._files.prefix} was replaced while it was read. "
                "Run the same command again when its writer is done"
            )
        manifest = replace(
            self._assembly.manifest,
            num_documents=counts[0],
            num_sequences=counts[1],
            num_tokens=counts[2],
            max_token_id=self._max_token_id(tokens),
            checksums=Checksums(bin=tokens.blocks, idx=index_digest, origin=origin_digest),
            side_streams=entries,
            gristmill=__version__,
        )
        for problem in manifest.wrong_sums():
            raise ManifestError(
                f"{self._files.paths.json} would be wrong: {problem}. A manifest of the inputs is "
                "wrong already: `gristmill verify` says which"
            )
        text = manifest.to_json()
        DatasetManifest.from_json(text, self._files.paths.json)  # readable, or an error now
        self._files.write("json", text.encode())
        self._files.commit()
        return manifest

    def _write_shape(self, index: GrowingIndex) -> tuple[NDArray[np.int64], str | None]:
        """Fill index and .origin; return int64[n, 3] (part, first token, tokens) and a digest."""
        digest = hashlib.blake2b(digest_size=16)
        numbers = self._assembly.file_numbers
        spans = [np.zeros((0, 3), np.int64)]
        for place, part in enumerate(self._assembly.parts):
            for chunk in read_chunks(part, with_origins=numbers is not None):
                with self._files.aborting("idx"):
                    index.append(chunk.lengths, chunk.counts, chunk.modes)
                runs = chunk.spans[chunk.spans[:, 1] > 0]
                found = np.column_stack([np.full(len(runs), place), runs])
                last = spans[-1]
                if len(last) and len(found):
                    source, start, length = last[-1]
                    if tuple(found[0, :2]) == (source, start + length):
                        last[-1, 2] += found[0, 2]  # one span goes on through all chunks
                        found = found[1:]
                if len(found):
                    spans.append(found)
                if numbers is not None and chunk.origins is not None:
                    rows = chunk.origins
                    known = numbers[place]
                    if len(rows) and not 0 <= rows[:, 0].min() <= rows[:, 0].max() < len(known):
                        raise IndexedDatasetError(
                            f"{prefix_paths(part.dataset.prefix).origin} names files that its "
                            "manifest does not list. Copy or write the dataset again"
                        )
                    rows[:, 0] = known[rows[:, 0]]
                    digest.update(rows.tobytes())
                    self._files.write("origin", rows.tobytes())
        if numbers is not None:
            self._files.write("origin", b"")
        return np.concatenate(spans), None if numbers is None else digest.hexdigest()

    def _write_index(self, index: GrowingIndex) -> str:
        digest = hashlib.blake2b(digest_size=16)

        def put(data: bytes) -> None:
            digest.update(data)
            self._files.write("idx", data)

        index.write(self._dtype, put)
        return digest.hexdigest()

    def _copy(
        self,
        kind: str,
        sources: Sequence[TokenSource],
        spans: NDArray[np.int64],
        dtype: np.dtype[Any],
    ) -> Copied:
        find_range = kind == "bin" and dtype.kind != "f" and not self._range_is_known()
        with self._files.aborting(kind):
            return copy_tokens(
                sources,
                spans,
                self._files.descriptor(kind),
                dtype,
                find_range=find_range,
                progress=self._advance,
            )

    def _advance(self, num_bytes: int) -> None:
        self._done += num_bytes
        if self._progress is not None:
            self._progress(self._done, self._total)

    def _range_is_known(self) -> bool:
        """Whether the manifests tell the largest id of exactly the documents that are copied."""
        return all(
            (part.first, part.stop, len(part.dropped)) == (0, part.dataset.num_documents, 0)
            and part.dataset.manifest is not None
            and part.dataset.manifest.max_token_id is not None
            for part in self._assembly.parts
            if part.dataset.num_tokens
        )

    def _max_token_id(self, copied: Copied) -> int | None:
        vocab_size = self._assembly.manifest.vocab_size
        if copied.low is not None and copied.high is not None:
            if vocab_size is not None and not 0 <= copied.low <= copied.high < vocab_size:
                raise TokenRangeError(
                    f"{self._files.paths.bin} would hold ids from {copied.low} to {copied.high}, "
                    f"but the vocabulary has {vocab_size}: an input was made with another "
                    "tokenizer, or altered. Leave it out"
                )
            return copied.high
        if not copied.blocks:
            return None
        known = [d.manifest.max_token_id for d in self._datasets if d.manifest and d.num_tokens]
        return max((value for value in known if value is not None), default=None)

    def _bin_sources(self) -> list[TokenSource]:
        return [
            TokenSource(
                path=prefix_paths(dataset.prefix).bin,
                dtype=dataset.dtype,
                num_tokens=dataset.num_tokens,
                blocks=_known_blocks(dataset, None),
            )
            for dataset in self._datasets
        ]

    def _stream_sources(self, name: str, entry: SideStreamEntry) -> list[TokenSource]:
        return [
            TokenSource(
                path=SideStream(dataset, name).path,  # which is there, and of the right size
                dtype=np.dtype(entry.dtype),
                num_tokens=dataset.num_tokens,
                blocks=_known_blocks(dataset, name),
            )
            for dataset in self._datasets
        ]

    def _stamps(self) -> list[tuple[int, int, int]]:
        """Return what changes when an input is replaced."""
        stats = [os.stat(prefix_paths(d.prefix).idx) for d in self._datasets]
        return [(s.st_ino, s.st_size, s.st_mtime_ns) for s in stats]


def _known_blocks(dataset: IndexedDataset, stream: str | None) -> tuple[str, ...]:
    manifest = dataset.manifest
    if manifest is None or manifest.checksums is None:
        return ()
    checksums = manifest.checksums
    if (checksums.algorithm, checksums.block_bytes) != KNOWN_BLOCKS:
        return ()
    return checksums.bin if stream is None else manifest.side_streams[stream].blocks
