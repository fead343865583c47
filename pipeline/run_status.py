"""A folder of a run in, a page of what was done, is being done and failed out: `gristmill status`.

It reads the small states that each call leaves in work/log (`run_log.py`), and asks the locks
whether a call still lives: a run that was killed had no time to say so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .progress import size_text, time_text
from .run_lock import is_locked
from .run_log import FOLDER

WATCH_SECONDS = 2.0
FRESH_SECONDS = 5.0
"""A state as young as this was written by a call that lives."""

MAX_FAILED_ROWS = 10

FINISHED, AT_WORK, STOPPED, WITHOUT_UNITS = "finished", "at work", "stopped", "without units"
STAGE_COLUMNS = ("stage", "units", "failed", "input", "rate", "time", "ETA")
_STATUS = {FINISHED: 0, AT_WORK: 0, STOPPED: 1, WITHOUT_UNITS: 3}


def show_status(output: Path, *, watch: bool = False, console: Console | None = None) -> int:
    """Print how a run stands; return the exit status.

    Args:
        output: output folder of `preprocess`.
        watch: print again until nothing is at work any more.
        console: where it goes; standard output by default.

    Raises:
        ValueError: the folder is none of a run.
    """
    console = console or Console()
    while True:
        states = load_states(output)
        if watch and console.is_terminal:
            console.clear()
        outcomes = [_show(state, output, console) for state in states]
        if AT_WORK not in outcomes or not watch:
            break
        time.sleep(WATCH_SECONDS)
    order = (AT_WORK, FINISHED, WITHOUT_UNITS, STOPPED)
    # Any call that finished has seen all units done, those of other pieces too.
    final = min(outcomes, key=order.index) if outcomes else STOPPED
    return _STATUS[final]


def load_states(output: Path) -> list[dict[str, Any]]:
    """Return the state of the last run, or of each piece of a job array.

    Raises:
        ValueError: there is none.
    """
    paths = sorted((output / FOLDER).glob("status*.json"))
    states: list[dict[str, Any]] = []
    for path in paths:
        try:
            states.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError:
            continue  # a crash of the machine damaged it
    if not states:
        raise ValueError(
            f"{output} is no output folder of gristmill preprocess: there is no state of a run in "
            f"{output / FOLDER}. Name the folder that was given as --output"
        )
    whole = [state for state in states if not state["piece"]]
    pieces = [state for state in states if state["piece"]]
    # A call without --shard that came after the pieces stands for all of them.
    newest = max((state["started"] for state in pieces), default=0.0)
    if whole and whole[0]["started"] >= newest:
        return whole
    return pieces


def outcome_of(state: dict[str, Any], output: Path) -> tuple[str, str]:
    """Return how a call ended, or that it has not, and a line that says so."""
    who = f"process {state['pid']} on {state['host']}"
    said, message = state["state"], state["message"]
    if said in ("running", "waiting"):
        is_alive = time.time() - state["updated"] < FRESH_SECONDS or is_locked(
            output, state["piece"]
        )
        if not is_alive:
            age = time_text(time.time() - state["updated"])
            return STOPPED, f"killed: {who} was last heard of {age} ago. Run it again to go on"
        what = "waiting for other pieces" if said == "waiting" else "running"
        return AT_WORK, f"{what} ({who}, for {time_text(time.time() - state['started'])})"
    if said == "finished":
        if state["failed"]:
            return WITHOUT_UNITS, "finished without the units that failed"
        return FINISHED, f"finished after {time_text(state['updated'] - state['started'])}"
    words = {"incomplete": "ended, others are missing", "stopped": "stopped by a signal"}
    return STOPPED, f"{words.get(said, said)}: {message}. Run it again to go on"


def _show(state: dict[str, Any], output: Path, console: Console) -> str:
    outcome, line = outcome_of(state, output)
    title = f"{output}" + (f", piece {state['piece']}" if state["piece"] else "")
    console.print(f"[bold]{title}[/bold]: {line}", highlight=False, soft_wrap=True)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in STAGE_COLUMNS:
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for stage in state["stages"]:
        table.add_row(*stage_cells(stage, outcome == AT_WORK))
    console.print(table)
    if outcome == AT_WORK:
        for one in state["running"]:
            seconds = time_text(time.time() - one["started"])
            worker = f"process {one['worker']}" if one["worker"].isdigit() else one["worker"]
            console.print(f"  {one['unit']}: {seconds} in {worker}", highlight=False)
    for failed in state["failed"][:MAX_FAILED_ROWS]:
        console.print(
            f"  failed: {failed['unit']} in stage {failed['stage']}: {failed['error']}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    if len(state["failed"]) > MAX_FAILED_ROWS:
        more = len(state["failed"]) - MAX_FAILED_ROWS
        console.print(f"  and {more} more in {output / FOLDER}/units.jsonl", highlight=False)
    return outcome


def stage_cells(stage: Mapping[str, Any], at_work: bool) -> list[str]:
    """Return what is shown of a stage, under STAGE_COLUMNS."""
    done = stage["done"] + stage["skipped"]
    whole = stage["units"] + stage["skipped"] + stage["others"]
    is_running = at_work and stage["ended"] is None
    seconds = (stage["ended"] or time.time()) - stage["started"]
    size, past = stage["size_bytes"], stage["bytes_done"]
    if stage["ended"] is not None and stage["done"] == stage["units"]:
        past = size
    rate = past / seconds if seconds > 0 else 0.0
    eta = time_text((size - past) / rate) if is_running and rate > 0 else ""
    return [
        stage["name"],
        f"{done:,} of {whole:,}",
        f"{stage['failed']:,}" if stage["failed"] else "",
        size_text(size) if stage["units"] else "",
        f"{size_text(rate)}/s" if rate and stage["units"] else "",
        time_text(seconds) if stage["units"] else "done before",
        eta,
    ]
