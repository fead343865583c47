"""The files of a prefix while it is written: bytes in, a whole prefix or none out.

Files grow under temporary names. The others are renamed first and the .idx last, and when a prefix
is replaced its old .idx goes first: a prefix opens by its .idx, so a kill at any moment leaves the
old prefix, none, or the whole new one. The lock on the temporary .idx, held from
the first byte to the last rename and dropped by the system on a kill, keeps other writers out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import logging
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .atomic import TEMPORARY_MARK, disk_full, is_disk_full, sync_folder
from .errors import IndexedDatasetError, PrefixBusyError, PrefixExistsError
from .paths import prefix_paths, strip_suffix

logger = logging.getLogger(__name__)

_KINDS = re.compile(r"bin|json|origin|[a-z][a-z0-9_]*\.side")
"""Files beside the .idx, by what follows `PREFIX.` in their names."""

_MARK = f"{TEMPORARY_MARK}build"
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
        self._files: dict[str, BinaryIO] = {}
        self._refuse_existing()
        self.paths.idx.parent.mkdir(parents=True, exist_ok=True)
        self._files["idx"] = self._lock_index()
        try:
            self._refuse_existing()  # another writer may have finished before we had the lock
            self._files["idx"].truncate(0)  # what a killed writer left
            for kind in self._kinds_on_disk(_MARK):
                self._temporary(kind).unlink(missing_ok=True)
        except BaseException:
            self.abort()
            raise

    @property
    def is_open(self) -> bool:
        """Whether it can still be written to: neither committed nor aborted."""
        return bool(self._files)

    def write(self, kind: str, data: bytes | memoryview) -> None:
        """Append to the file `PREFIX.kind`.

        Raises:
            DiskFullError: no space left; the temporary files are removed, as on any error here,
                since nothing may follow half a document.
        """
        with self.aborting(kind):
            self._stream(kind).write(data)

    def descriptor(self, kind: str) -> int:
        """Return the file `PREFIX.kind`, open for writing at any position (inside `aborting`)."""
        return self._stream(kind).fileno()

    def adopt(self, kind: str, path: Path) -> None:
        """Let a finished file be `PREFIX.kind` as well, without a copy where links are possible."""
        with self.aborting(kind):
            temporary = self._temporary(kind)
            try:
                os.link(path, temporary)
            except OSError as error:
                if is_disk_full(error):
                    raise
                shutil.copyfile(path, temporary)
            self._files[kind] = temporary.open("ab", buffering=_BUFFER_BYTES)

    def commit(self, *, only_index: bool = False) -> None:
        """Let the prefix appear, with every file that was written to.

        Args:
            only_index: the other files of the prefix stay as they are.
        """
        for kind in ("idx",) if only_index else ("bin", "idx"):
            self.write(kind, b"")  # an empty dataset has an empty .bin
        for kind, stream in self._files.items():
            with self.aborting(kind):
                stream.flush()
                os.fsync(stream.fileno())
        with self.aborting("idx"):
            folder = self.paths.idx.parent
            self._refuse_existing()
            if not only_index:
                self._replace_all_but_the_index(folder)
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

    def _replace_all_but_the_index(self, folder: Path) -> None:
        self.paths.idx.unlink(missing_ok=True)
        sync_folder(folder)
        for kind in self._kinds_on_disk(""):
            if kind not in self._files:
                self._final(kind).unlink(missing_ok=True)
        for kind in self._files:
            if kind != "idx":
                os.replace(self._temporary(kind), self._final(kind))
        sync_folder(folder)

    def _kinds_on_disk(self, mark: str) -> list[str]:
        """Return what stands between `PREFIX.` and `mark` in the names of its other files."""
        stem = f"{self.prefix}."
        names = glob.glob(f"{glob.escape(stem)}*{mark}")
        kinds = [name[len(stem) : len(name) - len(mark)] for name in names]
        return sorted(kind for kind in kinds if _KINDS.fullmatch(kind))

    def _stream(self, kind: str) -> BinaryIO:
        if not self._files:
            raise IndexedDatasetError(
                f"{self.prefix}: this builder is finished or was aborted. Make a new one"
            )
        if kind not in self._files:
            self._files[kind] = self._temporary(kind).open("wb", buffering=_BUFFER_BYTES)
        return self._files[kind]

    @contextlib.contextmanager
    def aborting(self, kind: str) -> Iterator[None]:
        """Remove what is unfinished when the block fails, and explain a full disk."""
        try:
            yield
        except BaseException as error:
            self.abort()
            if is_disk_full(error):
                raise disk_full(self._final(kind), error) from error
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

    def _final(self, kind: str) -> Path:
        return Path(f"{self.prefix}.{kind}")

    def _temporary(self, kind: str) -> Path:
        return Path(f"{self.prefix}.{kind}{_MARK}")

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
