"""A prefix in, everything that is wrong with it out.

Fast: sizes, every entry of the index, its checksum, the manifest's counts. Full: the tokens too,
that is checksums and the range of ids, block by block in threads. Opening a dataset does the
constant-time part of the fast check.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .errors import IndexedDatasetError
from .format import check_index_arrays
from .manifest import CHECKSUM_BLOCK_BYTES, DatasetManifest, file_digest
from .origins import read_origins
from .paths import prefix_paths
from .reader import IndexedDataset
from .side_streams import SideStream

_CHUNK_BYTES = 1 << 20
_MAX_THREADS = 8

Progress = Callable[[int], None]
"""Called with the bytes read since the last call, by one thread at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifyReport:
    """What `verify` looked at and found."""

    prefix: str
    """The prefix without suffix."""
    full: bool
    """Whether the tokens were read."""
    num_documents: int
    """Documents, 0 if the prefix does not open."""
    num_tokens: int
    """Tokens, 0 if the prefix does not open."""
    unchecked: tuple[str, ...]
    """What could not be checked, and why."""
    problems: tuple[str, ...]
    """Everything that is wrong; empty if all is well."""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def verify(
    prefix: str | os.PathLike[str],
    full: bool = False,
    *,
    tokenizer_fingerprint: str | None = None,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check a prefix; problems are listed, not raised.

    Args:
        prefix: path without suffix.
        full: read every token: checksums of all files and range of ids.
        tokenizer_fingerprint: of the tokenizer that the dataset is to be used with.
        progress: called with the bytes of tokens (and side streams) that were read since.
    """
    paths = prefix_paths(prefix)
    try:
        dataset = IndexedDataset(prefix)
    except (IndexedDatasetError, OSError) as error:
        return VerifyReport(
            prefix=os.fspath(paths.idx.with_suffix("")),
            full=full,
            num_documents=0,
            num_tokens=0,
            unchecked=("everything after opening",),
            problems=(str(error),),
        )
    problems: list[str] = []
    unchecked: list[str] = []
    try:
        check_index_arrays(
            dataset.sequence_lengths,
            dataset.sequence_pointers,
            dataset.document_indices,
            dataset.dtype.itemsize,
            paths.idx,
        )
    except IndexedDatasetError as error:
        problems.append(str(error))
    manifest = dataset.manifest
    if manifest is None:
        unchecked.append("checksums, vocabulary and tokenizer: there is no manifest")
    else:
        problems += _manifest_problems(manifest, paths.json, tokenizer_fingerprint)
        if manifest.checksums is None:
            unchecked.append("checksums: the manifest has none")
        problems += _side_stream_problems(dataset)
        problems += _file_problems(dataset, full=full)
    if full:
        problems += _content_problems(dataset, progress)
    else:
        unchecked.append("tokens: not read (full verification does)")
    return VerifyReport(
        prefix=dataset.prefix,
        full=full,
        num_documents=dataset.num_documents,
        num_tokens=dataset.num_tokens,
        unchecked=tuple(unchecked),
        problems=tuple(problems),
    )


def _manifest_problems(
    manifest: DatasetManifest, path: Path, tokenizer_fingerprint: str | None
) -> Iterator[str]:
    known = (manifest.tokenizer or {}).get("fingerprint")
    if tokenizer_fingerprint not in (None, known):
        yield (
            f"{path}: it was made with tokenizer {known}, not {tokenizer_fingerprint}: its ids "
            "mean other text. Use its own tokenizer"
        )
    if manifest.vocab_size is not None:
        for name, number in (("max_token_id", manifest.max_token_id), ("eod_id", manifest.eod_id)):
            if number is not None and number >= manifest.vocab_size:
                yield f"{path}: {name} {number} is not below vocab_size {manifest.vocab_size}"
    for problem in manifest.wrong_sums():
        yield f"{path}: {problem}"


def _side_stream_problems(dataset: IndexedDataset) -> Iterator[str]:
    for name in () if dataset.manifest is None else dataset.manifest.side_streams:
        try:
            SideStream(dataset, name)
        except (IndexedDatasetError, OSError) as error:
            yield str(error)


def _file_problems(dataset: IndexedDataset, *, full: bool) -> Iterator[str]:
    """Check the .idx, which was read anyway, and the .origin: its size, or all of it."""
    paths, manifest = prefix_paths(dataset.prefix), dataset.manifest
    if manifest is None or manifest.checksums is None:
        return
    known = [(paths.idx, manifest.checksums.idx)]
    if manifest.checksums.origin is not None:
        try:
            read_origins(paths.origin, dataset.num_documents, 0, 0)  # its size, and that it is one
        except (IndexedDatasetError, OSError) as error:
            yield str(error)
        else:
            known += [(paths.origin, manifest.checksums.origin)] * full
    for path, digest in known:
        actual = file_digest(path)
        if actual != digest:
            yield (
                f"{path} has checksum {actual}, the manifest says {digest}: it was altered. Copy "
                "or write the dataset again"
            )


def _content_problems(dataset: IndexedDataset, progress: Progress | None) -> Iterator[str]:
    """Read everything once."""
    paths, manifest = prefix_paths(dataset.prefix), dataset.manifest
    checksums = None if manifest is None else manifest.checksums
    size = dataset.num_tokens * dataset.dtype.itemsize
    block_bytes = CHECKSUM_BLOCK_BYTES if checksums is None else checksums.block_bytes
    expected = None if checksums is None else checksums.bin
    if expected is not None and -(-size // block_bytes) != len(expected):
        yield (
            f"{paths.bin}: {len(expected)} checksums in the manifest for {size} bytes in blocks of "
            f"{block_bytes}. The manifest is damaged: copy or write the dataset again"
        )
        block_bytes, expected = CHECKSUM_BLOCK_BYTES, None
    if block_bytes % dataset.dtype.itemsize:
        yield f"{paths.bin}: blocks of {block_bytes} bytes cut a token of {dataset.dtype.name}"
        return
    read = partial(_read_blocks, block_bytes=block_bytes, progress=progress)
    blocks = read(paths.bin, size, dataset.dtype)
    if manifest is not None and dataset.dtype.kind != "f":
        low, high = (
            min((b.low for b in blocks), default=0),
            max((b.high for b in blocks), default=-1),
        )
        yield from _range_problems(dataset, manifest, int(low), int(high))
    yield from _block_problems(paths.bin, expected, blocks, block_bytes)
    for entry in () if manifest is None else manifest.side_streams.values():
        path, dtype = Path(dataset.prefix + entry.suffix), np.dtype(entry.dtype)
        size = dataset.num_tokens * dtype.itemsize
        if path.exists() and path.stat().st_size == size:  # else it is a problem already
            found = read(path, size, dtype)
            yield from _block_problems(path, entry.blocks, found, block_bytes)


class _Block(NamedTuple):
    """What one block of a file is known by."""

    digest: str
    low: Any
    high: Any


def _read_blocks(
    path: Path, size: int, dtype: np.dtype[Any], *, block_bytes: int, progress: Progress | None
) -> list[_Block]:
    """Read a file block by block; the digests of several are made at the same time."""
    lock = threading.Lock()

    def read(start: int) -> _Block:
        digest, lows, highs = hashlib.blake2b(digest_size=16), [], []
        with open(path, "rb", buffering=0) as stream:
            for position in range(start, min(start + block_bytes, size), _CHUNK_BYTES):
                count = min(_CHUNK_BYTES, start + block_bytes - position, size - position)
                data = os.pread(stream.fileno(), count, position)
                if len(data) != count:
                    break  # cut off meanwhile: the digest will differ
                digest.update(data)
                values = np.frombuffer(data, dtype)
                lows.append(values.min())
                highs.append(values.max())
                if progress is not None:
                    with lock:
                        progress(count)
        return _Block(digest.hexdigest(), min(lows, default=0), max(highs, default=-1))

    num_threads = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(read, range(0, size, block_bytes)))


def _block_problems(
    path: Path, expected: tuple[str, ...] | None, found: list[_Block], block_bytes: int
) -> Iterator[str]:
    for number, block in enumerate(found):
        said = None if expected is None else expected[number] if number < len(expected) else "none"
        if said not in (None, block.digest):
            yield (
                f"{path}: block {number} (from byte {number * block_bytes}) has checksum "
                f"{block.digest}, the manifest says {said}: its bytes were altered. Copy or write "
                "the dataset again"
            )


def _range_problems(
    dataset: IndexedDataset, manifest: DatasetManifest, low: int, high: int
) -> Iterator[str]:
    path = prefix_paths(dataset.prefix).bin
    limit = manifest.vocab_size
    if limit is not None and (low < 0 or high >= limit):
        yield (
            f"{path}: ids go from {low} to {high}, but the vocabulary has {limit}. It was altered, "
            "or made with another tokenizer than the manifest says"
        )
    if dataset.num_tokens and manifest.max_token_id not in (None, high):
        yield f"{path}: the largest id is {high}, the manifest says {manifest.max_token_id}"
