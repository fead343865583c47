"""Runs that are killed, and disks that are full, at random moments: a cut of fault_runs.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .fault_runs import STAGES, kill_trials, write_corpus

DEEP = bool(os.environ.get("GRISTMILL_TEST_DEEP"))


@pytest.mark.slow
def test_a_run_that_was_killed_anywhere_ends_with_the_same_bytes(tmp_path: Path) -> None:
    write_corpus(tmp_path / "in", num_files=3)

    hit = kill_trials(
        tmp_path,
        kills=100 if DEEP else 4,
        corpus=tmp_path / "in",
        unit_bytes=10_000,
        workers=2,
        seed=1,
    )

    assert set(hit) <= {"start", "quantiles", "filters", *STAGES}
    assert not DEEP or len(hit) >= 8, hit


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    can_mount = subprocess.run(
        ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)],
        capture_output=True,
        check=False,
    )
    if can_mount.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {can_mount.stderr.decode().strip()}")
    program = str(Path(__file__).with_name("fault_runs.py"))
    many = ["--sizes", "20", "--step", "40000"] if DEEP else ["--sizes", "2", "--step", "150000"]

    done = subprocess.run(
        ["unshare", "-rm", sys.executable, program, *many],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "full disks, same bytes after each" in done.stdout
