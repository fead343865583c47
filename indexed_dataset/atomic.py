"""Files that appear whole or not at all: bytes in, one renamed and synced file out.

A reader never sees half a file: the writer fills `NAME.tmp-PID`, syncs it, renames it over NAME
and syncs the folder. A kill leaves at most a temporary file, which the next writer of the same
name removes.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

TEMPORARY_MARK = ".tmp-"
"""Stands in the name of every unfinished file, between the final name and the process id."""


class DiskFullError(OSError):
    """The file system has no room left for a file that was being written."""

    def __str__(self) -> str:
        return str(self.args[-1])  # without the error's number


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well.

    On an error the temporary file is removed and `path` is as it was before.

    Raises:
        DiskFullError: no space left; names the file and says how to go on.
    """
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(final)
    temporary = final.with_name(f"{final.name}{TEMPORARY_MARK}{os.getpid()}")
    try:
        yield temporary
        sync_file(temporary)
        os.replace(temporary, final)
        sync_folder(final.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(final, error) from error
        raise


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` so that it appears whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_lightly(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` so that other processes see it whole or not at all.

    Nothing is forced to the disk, and the folder, which may hold a hundred thousand files, is not
    looked through: for small files that a reader checks and can do without. A crash of the machine
    may lose or damage the file; what a kill leaves has one name, which the next write takes.

    Raises:
        DiskFullError: no space left.
    """
    final = Path(path)
    temporary = final.with_name(f"{final.name}{TEMPORARY_MARK}light")
    try:
        try:
            temporary.write_bytes(content)
        except FileNotFoundError:
            final.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
        os.replace(temporary, final)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(final, error) from error
        raise


def is_disk_full(error: BaseException) -> TypeGuard[OSError]:
    """Say whether an error means that a file did not fit: disk, quota or file size limit."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, OSError) and error.errno in full


def disk_full(path: Path | str, error: OSError) -> DiskFullError:
    """Return the error that says what to do when `path` does not fit on its file system."""
    what = {
        errno.EDQUOT: "the disk quota is used up",
        errno.EFBIG: "the limit of a file's size is reached (ulimit -f)",
    }.get(error.errno or 0, "no space left")
    return DiskFullError(
        error.errno,
        f"{what} while writing {path}: the unfinished file was removed and every finished "
        "file is kept. Free space (or choose another output folder) and run the same command "
        "again: it goes on where it stopped",
    )


def remove_leftovers(final: Path) -> None:
    """Remove temporary files that a killed writer of `final` left behind."""
    pattern = glob.escape(str(final)) + TEMPORARY_MARK + "*"
    for name in glob.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def sync_file(path: Path) -> None:
    """Force the file's bytes to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Force the folder's entries (a rename) to the disk."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
