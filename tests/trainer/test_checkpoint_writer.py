"""Checkpoints are written while training goes on, and a kill at any moment costs little."""

from __future__ import annotations

import dataclasses
import importlib.util
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from gristmill.trainer import checkpoint_writer, pretrain
from gristmill.trainer.checkpoint import CheckpointError, find_checkpoints, read_facts
from gristmill.trainer.metrics import read_metrics

_path = Path(__file__).parent / "checkpoint_program.py"
_spec = importlib.util.spec_from_file_location("checkpoint_program", _path)
assert _spec is not None
assert _spec.loader is not None
program = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(program)


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    metadata = FileSystemReader(checkpoint / "state").read_metadata().state_dict_metadata
    tensors = {key: torch.empty(value.size) for key, value in metadata.items()}
    with warnings.catch_warnings(action="ignore"):
        load(tensors, storage_reader=FileSystemReader(checkpoint / "state"), no_dist=True)
    return tensors


@pytest.fixture(scope="module")
def whole(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    pretrain(program.config(str(data_folder)), output=output)
    return output


@pytest.mark.slow
@pytest.mark.parametrize("phase", program.PHASES)
def test_a_kill_in_any_phase_of_a_checkpoint_costs_the_steps_since_the_last_one(
    phase: str, whole: Path, data_folder: Path, tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, str(_path), str(data_folder), str(tmp_path), phase], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left = find_checkpoints(tmp_path)
    assert left
    assert read_facts(left[-1]).step >= program.EVERY

    result = pretrain(program.config(str(data_folder)), output=tmp_path)

    assert result.finished
    assert [read_facts(folder).step for folder in find_checkpoints(tmp_path)] == [program.STEPS]
    assert not list((tmp_path / "checkpoints").glob("unfinished-*"))
    one, other = state(find_checkpoints(whole)[-1]), state(result.checkpoint)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_training_goes_on_while_a_checkpoint_is_written(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps_when_written: list[int] = []
    first_is_done = threading.Event()
    real = checkpoint_writer._finish

    def slow(unfinished: Path, final: Path, *arguments: Any) -> None:
        if not first_is_done.is_set():
            first_is_done.set()
            for _ in range(600):  # until the next step is on record
                if len(read_metrics(tmp_path)) > program.EVERY:
                    break
                threading.Event().wait(0.05)
            steps_when_written.append(len(read_metrics(tmp_path)))
        real(unfinished, final, *arguments)

    monkeypatch.setattr(checkpoint_writer, "_finish", slow)
    pretrain(program.config(str(data_folder)), output=tmp_path)

    assert steps_when_written
    assert steps_when_written[0] > program.EVERY


def test_what_is_written_is_the_state_of_its_step(whole: Path, data_folder: Path) -> None:
    config = program.config(str(data_folder))
    settings = dataclasses.replace(config.checkpoint, asynchronous=False, keep_last=0)
    output = whole.parent / "waiting"

    result = pretrain(dataclasses.replace(config, checkpoint=settings), output=output)

    one, other = state(find_checkpoints(whole)[-1]), state(result.checkpoint)
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert [read_facts(f).step for f in find_checkpoints(output)] == [2, 4, 6]


def test_a_checkpoint_that_cannot_be_written_is_an_error_of_the_training(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(checkpoint_writer, "save", fail)

    with pytest.raises(CheckpointError, match="the disk is gone"):
        pretrain(program.config(str(data_folder)), output=tmp_path)
    assert not list((tmp_path / "checkpoints").iterdir())


def test_bad_steps_are_skipped_logged_and_a_resumed_run_knows_of_them(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gristmill.trainer import guard

    def judge(self: Any, loss: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return torch.tensor(len(calls) == 2)

    def train(output: Path, num_steps: int) -> Path:
        config = program.config(str(data_folder))
        training = dataclasses.replace(config.training, num_steps=num_steps)
        schedule = dataclasses.replace(config.schedule, kind="constant")
        config = dataclasses.replace(config, training=training, schedule=schedule)
        return pretrain(config, output=output).checkpoint

    monkeypatch.setattr(guard.Guard, "judge", judge)
    calls: list[int] = []
    at_once = train(tmp_path / "whole", 6)
    calls = []
    train(tmp_path / "parts", 3)
    in_parts = train(tmp_path / "parts", 6)

    assert read_facts(at_once).skipped_steps == 1
    assert read_facts(in_parts).skipped_steps == 1
    assert [r["skipped_steps"] for r in read_metrics(tmp_path / "whole")] == [0, 1, 1, 1, 1, 1]
    one, other = state(at_once), state(in_parts)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_batch_size_warm_up_is_resumed_to_the_bit(data_folder: Path, tmp_path: Path) -> None:
    def train(output: Path, num_steps: int) -> Path:
        config = program.config(str(data_folder))
        training = dataclasses.replace(
            config.training,
            num_steps=num_steps,
            global_batch_size=8,
            initial_batch_size=2,
            batch_warmup_tokens=16 * 16,
        )
        schedule = dataclasses.replace(config.schedule, kind="constant")
        config = dataclasses.replace(config, training=training, schedule=schedule)
        return pretrain(config, output=output).checkpoint

    at_once = train(tmp_path / "whole", 7)
    train(tmp_path / "parts", 3)
    in_parts = train(tmp_path / "parts", 7)

    sizes = [record["batch_size"] for record in read_metrics(tmp_path / "whole")]
    assert sizes[0] == 2
    assert sizes[-1] == 8
    assert read_facts(at_once).consumed_samples == sum(sizes)
    one, other = state(at_once), state(in_parts)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_profile_is_a_chrome_trace(data_folder: Path, tmp_path: Path) -> None:
    config = program.config(str(data_folder))
    log = dataclasses.replace(config.log, profile_steps=1)

    pretrain(dataclasses.replace(config, log=log), output=tmp_path)

    (trace,) = (tmp_path / "profile").glob("*_rank0.json")
    assert '"traceEvents"' in trace.read_text()


def test_weights_and_biases_is_asked_for_only_where_it_is_installed(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = program.config(str(data_folder))
    log = dataclasses.replace(config.log, wandb="mill")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    with pytest.raises(ValueError, match=r"pip install 'gristmill\[wandb\]'"):
        pretrain(dataclasses.replace(config, log=log), output=tmp_path)
    assert not list(tmp_path.iterdir())
