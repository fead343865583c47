"""Units that fail: tried three times, set aside with their files' names, and tried again later."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gristmill import cli
from gristmill.pipeline import clean, dedup_run, unit_runs
from gristmill.pipeline.executors import UnitError
from gristmill.pipeline.run_status import load_states, outcome_of, show_status

from .small_runs import content, run, write_corpus

Break = Callable[[int], None]


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Return a function that lets reading of the file 3.jsonl fail so many times."""
    whole = clean.read_unit
    left = [0]

    def read(unit: Any) -> Iterator[Any]:
        for file, batch in whole(unit):
            if file.path.endswith("3.jsonl") and left[0]:
                left[0] -= 1
                raise OSError("the disk is worn out")
            yield file, batch

    def set_to(times: int) -> None:
        left[0] = times

    monkeypatch.setattr(clean, "read_unit", read)
    monkeypatch.setattr(unit_runs, "PAUSE_SECONDS", (0.0, 0.0))
    return set_to


def lines(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "work/log/units.jsonl").open()]


def shown(output: Path) -> tuple[int, str]:
    text = io.StringIO()
    status = show_status(output, console=Console(file=text, width=100))
    return status, text.getvalue()


def test_an_error_that_passes_is_tried_again(tmp_path: Path, breaking: Break) -> None:
    config = write_corpus(tmp_path / "in")
    breaking(2)

    report = run(config, tmp_path / "out", until="clean")

    assert report.set_aside == []
    tries = {line["unit"]: line["tries"] for line in lines(tmp_path / "out")}
    assert sorted(tries.values())[-2:] == [1, 3]


def test_the_run_goes_on_without_units_that_fail_three_times_and_a_later_one_has_them(
    tmp_path: Path, breaking: Break
) -> None:
    config = write_corpus(tmp_path / "in")
    run(config, tmp_path / "whole")
    breaking(10**9)

    report = run(config, tmp_path / "out", max_failed_units=10)

    files = [name for one in report.set_aside for name in one["files"]]
    assert files
    assert all("3.jsonl" in name for name in files)
    assert report.set_aside[0]["error"] == "OSError: the disk is worn out"
    assert report.total.documents_in == report.total.kept + sum(report.total.dropped.values())
    status, text = shown(tmp_path / "out")
    assert status == 3
    assert "finished without the units that failed" in text
    assert "the disk is worn out" in text
    breaking(0)
    again = run(config, tmp_path / "out", max_failed_units=10)
    assert again.set_aside == []
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_unit_that_fails_in_a_later_stage_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_corpus(tmp_path / "in")
    write_keys = dedup_run.write_keys

    def fail(arguments: Any) -> Any:
        if "3.jsonl" in str(arguments.keys):
            raise ValueError("these hashes are unlucky")
        return write_keys(arguments)

    monkeypatch.setattr(dedup_run, "write_keys", fail)
    report = run(config, tmp_path / "out", max_failed_units=10)

    assert {one["stage"] for one in report.set_aside} == {"keys"}
    left = [name for name in content(tmp_path / "out") if "3.jsonl" in name]
    assert all(name.startswith("work/set-aside/") for name in left), left


def test_more_failures_than_allowed_end_the_run(tmp_path: Path, breaking: Break) -> None:
    config = write_corpus(tmp_path / "in")
    breaking(10**9)

    with pytest.raises(UnitError, match=r"stage clean, unit .*3\.jsonl.*worn out"):
        run(config, tmp_path / "out", max_failed_units=0)

    assert shown(tmp_path / "out")[0] == 1


def test_the_exit_status_says_that_units_were_set_aside(
    tmp_path: Path, breaking: Break, capsys: pytest.CaptureFixture[str]
) -> None:
    write_corpus(tmp_path / "in")
    breaking(10**9)
    words = ["preprocess", str(tmp_path / "in"), "--output", str(tmp_path / "out")]

    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--until", "clean", "--workers", "1", "--clean.unit-bytes", "10000"])

    assert ended.value.code == 3
    assert "finished without 2 units that failed three times" in capsys.readouterr().err


def test_status_tells_a_finished_run_a_killed_one_and_no_run_apart(tmp_path: Path) -> None:
    config = write_corpus(tmp_path / "in", num_files=2)
    run(config, tmp_path / "out")

    status, text = shown(tmp_path / "out")
    assert status == 0
    assert "finished after" in text
    assert "tokenize" in text
    [state] = load_states(tmp_path / "out")
    state |= {"state": "running", "updated": time.time() - 60}
    assert outcome_of(state, tmp_path / "out")[1].startswith("killed: process")
    with pytest.raises(ValueError, match="is no output folder of gristmill preprocess"):
        show_status(tmp_path / "in")


def test_a_stopped_run_says_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = write_corpus(tmp_path / "in", num_files=2)

    def stop(arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(dedup_run, "write_keys", stop)
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "out")

    status, text = shown(tmp_path / "out")
    assert status == 1
    assert "stopped by a signal: stage keys: 0 of" in text
    assert "stopped in stage keys: 0 of" in caplog.text
