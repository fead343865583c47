"""While a run works, report.html says so; then the report takes its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gristmill.pipeline import recipe
from gristmill.pipeline.running_page import RunningPage, render_running
from gristmill.pipeline.unit_runs import UnitsFailedError

from .small_runs import run, write_corpus

STAGE = {
    "name": "clean", "units": 4, "skipped": 1, "others": 0, "done": 2, "failed": 0,
    "size_bytes": 4_000_000, "bytes_done": 2_000_000, "started": 100.0, "ended": None,
}  # fmt: skip
STATE = {
    "state": "running", "message": "", "host": "here", "pid": 7, "updated": 110.0,
    "stages": [STAGE], "running": [], "failed": [],
}  # fmt: skip


def test_the_page_says_that_the_run_is_under_way_and_loads_itself_again() -> None:
    page = render_running(STATE, None).decode()

    assert "This run is under way" in page
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "<td>clean</td><td>3 of 5</td>" in page
    assert "<script" not in page


def test_a_run_that_failed_says_why_and_does_not_load_itself_again() -> None:
    state = STATE | {
        "state": "failed",
        "message": "no <room> left",
        "failed": [{"stage": "clean", "unit": "a<b", "error": "cannot & will not"}],
    }

    page = render_running(state, None).decode()

    assert "This run has not finished" in page
    assert "refresh" not in page
    for words in ("no &lt;room&gt; left", "a&lt;b", "cannot &amp; will not"):
        assert words in page


def test_counts_come_as_the_stages_end_and_the_report_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_corpus(tmp_path / "in", num_files=2)
    pages: list[str] = []
    show = RunningPage.show

    def noted(self: RunningPage, state: dict[str, object], *, now: bool = False) -> None:
        show(self, state, now=now)
        if (tmp_path / "out/report.html").exists():
            pages.append((tmp_path / "out/report.html").read_text())

    monkeypatch.setattr(RunningPage, "show", noted)
    run(config, tmp_path / "out")

    under_way = [page for page in pages if "This run is under way" in page]
    assert "Documents so far" not in under_way[0]
    assert re.search(r"After the stage dedup: 80 documents in, \d+ of them kept", under_way[-1])
    assert "What became of" in (tmp_path / "out/report.html").read_text()

    report = (tmp_path / "out/report.html").stat().st_mtime_ns
    run(config, tmp_path / "out")  # finds all done
    assert (tmp_path / "out/report.html").stat().st_mtime_ns == report


def test_a_run_that_fails_leaves_a_page_that_says_so_until_it_has_gone_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_corpus(tmp_path / "in", num_files=2)

    def fail(*_: object) -> None:
        raise RuntimeError("the machine went away")

    monkeypatch.setattr(recipe.pack, "pack_prefix", fail)
    with pytest.raises(UnitsFailedError):
        run(config, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert "the machine went away" in page
    assert "This run has not finished" in page

    monkeypatch.undo()
    run(config, tmp_path / "out")
    run(config, tmp_path / "fresh")
    assert (tmp_path / "out/report.html").read_bytes() == (
        tmp_path / "fresh/report.html"
    ).read_bytes()
