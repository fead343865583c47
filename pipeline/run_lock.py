"""Who may work in an output folder: a call in, its locks held until it ends.

One whole run, or the pieces of one job array with the same settings. Locks are the system's
(flock), so a killed run leaves none behind.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..indexed_dataset.atomic import disk_full, is_disk_full
from .shards import Shard

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def only_run(output: Path, shard: Shard | None = None, settings: str = "") -> Iterator[None]:
    """Hold the output folder's lock, so that two runs never write the same files.

    Args:
        output: the output folder; made where it is missing.
        shard: the piece of a job array; pieces share the folder.
        settings: fingerprint of the configuration, which the pieces must have in common.

    Raises:
        ValueError: another run works there, or the folder cannot be written to.
    """
    with contextlib.ExitStack() as held:
        lock = held.enter_context(_open(output / "work" / "lock", output))
        if shard is None:
            if not _take(lock, fcntl.LOCK_EX):
                raise _busy(output, lock)
        else:
            if not _take(lock, fcntl.LOCK_SH):
                raise _busy(output, lock)
            _join_array(output, shard, settings, held)
        _sign(lock, shard)
        yield


def is_locked(output: Path, shard: str = "") -> bool:
    """Say whether a run (or the piece "2/8" of one) works in the folder, on any machine."""
    name = f"lock.piece.{shard.replace('/', '-of-')}" if shard else "lock"
    try:
        with (output / "work" / name).open("r") as file:
            return not _take(file, fcntl.LOCK_SH)
    except OSError:
        return False


def _join_array(output: Path, shard: Shard, settings: str, held: contextlib.ExitStack) -> None:
    work = output / "work"
    own = f"lock.array.{shard.count}-{settings[:12]}"
    for path in work.glob("lock.array.*"):
        if path.name == own:
            continue
        with path.open("a+") as file:
            if not _take(file, fcntl.LOCK_EX):
                raise ValueError(
                    f"pieces of another job array are working in {output}: of another number than "
                    f"{shard.count}, or with other settings, so that units would be done twice or "
                    "never. Wait for them, or use another --output"
                )
        path.unlink(missing_ok=True)
    if not _take(held.enter_context(_open(work / own, output)), fcntl.LOCK_SH):
        raise ValueError(f"{work / own} is locked for a moment by another piece: try again")
    piece = held.enter_context(_open(work / f"lock.piece.{shard.number}-of-{shard.count}", output))
    if not _take(piece, fcntl.LOCK_EX):
        raise ValueError(
            f"piece {shard} is already working in {output} (process {_reader(piece)}): each number "
            "is for one call at a time"
        )
    _sign(piece, None)


def _open(path: Path, output: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path, error) from error
        why = error.strerror or str(error)
        if output.exists() and not output.is_dir():
            why = "it is a file"
        raise ValueError(
            f"cannot write to the output folder {output}: {why}. Choose another --output"
        ) from error


def _take(file: IO[str], kind: int) -> bool:
    """Take a lock, if nobody is in the way; a file system without locks has nobody."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
            raise
        logger.info("%s: this file system has no locks (%s)", file.name, error)
    return True


def _busy(output: Path, lock: IO[str]) -> ValueError:
    return ValueError(
        f"another run (process {_reader(lock)}) is working in {output}: two runs would overwrite "
        "each other. Wait for it, or use another --output"
    )


def _reader(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "unknown"


def _sign(file: IO[str], shard: Shard | None) -> None:
    file.truncate(0)
    file.write(str(os.getpid()) + (f", piece {shard}" if shard else ""))
    file.flush()
