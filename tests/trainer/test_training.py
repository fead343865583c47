"""Training as a user meets it: it resumes to the bit, repeats nothing, and says what is wrong."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from gristmill.commands.inspection import describe
from gristmill.config import ConfigError
from gristmill.indexed_dataset import DataChangedError
from gristmill.trainer import CheckpointError, PretrainConfig, describe_checkpoint, pretrain
from gristmill.trainer.checkpoint import find_checkpoints, read_facts
from gristmill.trainer.config import (
    CheckpointConfig,
    DataConfig,
    GenerateConfig,
    LogConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
    TrainingConfig,
    to_dict,
)
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.launch import RankFailedError
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.model import Transformer
from gristmill.trainer.report import print_report
from gristmill.trainer.sampling import generate
from gristmill.trainer.start import load_trained

STEPS = 6


def config(data: Path, **changes: dict[str, Any]) -> PretrainConfig:
    """Return a tiny training; changes are fields by section."""
    tiny = PretrainConfig(
        model=ModelConfig(num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, ffn_size=64),
        data=DataConfig(path=str(data), sequence_length=32),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        schedule=ScheduleConfig(warmup_steps=2),
        training=TrainingConfig(
            num_steps=STEPS, global_batch_size=8, micro_batch_size=2, device="cpu"
        ),
        parallel=ParallelConfig(threads_per_rank=1),
        checkpoint=CheckpointConfig(every_steps=3, keep_last=0),
        log=LogConfig(every_steps=1, tensorboard=False),
        generate=GenerateConfig(max_tokens=0),
    )
    sections = {
        name: dataclasses.replace(getattr(tiny, name), **fields) for name, fields in changes.items()
    }
    return dataclasses.replace(tiny, **sections)


def state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return every tensor of a checkpoint, whole: weights and both moments."""
    metadata = FileSystemReader(checkpoint / "state").read_metadata().state_dict_metadata
    tensors = {key: torch.empty(value.size) for key, value in metadata.items()}
    with warnings.catch_warnings(action="ignore"):
        load(tensors, storage_reader=FileSystemReader(checkpoint / "state"), no_dist=True)
    return tensors


def assert_same_state(one: Path, other: Path) -> None:
    first, second = state(one), state(other)
    assert first.keys() == second.keys()
    for key in first:
        assert torch.equal(first[key], second[key]), key


