"""Files of many prefixes, few of them open: a way to open one in, what is open out.

A blend may have thousands of prefixes, and a process may have 1,024 open files by default. So a
reader holds a `Reopenable` and asks it for the open file each time; when too many are open, those
that were not used lately are given up, and open again when they are used again. A memory map
counts as well: Python keeps a descriptor for it.

Giving up only drops a reference. Whoever reads at that moment holds another one, and the file is
closed when the last is gone: never under a reader, in whatever thread.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from .errors import IndexedDatasetError

Opened = TypeVar("Opened")

MOST_OPEN = 1024
"""More than this brings nothing: opening again takes microseconds on a local disk."""

_lock = threading.Lock()
_open: deque[weakref.ref[Reopenable[Any]]] = deque()  # those not used for longest in front


def open_for_reading(path: Path) -> int:
    """Return a descriptor of a regular file.

    Raises:
        FileNotFoundError: there is no such file.
        IndexedDatasetError: it is a folder, a pipe or a device, which could be waited for, or read
            from, without end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IndexedDatasetError(
            f"{path} is a folder, a pipe or a device, and not a file that could be read. Give the "
            "prefix of a .bin/.idx pair, or copy the dataset again"
        )
    return descriptor


class Descriptor:
    """A file open for reading at given positions; closed with its last reference."""

    __slots__ = ("number",)

    def __init__(self, path: Path) -> None:
        self.number = open_for_reading(path)

    def __del__(self) -> None:
        if hasattr(self, "number"):  # else it could not be opened
            os.close(self.number)


class Reopenable(Generic[Opened]):
    """A file that is open while it is used and there is room for it.

    Args:
        opener: opens it; called again after it was given up.
    """

    __slots__ = ("__weakref__", "_opened", "_opener", "_used")

    def __init__(self, opener: Callable[[], Opened]) -> None:
        self._opener = opener
        self._opened: Opened | None = None
        self._used = False

    def get(self) -> Opened:
        """Return the open file. Keep the reference while reading, and no longer."""
        self._used = True
        opened = self._opened
        return self._open_again() if opened is None else opened

    def close(self) -> None:
        """Give it up; the next `get` opens it again."""
        self._opened = None

    def _open_again(self) -> Opened:
        with _lock:
            _give_up(most_open_files() - 1)
        try:
            opened = self._opener()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            with _lock:  # the rest of the program has more open than was left to it
                _give_up(len(_open) // 2)
            opened = self._opener()
        with _lock:
            if self._opened is None:
                self._opened = opened
                _open.append(weakref.ref(self))
        return opened


def most_open_files() -> int:
    """Return how many files are held open: half of what the process may have, at most MOST_OPEN.

    Asked anew each time a file is opened, so a limit that is changed later counts.
    """
    try:
        import resource
    except ImportError:  # not Unix
        return MOST_OPEN // 4
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN if allowed == resource.RLIM_INFINITY else max(min(allowed // 2, MOST_OPEN), 1)


def _give_up(room: int) -> None:
    """Keep at most `room` files open; who was used since it was last looked at gets another turn.

    That is the clock algorithm (Corbato 1968): nearly the least recently used go, at the price of
    one assignment for each use.
    """
    while len(_open) > room:
        reference = _open.popleft()
        file = reference()
        if file is None or file._opened is None:
            continue
        if file._used:
            file._used = False
            _open.append(reference)
        else:
            file._opened = None


def _new_lock() -> None:
    """A forked process must not wait for a thread that it does not have."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
