"""A finished file of tokens becomes a prefix: tokens and lengths in, a whole prefix out.

For writers that can be killed and go on: they append tokens to a file of their own, with a journal
beside it, and no token is copied when they are done. The .bin is a second name (a hard link) of
that file; where the file system has none, it is copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from .commit import UnfinishedPrefix
from .errors import IndexedDatasetError, ManifestError
from .growing_index import GrowingIndex
from .manifest import Checksums, DatasetManifest


def adopt_tokens(
    prefix: str | Path,
    tokens: Path,
    documents: Iterable[tuple[NDArray[np.int32], NDArray[np.int64]]],
    blocks: tuple[str, ...],
    manifest: DatasetManifest,
    *,
    overwrite: bool = False,
    empty_documents: Literal["no_sequence", "empty_sequence"] = "no_sequence",
) -> DatasetManifest:
    """Make a prefix of a file of tokens, one sequence a document; return its manifest.

    Args:
        prefix: path without suffix.
        tokens: the tokens of all documents back to back, in the manifest's dtype. It may be
            removed afterwards, and must not be written to.
        documents: chunks of (int32[n], tokens of each document; int64[n, 2], its origin).
        blocks: digest of each block of the tokens, see `BlockHasher`.
        manifest: dtype and what the files do not tell; counts and checksums are filled in.
        overwrite: replace an existing dataset.
        empty_documents: as for `IndexedDatasetBuilder`.

    Raises:
        PrefixExistsError, PrefixBusyError: as for a builder.
        IndexedDatasetError: the lengths do not add up to the file's tokens.
        DiskFullError: no space left; the temporary files are removed.
    """
    dtype = np.dtype(manifest.dtype)
    files = UnfinishedPrefix(prefix, overwrite=overwrite)
    index = GrowingIndex(files.paths.idx.parent)
    origin_digest, index_digest = (hashlib.blake2b(digest_size=16) for _ in range(2))
    try:
        for lengths, origins in documents:
            counts = np.ones(len(lengths), np.int32)
            if empty_documents == "no_sequence":
                counts[lengths == 0] = 0
                lengths = lengths[lengths > 0]
            with files.aborting("idx"):
                index.append(lengths, counts)
            rows = np.ascontiguousarray(origins, "<i8").tobytes()
            origin_digest.update(rows)
            files.write("origin", rows)
        num_bytes = index.num_tokens * dtype.itemsize
        if num_bytes != tokens.stat().st_size:
            raise IndexedDatasetError(
                f"{tokens} has {tokens.stat().st_size} bytes, but its documents add up to "
                f"{num_bytes}: it was altered. Remove it and write the tokens again"
            )

        def put(data: bytes) -> None:
            index_digest.update(data)
            files.write("idx", data)

        index.write(dtype, put)
        files.adopt("bin", tokens)
        manifest = replace(
            manifest,
            num_documents=index.num_documents,
            num_sequences=index.num_sequences,
            num_tokens=index.num_tokens,
            checksums=Checksums(
                bin=blocks, idx=index_digest.hexdigest(), origin=origin_digest.hexdigest()
            ),
            gristmill=__version__,
        )
        for problem in manifest.wrong_sums():
            raise ManifestError(f"{files.paths.json} would be wrong: {problem}")
        text = manifest.to_json()
        DatasetManifest.from_json(text, files.paths.json)  # readable, or an error now
        files.write("json", text.encode())
        files.commit()
    finally:
        files.abort()  # harmless after the commit
        index.close()
    return manifest
