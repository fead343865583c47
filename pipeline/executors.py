"""Where units of work run: units in, their results out as they finish.

`Executor` is the whole protocol. `LocalExecutor` runs units in this process (one worker) or in
spawned processes; the results do not depend on which, nor on how many.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

POLL_SECONDS = 0.25
"""How often the parent looks at the workers' progress."""


GRACE_SECONDS = 3.0
"""Time that a worker has to remove its unfinished files when another unit failed."""


class WorkerDiedError(RuntimeError):
    """A worker process ended without a result (killed, or out of memory)."""


class UnitError(RuntimeError):
    """A unit of work failed; the message names the unit and what went wrong."""


class Executor(Protocol):
    """Runs `function(item)` for every item, in any order, anywhere."""

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        on_progress: Callable[[int], None],
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index of the item, result) as items finish; call `on_progress(bytes done)`."""
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


class _Progress:
    """Bytes of input that this process has worked through, shared with the parent."""

    counter: Any = None

    @classmethod
    def add(cls, num_bytes: int) -> None:
        if cls.counter is not None:
            with cls.counter.get_lock():
                cls.counter.value += num_bytes


def advance(num_bytes: int) -> None:
    """Report that `num_bytes` more of the unit's input are done (called inside a unit)."""
    _Progress.add(num_bytes)


class _EndedError(BaseException):
    """Raised in a unit whose worker is to end: the unit's unfinished files are removed."""


class _Work:
    """What this worker process is doing."""

    in_unit = False


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    """Run a unit in a worker."""
    try:
        _Work.in_unit = True
        return function(item)
    except _EndedError:
        os._exit(1)
    finally:
        _Work.in_unit = False


def _end_worker(*_: Any) -> None:
    """Answer SIGTERM, with which the parent ends its workers."""
    if not _Work.in_unit:
        os._exit(1)
    raise _EndedError


def _start_worker(counter: Any) -> None:
    """Prepare a spawned worker: one thread for every library, and an end with the parent."""
    _Progress.counter = counter
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        # A worker waits on its queue forever when the parent is killed; it must not go on
        # writing beside the run that is started next.
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, _end_worker)
    _limit_threads()


def _limit_threads() -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import pyarrow

    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)


class LocalExecutor:
    """Runs units on this machine, with `workers` processes (0: one for each usable CPU)."""

    def __init__(self, workers: int = 0) -> None:
        if workers < 0:
            raise ValueError(
                f"run.workers is {workers}: it counts processes, so it must be 0 (one for each "
                "usable CPU) or more"
            )
        self.workers = workers or count_workers()
        self._pool: ProcessPoolExecutor | None = None
        self._counter: Any = None

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
        on_progress: Callable[[int], None],
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as items finish; see `Executor`."""
        if self.workers == 1:
            yield from self._map_here(function, items, on_progress)
        else:
            yield from self._map_in_processes(function, items, on_progress)

    def _map_here(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        on_progress: Callable[[int], None],
    ) -> Iterator[tuple[int, Any]]:
        previous = _Progress.counter
        _Progress.counter = _CallingCounter(on_progress)
        try:
            for index, item in enumerate(items):
                yield index, function(item)
        finally:
            _Progress.counter = previous

    def _map_in_processes(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        on_progress: Callable[[int], None],
    ) -> Iterator[tuple[int, Any]]:
        if self._pool is None:
            # spawn: forked children would inherit the locks of numba's and Arrow's threads.
            context = multiprocessing.get_context("spawn")
            self._counter = context.Value("q", 0)
            self._pool = ProcessPoolExecutor(
                self.workers, context, initializer=_start_worker, initargs=(self._counter,)
            )
        self._counter.value = 0
        try:
            with _without_interrupts():  # worker processes are started in here
                waiting: dict[Future[Any], int] = {
                    self._pool.submit(_call, function, item): index
                    for index, item in enumerate(items)
                }
            while waiting:
                with signals_held_back():
                    done, _ = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                    finished = sorted(done, key=_has_failed)  # what is finished counts first
                on_progress(self._counter.value)
                for future in finished:
                    with signals_held_back():
                        result = future.result()
                    yield waiting.pop(future), result
        except BrokenProcessPool as error:
            raise WorkerDiedError(
                "a worker process was killed from outside (often: not enough memory). Finished "
                "units are kept: run the same command again, with fewer run.workers if memory "
                "was short"
            ) from error


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


class _CallingCounter:
    """Looks like a shared counter, and calls back at most a few times a second."""

    def __init__(self, on_progress: Callable[[int], None]) -> None:
        self.value = 0
        self._on_progress = on_progress
        self._lock = _CallingLock(self)
        self._next_call = 0.0

    def get_lock(self) -> _CallingLock:
        return self._lock

    def call(self) -> None:
        now = time.monotonic()
        if now >= self._next_call:
            self._next_call = now + POLL_SECONDS
            self._on_progress(self.value)


class _CallingLock:
    def __init__(self, counter: _CallingCounter) -> None:
        self._counter = counter

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._counter.call()
