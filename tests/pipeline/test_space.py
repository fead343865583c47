"""A run that cannot fit is refused before it begins, with what would help; others cost no look."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.pipeline import clean, plan
from gristmill.pipeline.config import PreprocessConfig
from gristmill.pipeline.dedup_components import components_memory
from gristmill.pipeline.plan_needs import (
    NoRoomError,
    Room,
    _line,
    free_memory,
    refuse_memory,
    worker_memory,
)
from gristmill.pipeline.space import refuse_without_space
from gristmill.pipeline.unit_runs import UNIT_BYTES

from .small_runs import run, write_corpus


@pytest.fixture
def config(tmp_path: Path) -> PreprocessConfig:
    return write_corpus(tmp_path / "in", num_files=2)


def room(monkeypatch: pytest.MonkeyPatch, *, disk: int, memory: int | None = None) -> None:
    monkeypatch.setattr(Room, "of", lambda _: Room(disk_bytes=disk, memory_bytes=memory))


def never() -> None:
    raise AssertionError("sizes alone tell")


def test_where_there_is_room_for_many_times_the_input_no_sample_is_run(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = clean.plan(config)
    refuse_without_space(units, tmp_path / "out", 2, never)

    room(monkeypatch, disk=100_000)
    with pytest.raises(AssertionError, match="sizes alone tell"):
        refuse_without_space(units, tmp_path / "out", 2, never)


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, disk=100_000)

    with pytest.raises(NoRoomError, match=r"Free space, choose another --output .*--no-check-spa"):
        run(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()

    monkeypatch.setattr(plan, "measure", never)
    run(config, tmp_path / "out", check_space=False)
    assert (tmp_path / "out/report.json").exists()


def test_too_little_memory_is_told_with_the_number_of_workers_that_fit(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, disk=10**12, memory=1_200_000_000)
    units = clean.plan(config)

    with pytest.raises(NoRoomError, match=r"4 processes of .*Take --workers 2"):
        refuse_without_space(units, tmp_path / "out", 4, never)
    refuse_without_space(units, tmp_path / "out", 2, never)
    refuse_without_space(units, tmp_path / "out", 0, never)  # they are on other machines


def test_one_process_that_does_not_fit_asks_for_memory() -> None:
    with pytest.raises(NoRoomError, match="Free memory, or"):
        refuse_memory(4_000_000_000, 1, Room(disk_bytes=0, memory_bytes=1_000_000_000))
    refuse_memory(4_000_000_000, 1, Room(disk_bytes=0, memory_bytes=None))


def test_what_the_output_folder_holds_already_is_room_for_the_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    before = Room.of(tmp_path / "out")
    (tmp_path / "out" / "file").write_bytes(b"x" * 50_000_000)

    after = Room.of(tmp_path / "out")

    # Others write to the disk meanwhile; a file of its own is not counted as lost room.
    assert after.disk_bytes > before.disk_bytes - 45_000_000
    assert Room.of(tmp_path / "new" / "deep").disk_bytes > 0


def test_figures_of_memory_are_plausible() -> None:
    found = free_memory()
    assert found is None or found > 0
    assert worker_memory(0) < worker_memory(10**7) < worker_memory(10**9) == UNIT_BYTES
    assert components_memory(10**9) < 16e9 / 3
    assert components_memory(3 * 10**9) > 8 * 3 * 10**9


def test_two_samples_give_what_a_stage_costs_once_and_for_each_byte() -> None:
    assert _line(3.0, 11.0, (100, 500)) == pytest.approx((0.02, 1.0))
    assert _line(5.0, 4.0, (100, 500)) == pytest.approx((0.0, 4.0))  # noise: all of it once
    assert _line(0.0, 4.0, (100, 500)) == pytest.approx((0.008, 0.0))
