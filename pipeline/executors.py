"""Where units of work run: units in, their results out as they finish.

`Executor` is the whole protocol. `LocalExecutor` runs units in this process (one worker) or in
spawned processes; `RayExecutor` (ray_executor.py) on the machines of a Ray cluster. The results do
not depend on which, nor on how many.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from .shards import Shard
from .worker import BYTES, ITEM, PROCESS, SLOT_SIZE, STARTED, advance, call, start_worker, use_slot

__all__ = ["Executor", "LocalExecutor", "advance", "count_workers"]

POLL_SECONDS = 0.25
"""How often the parent looks at the workers' progress."""

WAITING_UNITS = 2
"""Units handed out for each worker: the one under way and the next. The rest stay here, so that
ten thousand units cost no more memory, and no longer looks, than ten."""

GRACE_SECONDS = 3.0
"""Time that a worker has to remove its unfinished files when another unit failed."""


class WorkerDiedError(RuntimeError):
    """A worker ended without a result (killed, or out of memory); `indices` are what it was at."""

    def __init__(self, indices: Sequence[int] = ()) -> None:
        super().__init__(
            "a worker process was killed from outside (often: not enough memory). Finished "
            "units are kept: run the same command again, with fewer run.workers if memory "
            "was short"
        )
        self.indices = tuple(indices)


class UnitError(RuntimeError):
    """A unit of work failed; the message names the unit and what went wrong."""


@dataclass(frozen=True, slots=True)
class Running:
    """A unit that is under way."""

    index: int
    worker: str
    """Where: a process id, and the machine when it is another one."""
    started: float
    """Seconds since 1970."""


OnProgress = Callable[[int, Sequence[Running]], None]
"""Called a few times a second with the bytes of input done and the units under way."""


class Executor(Protocol):
    """Runs `function(item)` for every item, in any order, anywhere."""

    shard: Shard | None
    """The part of every stage's units that is done here; None: all."""
    max_failed_units: int
    """Units of a stage that may fail before the others are left."""

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        on_progress: OnProgress,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index of the item, result) as items finish.

        Raises:
            WorkerDiedError: what ran an item ended without a word; others may be unfinished too.
        """
        ...


def count_workers() -> int:
    """Return the number of CPUs this process may use: affinity, capped by the cgroup's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        if quota != "max":
            cpus = min(cpus, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no cgroup v2: affinity alone decides
    return max(1, cpus)


class LocalExecutor:
    """Runs units on this machine, with `workers` processes (0: one for each usable CPU)."""

    def __init__(
        self, workers: int = 0, *, shard: Shard | None = None, max_failed_units: int = 0
    ) -> None:
        if workers < 0:
            raise ValueError(
                f"run.workers is {workers}: it counts processes, so it must be 0 (one for each "
                "usable CPU) or more"
            )
        self.workers = workers or count_workers()
        self.shard, self.max_failed_units = shard, max_failed_units
        self._pool: ProcessPoolExecutor | None = None
        self._processes: list[Any] = []
        self._slots: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        # Taken now: after `shutdown` the pool no longer knows them.
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=error is None, cancel_futures=True)
        if error is not None:
            for process in processes:
                process.terminate()
            for process in processes:  # none must still write when the caller has stopped
                process.join(GRACE_SECONDS)
                process.kill()
                process.join()
        self._pool = None

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        on_progress: OnProgress,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as items finish; see `Executor`."""
        if self.workers == 1:
            yield from self._map_here(function, items, on_progress)
        else:
            yield from self._map_in_processes(function, items, on_progress)

    def _map_here(
        self, function: Callable[[Any], Any], items: Sequence[Any], on_progress: OnProgress
    ) -> Iterator[tuple[int, Any]]:
        slot = [0] * SLOT_SIZE
        state = {"next": 0.0, "index": 0, "started": 0.0}

        def tell() -> None:
            now = time.monotonic()
            if now >= state["next"]:
                state["next"] = now + POLL_SECONDS
                here = Running(int(state["index"]), str(os.getpid()), state["started"])
                on_progress(slot[BYTES], [here])

        use_slot(slot, tell)
        try:
            for index, item in enumerate(items):
                state |= {"index": index, "started": time.time()}
                tell()
                yield index, function(item)
        finally:
            use_slot(None)

    def _map_in_processes(
        self, function: Callable[[Any], Any], items: Sequence[Any], on_progress: OnProgress
    ) -> Iterator[tuple[int, Any]]:
        pool = self._open_pool()
        for place in range(0, len(self._slots), SLOT_SIZE):
            self._slots[place + ITEM] = self._slots[place + BYTES] = 0
        waiting: dict[Future[Any], int] = {}
        handed_out = 0
        try:
            while waiting or handed_out < len(items):
                room = WAITING_UNITS * self.workers - len(waiting)
                last = min(len(items), handed_out + room)
                with _without_interrupts():  # worker processes are started in here
                    for index in range(handed_out, last):
                        waiting[pool.submit(call, function, index, items[index])] = index
                handed_out = last
                self._processes = list((pool._processes or {}).values())
                with signals_held_back():
                    done, _ = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                    finished = sorted(done, key=_has_failed)  # what is finished counts first
                on_progress(*self._look())
                for future in finished:
                    with signals_held_back():
                        result = future.result()
                    yield waiting.pop(future), result
        except BrokenProcessPool as error:
            raise WorkerDiedError(self._bury()) from error

    def _open_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # spawn: forked children would inherit the locks of numba's and Arrow's threads.
            context = multiprocessing.get_context("spawn")
            self._slots = context.RawArray("q", SLOT_SIZE * self.workers)
            self._pool = ProcessPoolExecutor(
                self.workers,
                context,
                initializer=start_worker,
                initargs=(self._slots, context.Value("q", 0)),
            )
        return self._pool

    def _look(self) -> tuple[int, list[Running]]:
        """Return the bytes done and the units under way."""
        slots, places = self._slots, range(0, len(self._slots), SLOT_SIZE)
        running = [
            Running(
                slots[place + ITEM] - 1, str(slots[place + PROCESS]), slots[place + STARTED] / 1e9
            )
            for place in places
            if slots[place + ITEM]
        ]
        return sum(slots[place + BYTES] for place in places), running

    def _bury(self) -> list[int]:
        """Give up the broken pool; return the items that the dead workers were at."""
        _, running = self._look()
        assert self._pool is not None
        with signals_held_back():
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None
        codes = {str(process.pid): process.exitcode for process in self._processes}
        # The pool ends the others by SIGTERM, which they answer with status 1.
        dead = [one.index for one in running if codes.get(one.worker) not in (1, -signal.SIGTERM)]
        return dead or [one.index for one in running]


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Answer SIGINT and SIGTERM only when the block has ended.

    A handler that raises while `concurrent.futures` takes the locks of its futures leaves them
    taken, and the pool's own thread then waits for them forever.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    held: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in handlers:
        signal.signal(number, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    for late in held:
        signal.raise_signal(late)


def _has_failed(future: Future[Any]) -> bool:
    return future.cancelled() or future.exception() is not None


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold SIGINT back until the block ends; processes started in it never see one.

    Ctrl-C reaches every process of a terminal. The parent alone answers it and ends its workers:
    they would each print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
