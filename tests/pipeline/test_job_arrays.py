"""Pieces of a job array: in any order, waiting or not, together they write what one run writes."""

from __future__ import annotations

import contextlib
import itertools
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.config import RunConfig, to_toml
from gristmill.pipeline.config import PreprocessConfig
from gristmill.pipeline.run_lock import only_run
from gristmill.pipeline.shards import PiecesMissingError, Shard, parse_shard

from .small_runs import content, run, write_corpus


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PreprocessConfig:
    return write_corpus(tmp_path_factory.mktemp("texts") / "in")


@pytest.fixture(scope="module")
def whole(config: PreprocessConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    run(config, output)
    return output


@given(st.integers(1, 9), st.lists(st.text(max_size=4), unique=True, max_size=30), st.randoms())
def test_every_unit_belongs_to_one_piece_in_whatever_order_units_come(
    count: int, names: list[str], chance: random.Random
) -> None:
    mixed = chance.sample(names, len(names))

    parts = [Shard(number, count).own(names) for number in range(count)]

    assert sorted(itertools.chain(*parts)) == sorted(names)
    assert parts == [Shard(number, count).own(mixed) for number in range(count)]


def test_four_pieces_called_in_any_order_until_all_is_done_write_the_same_bytes(
    config: PreprocessConfig, whole: Path, tmp_path: Path
) -> None:
    chance = random.Random(3)
    finished: set[int] = set()
    for _ in range(20):  # one round for each stage, about
        for number in chance.sample(range(4), 4):
            with contextlib.suppress(PiecesMissingError):
                run(config, tmp_path, shard=Shard(number, 4))
                finished.add(number)
        if finished:
            break

    assert finished, "no piece came to the end in 20 rounds"
    assert content(tmp_path) == content(whole)


def test_each_piece_once_and_a_last_call_without_shard_write_the_same_bytes(
    config: PreprocessConfig, whole: Path, tmp_path: Path
) -> None:
    for number in (2, 0, 3, 1):
        with pytest.raises(PiecesMissingError, match=f"piece {number}/4 has done its part"):
            run(config, tmp_path, shard=Shard(number, 4))
    documents = len(list((tmp_path / "documents").iterdir()))

    run(config, tmp_path)

    assert documents == len(list((whole / "documents").iterdir()))  # the pieces had read all
    assert content(tmp_path) == content(whole)


@pytest.mark.slow
def test_pieces_that_run_together_wait_for_each_other(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    output, whole = tmp_path / "out", tmp_path / "whole"
    toml = to_toml({"run": RunConfig(workers=1), "preprocess": config})
    (tmp_path / "run.toml").write_text(toml)
    command = [sys.executable, "-m", "gristmill.cli", "preprocess", str(tmp_path / "run.toml")]
    subprocess.run([*command, "--output", str(whole)], check=True, capture_output=True)

    pieces = [
        subprocess.Popen(
            [*command, "--output", str(output), "--shard", f"{number}/2", "--wait", "10"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    said = [piece.communicate(timeout=600)[0] for piece in pieces]

    assert [piece.returncode for piece in pieces] == [0, 0], said
    for folder in (output, whole):
        (folder / "config.toml").unlink()  # names the folder
    assert content(output) == content(whole)


def test_a_piece_that_has_waited_long_enough_says_what_it_misses(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    with pytest.raises(PiecesMissingError, match=r"stage clean still needs .* of other pieces"):
        run(config, tmp_path, shard=Shard(0, 2), wait_seconds=1.5)


def test_whole_runs_and_other_arrays_keep_out_of_a_folder_where_pieces_work(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    with only_run(tmp_path, Shard(0, 2), "settings"), only_run(tmp_path, Shard(1, 2), "settings"):
        with pytest.raises(ValueError, match=r"another run .* is working in"):
            run(config, tmp_path)
        with (
            pytest.raises(ValueError, match="pieces of another job array"),
            only_run(tmp_path, Shard(2, 3), "settings"),
        ):
            pass
        with (
            pytest.raises(ValueError, match="with other settings"),
            only_run(tmp_path, Shard(0, 2), "changed"),
        ):
            pass
        with (
            pytest.raises(ValueError, match="piece 1/2 is already working"),
            only_run(tmp_path, Shard(1, 2), "settings"),
        ):
            pass
    with only_run(tmp_path), pytest.raises(ValueError, match="another run"):
        run(config, tmp_path, shard=Shard(0, 2))
    with only_run(tmp_path, Shard(2, 3), "settings"):
        pass  # the others have ended


@pytest.mark.parametrize("text", ["2", "4/4", "a/b", "-1/2", "1/0"])
def test_what_names_no_piece_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"NUMBER/COUNT.*SLURM_ARRAY_TASK_ID"):
        parse_shard(text)


def test_a_piece_is_named_by_number_and_count() -> None:
    assert parse_shard("3/4") == Shard(3, 4)
    assert parse_shard("") is None
