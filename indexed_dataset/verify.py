"""A prefix in, everything that is wrong with it out.

Fast: header, sizes, every entry of the index, the manifest's counts. Full: the tokens too, that is
checksums and the range of ids. Opening a dataset does the constant-time part of the fast check.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import IndexedDatasetError
from .format import check_index_arrays
from .manifest import BlockHasher, Checksums, DatasetManifest
from .paths import prefix_paths
from .reader import IndexedDataset

_CHUNK_BYTES = 8 << 20


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
) -> VerifyReport:
    """Check a prefix; problems are listed, not raised.

    Args:
        prefix: path without suffix.
        full: read every token: checksums of all files and range of ids.
        tokenizer_fingerprint: of the tokenizer that the dataset is to be used with.
    """
    paths = prefix_paths(prefix)
    try:
        dataset = IndexedDataset(prefix)
    except IndexedDatasetError as error:
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
    if full:
        problems += _content_problems(dataset)
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


def _content_problems(dataset: IndexedDataset) -> Iterator[str]:
    """Read everything once."""
    paths, manifest = prefix_paths(dataset.prefix), dataset.manifest
    checksums = None if manifest is None else manifest.checksums
    hasher = BlockHasher(max((checksums or Checksums()).block_bytes, 1))
    lows, highs = [0], [-1]
    for chunk in _chunks(paths.bin):
        hasher.update(chunk)
        tokens = np.frombuffer(chunk, dtype=dataset.dtype)
        lows.append(tokens.min())
        highs.append(tokens.max())
    if manifest is not None and dataset.dtype.kind != "f":
        yield from _range_problems(dataset, manifest, int(min(lows)), int(max(highs)))
    if checksums is None:
        return
    found = hasher.hexdigests()
    if len(found) != len(checksums.bin):
        yield f"{paths.bin}: {len(found)} blocks, but the manifest has {len(checksums.bin)}"
    for block, (said, digest) in enumerate(zip(checksums.bin, found, strict=False)):
        if said != digest:
            yield (
                f"{paths.bin}: block {block} (from byte {block * checksums.block_bytes}) has "
                f"checksum {digest}, the manifest says {said}: its bytes were altered. Copy or "
                "write the dataset again"
            )
    for path, expected in ((paths.idx, checksums.idx), (paths.origin, checksums.origin)):
        if expected is None:
            continue
        actual = _file_digest(path)
        if actual != expected:
            state = "is missing" if actual is None else f"has checksum {actual}"
            yield (f"{path} {state}, the manifest says {expected}. Copy or write the dataset again")


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


def _file_digest(path: Path) -> str | None:
    digest = hashlib.blake2b(digest_size=16)
    try:
        for chunk in _chunks(path):
            digest.update(chunk)
    except FileNotFoundError:
        return None
    return digest.hexdigest()


def _chunks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
