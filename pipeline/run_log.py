"""What a run is doing, on disk: events in, a line of JSON for each unit and one small state out.

```
work/log/units.jsonl     a line for each unit that ended, of all runs in the folder; a piece of a
                         job array writes units.2-of-8.jsonl
work/log/status.json     the state of the last run (status.2-of-8.json), renewed while it works
```
A line has time, stage, unit, state (done, failed), tries, seconds, cpu_seconds, peak_bytes (largest
resident set of the worker so far), size_bytes (input), output_bytes, worker (host:process), error.
Nothing reads these files to decide anything: they may be deleted, and say nothing about the data.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from .shards import Shard

FOLDER = "work/log"

WRITE_SECONDS = 1.0
"""Least time between two writes of the state while a stage runs."""


class Page(Protocol):
    """What else shows the state."""

    def show(self, state: Mapping[str, Any], *, now: bool = False) -> None:
        """Show it; `now`: a stage begins, or the run ends."""
        ...


class RunLog:
    """Writes the log of one call; without a folder it writes nothing.

    Args:
        output: folder of the run.
        shard: the piece of a job array that this call is.
        page: shown whatever the state is, as it changes.
    """

    def __init__(
        self, output: Path | None = None, shard: Shard | None = None, page: Page | None = None
    ) -> None:
        self._page = page
        self._folder = output / FOLDER if output is not None else None
        self._mark = f".{shard.number}-of-{shard.count}" if shard else ""
        self._stages: dict[str, dict[str, Any]] = {}
        self._now: dict[str, Any] | None = None
        self._next_write = 0.0
        self._state: dict[str, Any] = {
            "piece": str(shard) if shard else "",
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "started": time.time(),
            "state": "running",
            "message": "",
            "running": [],
            "failed": [],
        }

    def begin_stage(
        self, name: str, *, units: int, skipped: int, others: int, size_bytes: int
    ) -> None:
        """Note that a stage begins: units to do, done before, left to other pieces."""
        known = self._stages.get(name)
        if units == 0 and known is not None and not others:
            return  # looked at again, and found as it was
        self._stages[name] = self._now = {
            "name": name,
            "units": units,
            "skipped": skipped,
            "others": others,
            "done": 0,
            "failed": 0,
            "size_bytes": size_bytes,
            "bytes_done": 0,
            "started": time.time(),
            "ended": None,
        }
        self._write(now=units > 0)

    def progress(self, num_bytes: int, running: Sequence[Mapping[str, Any]]) -> None:
        """Note the bytes of input done in the stage, and what is under way."""
        if self._now is not None:
            self._now["bytes_done"] = num_bytes
        self._state["running"] = list(running)
        self._write()

    def unit_ended(self, line: Mapping[str, Any]) -> None:
        """Add the line of a unit that is done or has failed."""
        failed = line["state"] == "failed"
        if self._now is not None:
            self._now["failed" if failed else "done"] += 1
        if failed:
            self._state["failed"].append({key: line[key] for key in ("stage", "unit", "error")})
        if self._folder is not None:
            with contextlib.suppress(OSError):  # a full disk is told by what matters
                self._folder.mkdir(parents=True, exist_ok=True)
                with (self._folder / f"units{self._mark}.jsonl").open("a") as file:
                    file.write(json.dumps({"time": time.time(), **line}) + "\n")
        self._write(now=failed)

    def end_stage(self) -> None:
        """Note that the stage has ended, well or not."""
        if self._now is not None and self._now["ended"] is None:
            self._now["ended"] = time.time()
        self._now, self._state["running"] = None, []
        self._write()

    def say(self, state: str, message: str = "") -> None:
        """Note how the run stands: running, waiting, finished, incomplete, failed or stopped."""
        self._state |= {"state": state, "message": message}
        self._write(now=True)

    def progress_so_far(self) -> str:
        """Return where the run is, in a few words; empty before its first stage."""
        if not self._stages:
            return ""
        stage = list(self._stages.values())[-1]
        done, units = stage["done"] + stage["skipped"], stage["units"] + stage["skipped"]
        return f"stage {stage['name']}: {done:,} of {units:,} units done"

    def _write(self, *, now: bool = False) -> None:
        if self._folder is None or (not now and time.monotonic() < self._next_write):
            return
        self._next_write = time.monotonic() + WRITE_SECONDS
        state = self._state | {"updated": time.time(), "stages": list(self._stages.values())}
        if self._page is not None:
            self._page.show(state, now=now)
        path = self._folder / f"status{self._mark}.json"
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Not synced, and under one fixed name: after a crash an old state is as good as none.
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
            temporary.replace(path)
