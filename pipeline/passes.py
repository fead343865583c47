"""A run, from its first stage to its last as often as it takes: units in, its result out.

What is done is skipped, so to begin again costs little more than a look at the markers. It is the
one answer to units that failed (again without them) and to pieces of a job array that wait for each
other (again when others have done more): no stage need know of either.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from .executors import Executor
from .progress import Progress
from .run_log import RunLog
from .set_aside import load_set_aside, note_failures
from .shards import PiecesMissingError
from .unit_runs import UnitsFailedError
from .units import ReadUnit

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often a piece that waits looks for the markers that it misses."""

Result = TypeVar("Result")


class _Run(Protocol):
    @property
    def output(self) -> Path: ...
    @property
    def executor(self) -> Executor: ...
    @property
    def progress(self) -> Progress: ...


def in_passes(
    once: Callable[[Sequence[ReadUnit]], Result],
    units: Sequence[ReadUnit],
    run: _Run,
    wait_seconds: float,
) -> Result:
    """Call `once` until it is through; return its result.

    Raises:
        UnitsFailedError: more units failed than may, or one that is no unit of reading.
        PiecesMissingError: other pieces have not done theirs within `wait_seconds`.
    """
    output, log = run.output, run.progress.log
    waiting_until = time.monotonic() + wait_seconds
    with _saying_once():
        while True:
            aside = load_set_aside(output)
            try:
                return once([unit for unit in units if unit.name not in aside])
            except UnitsFailedError as failed:
                if len(aside) + len(failed.failures) > run.executor.max_failed_units:
                    raise
                for one in note_failures(failed, units, output):
                    logger.warning("set aside after three failures: %s", one)
            except PiecesMissingError as missing:
                if time.monotonic() >= waiting_until:
                    raise
                log.say("waiting", str(missing))
                _wait(missing.missing, waiting_until)
                log.say("running")


def _wait(missing: Sequence[Path], until: float) -> None:
    """Wait for the next of these markers; once in a while return without one."""
    there = [path.exists() for path in missing]
    until = min(until, time.monotonic() + 30 * LOOK_SECONDS)
    while time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
        if any(path.exists() != was for path, was in zip(missing, there, strict=True)):
            return


@contextlib.contextmanager
def noting_the_end(log: RunLog) -> Iterator[None]:
    """Let the log say how the run ended."""
    try:
        yield
    except PiecesMissingError as missing:
        log.say("incomplete", str(missing))
        raise
    except KeyboardInterrupt:
        where = log.progress_so_far()
        log.say("stopped", where)
        if where:
            logger.warning("stopped in %s", where)
        raise
    except BaseException as error:
        log.say("failed", str(error) or type(error).__name__)
        raise
    log.say("finished")


@contextlib.contextmanager
def _saying_once() -> Iterator[None]:
    """Keep what was logged in an earlier pass from being said again."""
    said: set[str] = set()

    def is_new(record: Any) -> bool:
        text = record.getMessage()
        is_known = text in said
        said.add(text)
        return not is_known

    handlers = logging.getLogger().handlers[:]
    for handler in handlers:
        handler.addFilter(is_new)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_new)
