"""What the user sees while a stage runs: bytes done in, a bar or plain lines out.

On a terminal a bar with rate and remaining time; elsewhere (a log file, a batch system) one line
every few seconds, so that a log stays readable.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
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

PLAIN_SECONDS = 10.0
"""Seconds between two lines when the output is not a terminal."""


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

    @contextlib.contextmanager
    def stage(
        self, name: str, total_bytes: int, *, num_units: int, num_skipped: int
    ) -> Iterator[Bar]:
        """Show one stage from its first byte to its last."""
        if self.quiet:
            yield _Silent()
            return
        finished = f"{num_skipped} finished units skipped" if num_skipped else ""
        if num_units == 0:
            self.console.print(f"{name:<10} already done ({finished})", highlight=False)
            yield _Silent()
            return
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description:<10}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[units]}"),
            )
            with RichProgress(*columns, console=self.console) as rich:
                task = rich.add_task(name, total=max(total_bytes, 1), units=f"0/{num_units} units")
                yield _RichBar(rich, task, num_units)
                rich.update(task, completed=max(total_bytes, 1))
            return
        lines = _Lines(self.console, name, total_bytes, num_units, finished)
        yield lines
        lines.finish()


class _Silent:
    def update(self, num_bytes: int) -> None:
        pass

    def unit_done(self) -> None:
        pass


class _RichBar:
    def __init__(self, rich: RichProgress, task: TaskID, num_units: int) -> None:
        self._rich, self._task, self._num_units, self._done = rich, task, num_units, 0

    def update(self, num_bytes: int) -> None:
        self._rich.update(self._task, completed=num_bytes)

    def unit_done(self) -> None:
        self._done += 1
        self._rich.update(self._task, units=f"{self._done}/{self._num_units} units")


class _Lines:
    def __init__(
        self, console: Console, name: str, total_bytes: int, num_units: int, note: str
    ) -> None:
        self._console, self._name, self._total = console, name, total_bytes
        self._num_units, self._done = num_units, 0
        self._started = self._last = time.monotonic()
        suffix = f", {note}" if note else ""
        console.print(
            f"{name:<10} {num_units} units, {total_bytes / 1e6:.1f} MB{suffix}", highlight=False
        )

    def update(self, num_bytes: int) -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_SECONDS:
            return
        self._last = now
        rate = num_bytes / (now - self._started)
        remaining = (self._total - num_bytes) / rate if rate > 0 else 0.0
        share = 100 * num_bytes / self._total if self._total else 100.0
        self._console.print(
            f"{self._name:<10} {share:5.1f} %  "
            f"{num_bytes / 1e6:.1f} of {self._total / 1e6:.1f} MB  "
            f"{rate / 1e6:.2f} MB/s  ETA {max(0.0, remaining):.0f} s  "
            f"({self._done}/{self._num_units} units)",
            highlight=False,
        )
        sys.stderr.flush()

    def unit_done(self) -> None:
        self._done += 1

    def finish(self) -> None:
        seconds = time.monotonic() - self._started
        rate = self._total / seconds / 1e6 if seconds > 0 else 0.0
        self._console.print(
            f"{self._name:<10} done in {seconds:.1f} s ({rate:.2f} MB/s)", highlight=False
        )
