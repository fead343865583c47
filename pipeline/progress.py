"""What the user sees while a stage runs: bytes done in, a bar or plain lines out.

On a terminal a bar with rate and remaining time; elsewhere (a log file, a batch system) one line
every few seconds, so that a log stays readable.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from .run_log import RunLog

PLAIN_SECONDS = 10.0
"""Least time between two lines when the output is not a terminal; it grows with the stage's time,
so that a day's log can still be read."""

MAX_PLAIN_SECONDS = 300.0

NAME_WIDTH = len("train_tokenizer")


class Bar(Protocol):
    """Progress of one running stage."""

    def update(self, num_bytes: int) -> None:
        """Show that `num_bytes` of the stage's input are done."""
        ...

    def unit_done(self) -> None:
        """Count one more finished unit."""
        ...


class Progress:
    """Shows stages as they run, on standard error; `quiet` shows nothing."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet
        self.log = RunLog()
        """Where units are noted down; by default nowhere."""
        self._skipped: set[str] = set()

    @contextlib.contextmanager
    def stage(
        self, name: str, total_bytes: int, *, num_units: int, num_skipped: int
    ) -> Iterator[Bar]:
        """Show one stage from its first byte to its last."""
        if self.quiet:
            yield _Silent()
            return
        finished = f"{_units(num_skipped)} done before" if num_skipped else ""
        if num_units == 0:
            note = f"already done ({_units(num_skipped)})" if num_skipped else "nothing to do"
            if name not in self._skipped:  # a piece that waits for others looks again and again
                self._line(name, note)
                self._skipped.add(name)
            yield _Silent()
            return
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=10),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[units]}"),
            )
            with RichProgress(*columns, console=self.console) as rich:
                total = total_bytes or None  # a stream: nobody knows how long it is
                task = rich.add_task(name.ljust(NAME_WIDTH), total=total, units=f"0/{num_units}")
                yield _RichBar(rich, task, num_units, total)
                if total:
                    rich.update(task, completed=total)
            return
        lines = _Lines(self._line, name, total_bytes, num_units, finished)
        yield lines
        lines.finish()

    def _line(self, name: str, text: str) -> None:
        self.console.print(f"{name:<{NAME_WIDTH}} {text}", highlight=False, soft_wrap=True)
        self.console.file.flush()


class _Silent:
    def update(self, num_bytes: int) -> None:
        pass

    def unit_done(self) -> None:
        pass


class _RichBar:
    def __init__(self, rich: RichProgress, task: TaskID, num_units: int, total: int | None) -> None:
        self._rich, self._task, self._num_units, self._done = rich, task, num_units, 0
        self._total = total

    def update(self, num_bytes: int) -> None:
        done = num_bytes if self._total is None else min(num_bytes, self._total)
        self._rich.update(self._task, completed=done)

    def unit_done(self) -> None:
        self._done += 1
        self._rich.update(self._task, units=f"{self._done}/{self._num_units}")


class _Lines:
    def __init__(
        self,
        line: Callable[[str, str], None],
        name: str,
        total_bytes: int,
        num_units: int,
        note: str,
    ) -> None:
        self._line, self._name, self._total = line, name, total_bytes
        self._num_units, self._done = num_units, 0
        self._started = time.monotonic()
        self._next = self._started + PLAIN_SECONDS
        suffix = f" ({note})" if note else ""
        line(name, f"{_units(num_units)}, {size_text(total_bytes)}{suffix}")

    def update(self, num_bytes: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        seconds = now - self._started
        self._next = now + min(max(PLAIN_SECONDS, seconds / 10), MAX_PLAIN_SECONDS)
        units = f"{self._done} of {_units(self._num_units)} done"
        if self._total == 0:  # a stream: nobody knows how long it is
            self._line(self._name, f"{size_text(num_bytes)} after {time_text(seconds)}, {units}")
            return
        num_bytes = min(num_bytes, self._total)
        if num_bytes == self._total:  # training goes on for a while after its last text
            self._line(self._name, f"all read, still at work after {time_text(seconds)}, {units}")
            return
        share = 100 * num_bytes / self._total
        rate = num_bytes / seconds
        is_known = num_bytes > 0 and (share >= 1 or seconds > 60)
        remaining = time_text((self._total - num_bytes) / rate) if is_known else "unknown"
        whole, speed = size_text(self._total), size_text(rate)
        self._line(self._name, f"{share:3.0f} % of {whole}, {speed}/s, ETA {remaining}, {units}")

    def unit_done(self) -> None:
        self._done += 1

    def finish(self) -> None:
        seconds = time.monotonic() - self._started
        rate = f" ({size_text(self._total / seconds)}/s)" if seconds > 0 and self._total else ""
        self._line(self._name, f"done in {time_text(seconds)}{rate}")


def _units(count: int) -> str:
    return f"{count:,} unit" if count == 1 else f"{count:,} units"


def size_text(num_bytes: float) -> str:
    """Return a size as people read it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:,.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def time_text(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h"
