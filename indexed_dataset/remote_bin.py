"""A .bin in an object store: positions in, bytes out; ranges may be fetched before they are used.

`read_ahead.py` says what will be read; a range that was fetched is held until its last window was
taken. What nobody announced is a request of its own: right, but as slow as the store is far away.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from .object_store import StoredFile, read_range

REQUESTS = 16
"""Requests of a process that are under way at the same time."""
REQUEST_BYTES = 16 << 20
"""The largest range asked for in one request: what a broken connection makes again, at most."""

_pool: tuple[int, ThreadPoolExecutor] | None = None
_lock = threading.Lock()


class Range:
    """Bytes [start, stop) of one file, that windows lie in; fetched when it is `ask`ed for."""

    __slots__ = ("_future", "file", "start", "stop", "windows")

    def __init__(self, file: RemoteBin, start: int, stop: int) -> None:
        self.file = file
        self.start = start
        self.stop = stop
        self.windows = 1
        """Windows in it that are still to be read."""
        self._future: Future[bytes] | None = None

    @property
    def is_asked(self) -> bool:
        """Whether it can no longer grow."""
        return self._future is not None

    def ask(self) -> None:
        """Begin to fetch it, if that is not done."""
        if self._future is None:
            self._future = _threads().submit(read_range, self.file.stored, self.start, self.stop)

    def content(self) -> bytes:
        """Return its bytes, waiting for them."""
        self.ask()
        assert self._future is not None
        return self._future.result()

    def cancel(self) -> None:
        """Fetch it no longer, if it has not begun."""
        if self._future is not None:
            self._future.cancel()


class RemoteBin:
    """The tokens of one prefix in a store.

    Args:
        stored: the .bin, as it was looked up; another version of it is refused.
    """

    def __init__(self, stored: StoredFile) -> None:
        self.stored = stored
        self._ranges: list[Range] = []  # those that windows are still to be read from

    def announce(self, coming: Range) -> None:
        """Let `read` find this range."""
        self._ranges.append(coming)

    def forget(self, done: Range) -> None:
        """Hold a range no longer."""
        with contextlib.suppress(ValueError):  # two windows of a sample may lie in one range
            self._ranges.remove(done)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes [start, stop), from a range that was announced or by a request.

        Raises:
            ObjectStoreError: the store does not answer, or the file was replaced.
        """
        for one in self._ranges:
            if one.start <= start and stop <= one.stop:
                return one.content()[start - one.start : stop - one.start]
        parts = range(start, stop, REQUEST_BYTES)
        if len(parts) <= 1:
            return read_range(self.stored, start, stop)
        return b"".join(
            read_range(self.stored, part, min(part + REQUEST_BYTES, stop)) for part in parts
        )


def _threads() -> ThreadPoolExecutor:
    """Return the threads of this process; a forked one needs its own."""
    global _pool
    with _lock:
        if _pool is None or _pool[0] != os.getpid():
            _pool = os.getpid(), ThreadPoolExecutor(REQUESTS, thread_name_prefix="object-store")
        return _pool[1]


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
