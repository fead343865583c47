"""Units in, what became of each out: done with its result, or failed three times with its reason.

A unit that raises is tried again where it is. One whose worker died (killed, out of memory) is
tried again alone, when the others are done, so that it neither takes them along nor is blamed for
what two large ones needed together.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..indexed_dataset.atomic import DiskFullError, disk_full, is_disk_full
from .executors import Executor, OnProgress, UnitError, WorkerDiedError
from .worker import bytes_done, rewind

TRIES = 3
"""A unit that fails so often is given up."""

UNIT_BYTES = 1_400_000_000
"""Memory that a worker stays below, whatever the input: batches of 16 MB of text, longest texts of
64 MB and a tokenizer's caches (measured on 277 MB of text in 400 languages: 0.9 to
1.0 GB in each of two workers, 1.26 GB with one worker, which has the parent's part as well)."""

PAUSE_SECONDS = (0.5, 5.0)
"""Waited before the second and third try, where the error is one of a file system or network."""


class RunsUnit(Protocol):
    """What a unit of a stage is here."""

    @property
    def name(self) -> str:
        """Unique in the stage."""
        ...

    @property
    def arguments(self) -> Any:
        """What the stage's function gets."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Memory that it may need."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """A unit on its way to a worker."""

    stage: str
    function: Callable[[Any], Any]
    unit: RunsUnit

    @property
    def memory_bytes(self) -> int:
        """Memory to be asked for."""
        return self.unit.memory_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a worker sends back."""

    result: Any = None
    error: str = ""
    """Why it failed; empty: it did not."""
    tries: int = 1
    started: float = 0.0
    """Seconds since 1970."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    """Largest resident set of the worker so far."""
    worker: str = ""


class UnitsFailedError(UnitError):
    """Units failed three times; `failures` are (unit, reason), and the others are done."""

    def __init__(self, stage: str, failures: Sequence[tuple[str, str]]) -> None:
        self.stage, self.failures = stage, tuple(failures)
        unit, reason = failures[0]
        more = f" (and {len(failures) - 1} more units failed)" if len(failures) > 1 else ""
        super().__init__(f"stage {stage}, unit {unit}: {reason}{more}")


def run_unit(work: Work) -> Outcome:
    """Run a unit, up to three times (in a worker)."""
    before, started = bytes_done(), time.time()
    clock, cpu = time.perf_counter(), time.process_time()
    result, reason, tries = None, "", 0
    while tries < TRIES:
        tries += 1
        try:
            result, reason = work.function(work.unit.arguments), ""
            break
        except (DiskFullError, KeyboardInterrupt):
            raise
        except Exception as error:
            if is_disk_full(error):
                where = error.filename or f"unit {work.unit.name} of stage {work.stage}"
                raise disk_full(where, error) from error
            reason = f"{type(error).__name__}: {error}"
            rewind(before)
            if isinstance(error, OSError) and tries < TRIES:
                time.sleep(PAUSE_SECONDS[tries - 1])
    return Outcome(
        result=result,
        error=reason,
        tries=tries,
        started=started,
        seconds=time.perf_counter() - clock,
        cpu_seconds=time.process_time() - cpu,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        worker=f"{os.uname().nodename}:{os.getpid()}",
    )


def outcomes(
    executor: Executor, works: Sequence[Work], on_progress: OnProgress
) -> Iterator[tuple[int, Outcome]]:
    """Yield (index, outcome) of every unit; workers that die are replaced.

    Raises:
        WorkerDiedError: workers die though they have nothing to do.
    """
    batches = deque([list(range(len(works)))])
    deaths: Counter[int] = Counter()
    idle_deaths = 0
    while batches:
        batch = batches.popleft()
        left = set(batch)
        try:
            for place, outcome in executor.map(
                run_unit, [works[index] for index in batch], _renumbered(on_progress, batch)
            ):
                left.discard(batch[place])
                yield batch[place], outcome
        except WorkerDiedError as death:
            suspects = sorted({batch[place] for place in death.indices} & left)
            idle_deaths += not suspects
            if idle_deaths >= TRIES:
                raise
            deaths.update(suspects)
            for index in suspects:
                if deaths[index] >= TRIES:
                    yield index, Outcome(error=str(death), tries=TRIES, started=time.time())
            rest = [index for index in batch if index in left and index not in suspects]
            batches.extend([rest] if rest else [])
            batches.extend([index] for index in suspects if deaths[index] < TRIES)


def _renumbered(on_progress: OnProgress, batch: Sequence[int]) -> OnProgress:
    """Let progress of a batch name its units by their places in the whole."""

    def tell(num_bytes: int, running: Any) -> None:
        on_progress(
            num_bytes,
            [type(one)(batch[one.index], one.worker, one.started) for one in running],
        )

    return tell
