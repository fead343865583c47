"""Small files of an object store, copied once: a URL in, a local path out.

Indices and manifests are looked at all the time and are small beside the tokens, so a process
reads its own copy. A copy's place is named by URL, size and version (ETag), so one that is there is
the right one, and one of an older version is never found again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from .atomic import DiskFullError, disk_full, is_disk_full
from .errors import CorruptIndexError
from .object_store import ObjectStoreError, StoredFile, list_files, read_range

COPY_BYTES = 8 << 20
"""Bytes asked for at a time while a file is copied."""


def cache_folder() -> Path:
    """Return where copies are kept: `GRISTMILL_CACHE_DIR`, else in the user's cache folder."""
    chosen = os.environ.get("GRISTMILL_CACHE_DIR")
    if chosen:
        return Path(chosen) / "objects"
    user_cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(user_cache) if user_cache else Path.home() / ".cache") / "gristmill" / "objects"


def local_copy(file: StoredFile, digest: str | None = None) -> Path:
    """Return the path of a local copy, made now if there is none.

    Args:
        file: as it was looked up.
        digest: blake2b of 16 bytes, as manifests have it, that a new copy is compared with.

    Raises:
        ObjectStoreError: the store does not answer, or the cache cannot be written.
        DiskFullError: no room for the copy.
        CorruptIndexError: it has another digest.
    """
    place = _digest(file.url, file.size_bytes, file.version)
    name = file.url.rpartition("/")[2]
    final = cache_folder() / place / name
    if final.is_file() and final.stat().st_size == file.size_bytes:
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: many ranks start at once, and each may come first.
        number, temporary = tempfile.mkstemp(prefix=".copy-", dir=final.parent)
        try:
            with os.fdopen(number, "wb") as copy:
                _copy(file, copy.fileno(), digest)
            os.replace(temporary, final)
        except BaseException:
            os.unlink(temporary)
            raise
    except (ObjectStoreError, DiskFullError, CorruptIndexError):
        raise
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(final, error) from error
        raise ObjectStoreError(
            f"{file.url} cannot be copied to {final.parent} ({error}). Set GRISTMILL_CACHE_DIR to "
            "a folder that can be written"
        ) from error
    return final


def local_folder(url: str) -> Path | None:
    """Return a local copy of a whole (small) folder; None if there is no such folder."""
    files = list_files(url)
    if not files:
        return None
    place = cache_folder() / _digest(
        url, *((f.url, f.size_bytes, f.version) for f in files.values())
    )
    for name, file in files.items():
        target = place / name
        if not target.is_file():
            copy = local_copy(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}-{os.getpid()}")
            temporary.unlink(missing_ok=True)
            os.link(copy, temporary)
            os.replace(temporary, target)
    return place


def _copy(file: StoredFile, descriptor: int, digest: str | None) -> None:
    found = hashlib.blake2b(digest_size=16)
    for start in range(0, file.size_bytes, COPY_BYTES):
        data = read_range(file, start, min(start + COPY_BYTES, file.size_bytes))
        found.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    if digest is not None and found.hexdigest() != digest:
        raise CorruptIndexError(
            f"{file.url} has the checksum {found.hexdigest()}, but its manifest says {digest}: one "
            "of them was altered or is of another dataset. Copy or write the dataset again"
        )


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
