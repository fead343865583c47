"""The state of a run and its counts so far in; report.html, until the report itself is there, out.

The page stands where the finished report will, loads itself again every few seconds and says what
`gristmill status` says. It is written once a stage has something to do, so a run that finds all
done leaves the report as it is; pieces of a job array, which know only of themselves, write none.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..indexed_dataset.atomic import write_lightly
from .report import Report
from .report_page import OPEN_ROWS, environment
from .report_pages import PAGE
from .run_status import STAGE_COLUMNS, stage_cells

REFRESH_SECONDS = 5
"""Time after which a browser loads the page again, and least time between two writes."""


class RunningPage:
    """Writes the page of one run; `counts` are set as stages bring them."""

    def __init__(self, output: Path) -> None:
        self.counts: Report | None = None
        self._output = output
        self._is_shown = self._is_over = False
        self._next_write = 0.0

    def show(self, state: Mapping[str, Any], *, now: bool = False) -> None:
        """Write the page, if the run has something to do and the last time is a while ago."""
        is_at_work = any(stage["units"] for stage in state["stages"])
        if self._is_over or not is_at_work:
            return
        if not now and time.monotonic() < self._next_write:
            return
        self._next_write = time.monotonic() + REFRESH_SECONDS
        with contextlib.suppress(OSError):  # a full disk is told by what matters
            if not self._is_shown:  # from now on that marker would vouch for another page
                (self._output / "work" / "pages" / "pages.json").unlink(missing_ok=True)
                self._is_shown = True
            write_lightly(self._output / PAGE, render_running(state, self.counts))

    def end(self) -> None:
        """Write it no more: the report comes."""
        self._is_over = True


def render_running(state: Mapping[str, Any], counts: Report | None) -> bytes:
    """Return the page.

    Args:
        state: of the run, as `run_log` keeps it.
        counts: what became of the documents so far; None: not known yet.
    """
    is_running = state["state"] in ("running", "waiting")
    languages = sorted(
        counts.languages.items() if counts else (),
        key=lambda item: (-item[1].documents_in, item[0]),
    )
    text = (
        environment()
        .get_template("running.html.jinja")
        .render(
            state=state,
            is_running=is_running,
            refresh_seconds=REFRESH_SECONDS,
            updated=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state["updated"])),
            columns=STAGE_COLUMNS,
            stages=[stage_cells(stage, is_running) for stage in state["stages"]],
            counts=counts,
            languages=languages[:OPEN_ROWS],
            num_more=len(languages) - OPEN_ROWS,
        )
    )
    return text.encode()
