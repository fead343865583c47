"""The files of a prefix while it is written: bytes in, a whole prefix or none out.

Files grow under temporary names. The .bin, .origin and .json are renamed first and the .idx last,
and when a prefix is replaced its old .idx goes first: a prefix opens by its .idx, so a kill at any
moment leaves the old prefix, none, or the whole new one. The lock on the temporary .idx, held from
the first byte to the last rename and dropped by the system on a kill, keeps other writers out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from .atomic import TEMPORARY_MARK, disk_full, is_disk_full, sync_folder
from .errors import IndexedDatasetError, PrefixBusyError, PrefixExistsError
from .paths import prefix_paths, strip_suffix

logger = logging.getLogger(__name__)

FileKind = Literal["bin", "idx", "json", "origin"]

_BUFFER_BYTES = 4 << 20


class UnfinishedPrefix:
    """Temporary files of one prefix, locked against other writers.

    Args:
        prefix: path without suffix; its folder is made if needed.
        overwrite: whether an existing prefix may be replaced at the end.

    Raises:
        PrefixExistsError: the prefix exists and `overwrite` is false.
        PrefixBusyError: another process is writing it.
    """

    def __init__(self, prefix: str | os.PathLike[str], *, overwrite: bool) -> None:
        self.prefix = strip_suffix(prefix)
        self.paths = prefix_paths(prefix)
        self._overwrite = overwrite
        self._files: dict[FileKind, BinaryIO] = {}
        self._refuse_existing()
        self.paths.idx.parent.mkdir(parents=True, exist_ok=True)
        self._files["idx"] = self._lock_index()
        try:
            self._refuse_existing()  # another writer may have finished before we had the lock
            self._files["idx"].truncate(0)  # what a killed writer left
            for kind in ("bin", "json", "origin"):
                self._temporary(kind).unlink(missing_ok=True)
        except BaseException:
            self.abort()
            raise

    @property
    def is_open(self) -> bool:
        """Whether it can still be written to: neither committed nor aborted."""
        return bool(self._files)

    def write(self, kind: FileKind, data: bytes | memoryview) -> None:
        """Append to one of the files.

        Raises:
            DiskFullError: no space left; the temporary files are removed, as on any error here,
                since nothing may follow half a document.
        """
        if not self._files:
            raise IndexedDatasetError(
                f"{self.prefix}: this builder is finished or was aborted. Make a new one"
            )
        with self._aborting(kind):
            if kind not in self._files:
                self._files[kind] = self._temporary(kind).open("wb", buffering=_BUFFER_BYTES)
            self._files[kind].write(data)

    def commit(self) -> None:
        """Let the prefix appear, with every file that was written to."""
        for kind in ("bin", "idx"):
            self.write(kind, b"")  # an empty dataset has an empty .bin
        for kind, stream in self._files.items():
            with self._aborting(kind):
                stream.flush()
                os.fsync(stream.fileno())
        with self._aborting("idx"):
            folder = self.paths.idx.parent
            self._refuse_existing()
            self.paths.idx.unlink(missing_ok=True)
            sync_folder(folder)
            for kind in ("bin", "origin", "json"):
                if kind in self._files:
                    os.replace(self._temporary(kind), getattr(self.paths, kind))
                else:
                    getattr(self.paths, kind).unlink(missing_ok=True)
            sync_folder(folder)
            os.replace(self._temporary("idx"), self.paths.idx)
            sync_folder(folder)
        self._close()

    def abort(self) -> None:
        """Remove the temporary files; the prefix stays as it was. Harmless after `commit`."""
        for kind in self._files:  # all are removed while the lock is still held
            self._temporary(kind).unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        for stream in self._files.values():
            with contextlib.suppress(OSError):  # its last bytes may not fit on a full disk
                stream.close()
        self._files = {}

    @contextlib.contextmanager
    def _aborting(self, kind: FileKind) -> Iterator[None]:
        """Remove what is unfinished when the block fails, and explain a full disk."""
        try:
            yield
        except BaseException as error:
            self.abort()
            if is_disk_full(error):
                raise disk_full(getattr(self.paths, kind), error) from error
            raise

    def _refuse_existing(self) -> None:
        if self._overwrite:
            return
        # A .bin alone is in the way, unless a temporary .idx shows that a killed writer left it.
        is_leftover = not self.paths.idx.exists() and self._temporary("idx").exists()
        found = [path.name for path in (self.paths.idx, self.paths.bin) if path.exists()]
        if found and not is_leftover:
            raise PrefixExistsError(
                f"the dataset {self.prefix} exists already ({', '.join(found)}), and nothing was "
                "written. Choose another prefix, remove its files, or allow overwriting"
            )

    def _temporary(self, kind: FileKind) -> Path:
        final: Path = getattr(self.paths, kind)
        return final.with_name(f"{final.name}{TEMPORARY_MARK}build")

    def _lock_index(self) -> BinaryIO:
        """Open the temporary .idx and hold its lock."""
        path = self._temporary("idx")
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                    logger.info("%s: this file system has no locks (%s)", self.prefix, error)
                else:
                    os.close(descriptor)
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        raise
                    raise PrefixBusyError(
                        f"the dataset {self.prefix} is being written by another process. Wait for "
                        "it, or choose another prefix"
                    ) from None
            # Between open and lock another writer may have finished and renamed this very file.
            if path.exists() and os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return os.fdopen(descriptor, "r+b", buffering=_BUFFER_BYTES)
            os.close(descriptor)