@pytest.fixture(scope="module")
def trained(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a finished training in one process, checkpoints at 3 and 6 steps."""
    output = tmp_path_factory.mktemp("trained")
    result = pretrain(config(data_folder), output=output)
    assert result.finished
    return output


def copy_until(trained: Path, output: Path, step: int) -> None:
    """Copy a run as a kill after the checkpoint of `step` would have left it."""
    shutil.copytree(trained, output)
    for checkpoint in find_checkpoints(output):
        if read_facts(checkpoint).step > step:
            shutil.rmtree(checkpoint)
    (output / "pretrain_report.json").unlink(missing_ok=True)


def test_steps_in_two_parts_equal_steps_in_one_to_the_bit(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    copy_until(trained, tmp_path / "run", 3)

    result = pretrain(config(data_folder), output=tmp_path / "run")

    assert result.step == STEPS
    assert_same_state(find_checkpoints(trained)[-1], result.checkpoint)
    losses = [
        [record["loss"] for record in read_metrics(run)] for run in (trained, tmp_path / "run")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == STEPS


def test_another_micro_batch_gives_the_same_training(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    pretrain(config(data_folder, training={"micro_batch_size": 8}), output=tmp_path)

    for one, other in zip(read_metrics(trained), read_metrics(tmp_path), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["consumed_samples"] == other["consumed_samples"]


def test_the_loss_falls_and_begins_at_the_logarithm_of_the_vocabulary(trained: Path) -> None:
    losses = [record["loss"] for record in read_metrics(trained)]

    assert losses[0] == pytest.approx(torch.log(torch.tensor(257.0)).item(), abs=0.1)
    assert losses[-1] < losses[0] - 0.5


def test_a_finished_training_is_not_repeated(
    trained: Path, data_folder: Path, caplog: pytest.LogCaptureFixture, capsys: Any
) -> None:
    files = {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}

    with caplog.at_level(logging.INFO):
        result = pretrain(config(data_folder), output=trained)

    assert result.finished
    assert "already trained" in caplog.text
    assert "bits per byte" in capsys.readouterr().out
    assert files == {path: path.stat().st_mtime_ns for path in trained.rglob("*") if path.is_file()}


def test_the_report_scores_every_language_beside_the_unigram_model(trained: Path) -> None:
    report = json.loads((trained / "pretrain_report.json").read_text())

    assert set(report["languages"]) == {"eng_Latn", "ell_Grek", "hin_Deva"}
    for score in [report["total"], *report["languages"].values()]:
        assert score["text_bytes"] > 0
        assert score["bits_per_byte"] > 0
        assert score["unigram_bits_per_byte"] > 0
    tokens = sum(score["tokens"] for score in report["languages"].values())
    assert report["total"]["tokens"] == tokens


def test_other_settings_are_refused_by_name(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"model\.num_layers was 2 and is 3"):
        pretrain(config(data_folder, model={"num_layers": 3}), output=trained)
    with pytest.raises(CheckpointError, match=r"optimizer\.learning_rate"):
        pretrain(config(data_folder, optimizer={"learning_rate": 5e-3}), output=trained)
    with pytest.raises(CheckpointError, match="num_steps was 6 and is 9"):
        pretrain(config(data_folder, training={"num_steps": 9}), output=trained)


def test_a_training_may_be_lengthened_where_the_steps_taken_stay_the_same(
    data_folder: Path, tmp_path: Path
) -> None:
    def lasting(num_steps: int) -> PretrainConfig:
        schedule = {"kind": "constant"}
        return config(data_folder, training={"num_steps": num_steps}, schedule=schedule)

    pretrain(lasting(2), output=tmp_path / "run")
    pretrain(lasting(4), output=tmp_path / "run")
    pretrain(lasting(4), output=tmp_path / "whole")

    assert_same_state(
        find_checkpoints(tmp_path / "run")[-1], find_checkpoints(tmp_path / "whole")[-1]
    )


def test_changed_data_are_refused_on_resume(trained: Path, tmp_path: Path, write_data: Any) -> None:
    other = write_data(tmp_path / "data", num_documents=13)
    copy_until(trained, tmp_path / "run", 3)

    with pytest.raises(DataChangedError, match="eng_Latn has other tokens"):
        pretrain(config(other), output=tmp_path / "run")


def test_a_truncated_checkpoint_is_refused_with_its_file_and_remedy(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    copy_until(trained, tmp_path / "run", 3)
    file = next((tmp_path / "run").rglob("*.distcp"))
    os.truncate(file, file.stat().st_size - 1)

    with pytest.raises(CheckpointError, match="instead of") as error:
        pretrain(config(data_folder), output=tmp_path / "run")

    assert file.name in str(error.value)
    assert "remove its folder" in str(error.value)


def test_damaged_weights_are_refused(trained: Path, tmp_path: Path) -> None:
    copy_until(trained, tmp_path / "run", 3)
    file = next((tmp_path / "run").rglob("*.distcp"))
    file.write_bytes(b"x" * file.stat().st_size)

    with pytest.raises(CheckpointError, match="cannot be read"):
        generate(tmp_path / "run", ["the"], max_tokens=2)


def test_an_unfinished_checkpoint_is_never_loaded(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    copy_until(trained, tmp_path / "run", 3)
    source = find_checkpoints(trained)[-1]
    shutil.copytree(source, tmp_path / "run" / "checkpoints" / f"unfinished-{source.name}")

    assert [read_facts(path).step for path in find_checkpoints(tmp_path / "run")] == [3]
    assert pretrain(config(data_folder), output=tmp_path / "run").step == STEPS
    assert not list((tmp_path / "run" / "checkpoints").glob("unfinished-*"))


def test_only_the_last_checkpoints_are_kept(data_folder: Path, tmp_path: Path) -> None:
    pretrain(config(data_folder, checkpoint={"every_steps": 1, "keep_last": 2}), output=tmp_path)

    assert [path.name for path in find_checkpoints(tmp_path)] == ["step_00000005", "step_00000006"]


def test_a_copy_beside_the_checkpoints_is_neither_resumed_from_nor_removed(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    copy_until(trained, tmp_path / "run", 3)
    copy = tmp_path / "run" / "checkpoints" / "step_00000003_backup"
    shutil.copytree(find_checkpoints(trained)[0], copy)

    result = pretrain(config(data_folder, checkpoint={"keep_last": 1}), output=tmp_path / "run")

    assert result.checkpoint.name == "step_00000006"
    assert sorted(path.name for path in copy.parent.iterdir()) == [copy.name, "step_00000006"]
    assert describe_checkpoint(copy).startswith("checkpoint step_00000003_backup")


def test_the_last_step_is_logged_whatever_the_interval(data_folder: Path, tmp_path: Path) -> None:
    settings = config(data_folder, training={"num_steps": 3}, log={"every_steps": 2})

    pretrain(settings, output=tmp_path)

    assert [record["step"] for record in read_metrics(tmp_path)] == [2, 3]


def test_what_is_refused_leaves_the_config_of_the_run_alone(
    trained: Path, data_folder: Path
) -> None:
    starts: list[str] = []
    other = config(data_folder, optimizer={"learning_rate": 1.0})

    with pytest.raises(CheckpointError, match="other settings"):
        pretrain(other, output=trained, on_start=lambda: starts.append("refused"))
    pretrain(config(data_folder), output=trained, on_start=lambda: starts.append("accepted"))

    assert starts == ["accepted"]


def test_fewer_than_no_tokens_are_refused(trained: Path) -> None:
    with pytest.raises(ValueError, match="max_tokens = -1"):
        generate(trained, ["the"], max_tokens=-1)


def test_a_checkpoint_folder_alone_generates_text(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(find_checkpoints(trained)[-1], tmp_path / "moved")

    alone = generate(tmp_path / "moved", ["the mill", ""], max_tokens=12, seed=1)

    assert alone == generate(trained, ["the mill", ""], max_tokens=12, seed=1)
    assert len(alone) == 2
    assert "6 of 6" in describe_checkpoint(tmp_path / "moved")
    assert "hin_Deva" in describe_checkpoint(trained)


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds none"):
        generate(tmp_path, ["the"])


def test_a_batch_that_copies_cannot_share_is_refused(data_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="global_batch_size = 8"):
        pretrain(config(data_folder, training={"micro_batch_size": 3}), output=tmp_path)


def test_training_without_validation_must_be_asked_for(
    tmp_path: Path, write_data: Any, capsys: Any
) -> None:
    data = write_data(tmp_path / "data", validation=False)

    with pytest.raises(ValueError, match=r"evaluate\.enabled"):
        pretrain(config(data), output=tmp_path / "run")
    result = pretrain(
        config(data, evaluate={"enabled": False}, training={"num_steps": 1}),
        output=tmp_path / "run",
    )

    assert result.finished
    assert "total" not in result.report


@pytest.mark.slow
def test_two_tensor_parallel_ranks_resume_to_the_bit_and_generate_what_one_process_does(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    two = config(data_folder, parallel={"tensor_parallel_size": 2})
    whole = pretrain(two, output=tmp_path / "whole")
    copy_until(tmp_path / "whole", tmp_path / "parts", 3)
    parts = pretrain(two, output=tmp_path / "parts")

    assert_same_state(whole.checkpoint, parts.checkpoint)
    for one, other in zip(read_metrics(trained), read_metrics(tmp_path / "whole"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-3)
    facts = read_facts(whole.checkpoint)
    assert facts.layout == {"tensor": 2, "data": 1, "expert": 1, "shard": 1}
    greedy = generate(tmp_path / "whole", ["the mill"], max_tokens=16, temperature=0)
    assert greedy == generate(trained, ["the mill"], max_tokens=16, temperature=0)


@pytest.mark.slow
def test_a_checkpoint_goes_on_in_another_layout(
    trained: Path, data_folder: Path, tmp_path: Path
) -> None:
    copy_until(trained, tmp_path / "run", 3)

    pretrain(config(data_folder, parallel={"data_parallel_size": 2}), output=tmp_path / "run")

    for one, other in zip(read_metrics(trained), read_metrics(tmp_path / "run"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    final, expected = (
        state(find_checkpoints(tmp_path / "run")[-1]),
        state(find_checkpoints(trained)[-1]),
    )
    for key, value in expected.items():
        torch.testing.assert_close(final[key], value, rtol=1e-2, atol=1e-4, msg=key)


PROGRAM = """
import logging, sys
from gristmill.trainer import pretrain
from gristmill.trainer.config import PretrainConfig, from_dict
import json
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
result = pretrain(from_dict(PretrainConfig, json.loads(sys.argv[2])), output=sys.argv[1])
print("finished" if result.finished else "stopped")
"""


ENDLESS: dict[str, dict[str, Any]] = {
    "training": {"num_steps": 1_000_000},
    "parallel": {"tensor_parallel_size": 2},
    "checkpoint": {"every_steps": 0},
}


def start(settings: PretrainConfig, output: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROGRAM, str(output), json.dumps(to_dict(settings))]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_steps(output: Path, number: int, process: subprocess.Popen[str]) -> None:
    for _ in range(1200):
        if (output / "metrics.jsonl").exists() and len(read_metrics(output)) >= number:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError("no steps within a minute")


@pytest.mark.slow
def test_sigterm_saves_a_checkpoint_first(data_folder: Path, tmp_path: Path) -> None:
    endless = config(data_folder, **ENDLESS)
    process = start(endless, tmp_path)
    wait_for_steps(tmp_path, 3, process)

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 128 + signal.SIGTERM
    assert "asked to stop: saved" in said
    assert "shutting down" not in said
    (checkpoint,) = find_checkpoints(tmp_path)
    facts = read_facts(checkpoint)
    assert facts.step >= 3
    model = Transformer(facts.config.model, facts.vocab_size)
    load_trained(model, checkpoint, read_facts(checkpoint))


@pytest.mark.slow
def test_a_rank_that_dies_stops_all_with_one_message(data_folder: Path, tmp_path: Path) -> None:
    endless = config(data_folder, **ENDLESS)
    process = start(endless, tmp_path)
    wait_for_steps(tmp_path, 2, process)

    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(ranks_among(children)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    assert RankFailedError.__name__ in errors
    assert "died of signal SIGKILL" in errors
    assert errors.count("all other ranks were stopped") == 1


def ranks_among(children: list[str]) -> list[int]:
    """Return the pids of the ranks among child processes, by rank."""
    found = {}
    for pid in map(int, children):
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        for word in words:
            if word.startswith(b"RANK="):
                found[int(word[5:])] = pid
    return [found[rank] for rank in sorted(found)]


@pytest.mark.slow
def test_what_a_rank_refuses_is_said_in_its_own_words(tmp_path: Path, write_data: Any) -> None:
    data = write_data(tmp_path / "data", manifest=False)
    settings = config(data, parallel={"tensor_parallel_size": 2}, evaluate={"enabled": False})
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, vocab_size=64))

    with pytest.raises(ValueError, match="beyond the vocabulary of 64 ids"):
        pretrain(settings, output=tmp_path / "run")


def test_everything_that_a_training_writes_about_itself_can_be_inspected(trained: Path) -> None:
    newest = find_checkpoints(trained)[-1]

    for path in (trained, trained / "checkpoints", newest, newest / "checkpoint.json"):
        page = describe(path)
        assert page.startswith(f"checkpoint {newest.name}\n")
        assert ("bits per byte" in page) == (path == trained)
    assert "bits per byte" in describe(trained / "pretrain_report.json")
    assert all(len(line) <= 80 for line in describe(newest).splitlines())


def test_a_damaged_report_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "pretrain_report.json").write_text("{")

    with pytest.raises(ConfigError, match=r"pretrain_report\.json is damaged"):
        describe(tmp_path / "pretrain_report.json")


def test_samples_are_printed_as_they_are_whatever_a_model_writes() -> None:
    report = {
        "checkpoint": "checkpoints/step_00000001",
        "samples": [{"prompt": "a [b", "text": "c \\[/d] e"}],
    }
    said = io.StringIO()

    print_report(report, Path("run"), file=said)

    assert said.getvalue().endswith("\na [b ⟶c \\[/d] e\n")


def test_a_training_ends_with_continuations_and_curves(
    data_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    settings = config(
        data_folder,
        training={"num_steps": 2},
        log={"tensorboard": True},
        evaluate={"every_steps": 1},
        generate={"max_tokens": 5},
    )

    result = pretrain(settings, output=tmp_path)

    samples = result.report["samples"]
    assert len(samples) == 3
    assert all(sample["prompt"] for sample in samples)
    said = capsys.readouterr().out
    assert samples[0]["prompt"].split()[0] in said
    assert str(result.checkpoint) in said.replace("\n", "")
    assert list((tmp_path / "tensorboard").glob("events.*"))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert any("bits_per_byte/hin_Deva" in line for line in lines)
