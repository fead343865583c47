"""Repair: PREFIX.bin and its manifest in, the lost or damaged PREFIX.idx out.

Documents end with the end-of-document id, so the index can be found again by looking for it. That
is a guess (a document may hold the id in its middle, be empty, or have several sequences), and it
is accepted only if it has the checksum that the manifest keeps: then it is the index, to the byte.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .commit import UnfinishedPrefix
from .errors import RepairError
from .format import MAX_SEQUENCE_TOKENS, storage_dtype
from .growing_index import GrowingIndex
from .manifest import DatasetManifest, file_digest
from .paths import prefix_paths

_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class RepairReport:
    """What `repair` found and did."""

    prefix: str
    """The prefix without suffix."""
    written: bool
    """Whether a new .idx was written; if not, the one that is there is right."""
    num_documents: int
    """Documents in it."""


def repair(
    prefix: str | os.PathLike[str], *, progress: Callable[[int, int], None] | None = None
) -> RepairReport:
    """Make PREFIX.idx again from PREFIX.bin, if it is missing or damaged.

    Args:
        prefix: path without suffix; .bin and .json must be there.
        progress: called with the bytes of the .bin that were read, and its size.

    Raises:
        RepairError: the manifest does not tell enough, or what was found is not the index that it
            describes.
        PrefixBusyError: another process is writing the prefix.
    """
    paths = prefix_paths(prefix)
    manifest = DatasetManifest.load(paths.json)
    if manifest is None or manifest.checksums is None or not manifest.checksums.idx:
        raise RepairError(
            f"{paths.json} is missing or has no checksums, so nobody could tell whether a new "
            "index is the right one. Copy the dataset again, or write it again"
        )
    name = os.fspath(paths.idx.with_suffix(""))
    if file_digest(paths.idx) == manifest.checksums.idx:
        return RepairReport(prefix=name, written=False, num_documents=manifest.num_documents)
    dtype = storage_dtype(manifest.dtype)
    _check_possible(manifest, paths.bin, dtype.itemsize)
    files = UnfinishedPrefix(prefix, overwrite=True)
    index = GrowingIndex(paths.idx.parent)
    try:
        _find_documents(index, paths.bin, manifest, progress)
        digest = hashlib.blake2b(digest_size=16)

        def put(data: bytes) -> None:
            digest.update(data)
            files.write("idx", data)

        index.write(dtype, put)
        if digest.hexdigest() != manifest.checksums.idx:
            raise RepairError(
                f"{paths.bin}: looking for the end-of-document id {manifest.eod_id} finds "
                f"{index.num_documents} documents, and the manifest counts "
                f"{manifest.num_documents}, but the index that this makes does not have the "
                "manifest's checksum: the id also stands inside documents, some are empty or have "
                "several sequences, or the .bin was altered. Nothing was written: copy or write "
                "the dataset again"
            )
        files.commit(only_index=True)
    finally:
        files.abort()
        index.close()
    return RepairReport(prefix=name, written=True, num_documents=manifest.num_documents)


def _check_possible(manifest: DatasetManifest, path: Path, itemsize: int) -> None:
    """Refuse early what cannot succeed."""
    remedy = "Nothing was written: copy or write the dataset again"
    if manifest.eod_id is None:
        raise RepairError(
            f"the manifest of {path} names no end-of-document id, so the ends of its documents "
            f"cannot be found. {remedy}"
        )
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise RepairError(f"there is no file {path}: its tokens are lost. {remedy}") from None
    if size != manifest.num_tokens * itemsize:
        raise RepairError(
            f"{path} has {size} bytes, but the manifest counts {manifest.num_tokens} tokens in "
            f"{manifest.num_tokens * itemsize}: it is cut off or of another dataset. {remedy}"
        )


def _find_documents(
    index: GrowingIndex,
    path: Path,
    manifest: DatasetManifest,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill `index` with a document for each end-of-document id, and for what follows the last."""
    total, position, last = manifest.num_tokens, 0, 0  # in tokens; `last`: end of a document
    dtype = storage_dtype(manifest.dtype)
    with open(path, "rb", buffering=0) as stream:
        while position < total:
            tokens = np.fromfile(stream, dtype, min(_CHUNK_BYTES // dtype.itemsize, total))
            if not len(tokens):
                raise RepairError(f"{path} was cut off while it was read. Nothing was written")
            ends = position + 1 + np.flatnonzero(tokens == manifest.eod_id)
            position += len(tokens)
            if position == total and (not len(ends) or ends[-1] < total):
                ends = np.append(ends, total)
            lengths = np.diff(ends, prepend=last)
            if len(lengths) and int(lengths.max()) > MAX_SEQUENCE_TOKENS:
                raise RepairError(
                    f"{path} has {int(lengths.max())} tokens without end-of-document id "
                    f"{manifest.eod_id}, more than a document can have. Nothing was written"
                )
            if len(ends):
                last = int(ends[-1])
            index.append(lengths.astype(np.int32), np.ones(len(lengths), np.int32))
            if progress is not None:
                progress(position * dtype.itemsize, total * dtype.itemsize)
