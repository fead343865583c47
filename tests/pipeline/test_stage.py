"""Stages: finished units are skipped, changed ones redone, and a kill in between is harmless."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gristmill.indexed_dataset.atomic import DiskFullError
from gristmill.pipeline.executors import LocalExecutor, UnitError, count_workers
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.stage import Marker, Stage, Unit, run_stage

sys.path.append(str(Path(__file__).parent / "programs"))  # spawned workers get this path too

from stage_work import Work, write


def run(
    output: Path, texts: dict[str, str], *, settings: object = None, workers: int = 1
) -> dict[str, Marker]:
    units = [
        Unit(name=name, arguments=Work(output / "out" / name, text), inputs=(text,), size_bytes=1)
        for name, text in texts.items()
    ]
    stage = Stage(name="write", version=1, settings=settings, function=write)
    with LocalExecutor(workers) as executor:
        return run_stage(stage, units, output, executor, Progress(quiet=True))


def test_finished_units_are_not_done_again(tmp_path: Path) -> None:
    run(tmp_path, {"a": "one", "b": "two"})
    before = (tmp_path / "out" / "a").stat().st_mtime_ns

    run(tmp_path, {"a": "one", "b": "three"})

    assert (tmp_path / "out" / "a").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "b").read_text() == "three"


def test_a_lost_or_shortened_file_is_made_again(tmp_path: Path) -> None:
    run(tmp_path, {"a": "one", "b": "two"})
    (tmp_path / "out" / "a").unlink()
    (tmp_path / "out" / "b").write_text("t")

    run(tmp_path, {"a": "one", "b": "two"})

    assert (tmp_path / "out" / "a").read_text() == "one"
    assert (tmp_path / "out" / "b").read_text() == "two"


def test_files_of_units_that_are_gone_are_removed(tmp_path: Path) -> None:
    run(tmp_path, {"a": "one", "b": "two"})

    run(tmp_path, {"a": "one"})

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a"]
    assert sorted(path.name for path in (tmp_path / "work" / "write").iterdir()) == ["a.json"]


def test_other_settings_redo_everything(tmp_path: Path) -> None:
    first = run(tmp_path, {"a": "one"}, settings={"x": 1})
    second = run(tmp_path, {"a": "one"}, settings={"x": 2})

    assert first["a"].fingerprint != second["a"].fingerprint


def test_an_old_marker_never_vouches_for_files_of_newer_settings(tmp_path: Path) -> None:
    """Settings A done; B killed after it wrote a file of the same size; A again."""
    run(tmp_path, {"a": "one", "b": "two"}, settings="A")
    with pytest.raises(UnitError):  # b fails after a's file was overwritten
        run(tmp_path, {"a": "ONE", "b": "fail"}, settings="B")
    (tmp_path / "work" / "write" / "a.json").unlink()  # as if killed before a's marker

    run(tmp_path, {"a": "one", "b": "two"}, settings="A")

    assert (tmp_path / "out" / "a").read_text() == "one"
    assert (tmp_path / "out" / "b").read_text() == "two"


def test_a_marker_is_stale_while_its_unit_is_done_again(tmp_path: Path) -> None:
    run(tmp_path, {"a": "one"}, settings="A")

    with pytest.raises(UnitError):
        run(tmp_path, {"a": "fail"}, settings="B")

    assert '"fingerprint": "stale"' in (tmp_path / "work" / "write" / "a.json").read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failing_unit_is_named_and_the_others_are_kept(tmp_path: Path, workers: int) -> None:
    with pytest.raises(UnitError, match=r"stage write, unit b: ValueError: bad text"):
        run(tmp_path, {"a": "one", "b": "fail after the others"}, workers=workers)

    assert (tmp_path / "out" / "a").read_text() == "one"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_with_the_unit_and_what_to_do(tmp_path: Path, workers: int) -> None:
    told = r"^no space left while writing unit a of stage write: .*run the same command again"

    with pytest.raises(DiskFullError, match=told):
        run(tmp_path, {"a": "full"}, workers=workers)


def test_no_worker_and_no_temporary_file_is_left_when_a_unit_fails(tmp_path: Path) -> None:
    started = time.monotonic()

    (tmp_path / "out").mkdir()
    with pytest.raises(UnitError, match="bad text"):
        run(tmp_path, {"a": "sleep", "b": "fail after one began"}, workers=2)

    while multiprocessing.active_children():  # reaped by the pool's thread a moment later
        assert time.monotonic() - started < 30
        time.sleep(0.01)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_ends_the_workers_without_a_word_from_them(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py"), sys.path[-1], str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "finished\n"

    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=30)

    assert errors.count("Traceback") == 1, errors  # of the parent, which here catches nothing
    assert errors.strip().endswith("KeyboardInterrupt")
    # and it has ended: a worker that slept on would keep standard error open


PROGRAM = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from stage_work import Work, write
from gristmill.pipeline.executors import LocalExecutor

if __name__ == "__main__":
    work = [Work(Path(sys.argv[2], text), text) for text in ("one", "sleep", "sleep")]
    with LocalExecutor(2) as executor:
        for _ in executor.map(write, work, lambda *done: None):
            print("finished", flush=True)
"""


def test_a_worker_that_dies_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(UnitError, match=r"unit b: a worker process was killed .*run the same"):
        run(tmp_path, {"a": "one", "b": "die"}, workers=2)


def test_a_damaged_marker_is_reported_and_its_unit_done_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, {"a": "one"})
    (tmp_path / "work" / "write" / "a.json").write_text("{")

    run(tmp_path, {"a": "one"})

    assert "is not a marker" in caplog.text


def test_workers_are_counted_from_affinity_not_from_the_machine() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert count_workers() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_negative_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"run\.workers is -1"):
        LocalExecutor(-1)
