"""Trainings of a mixture of experts, as a user starts them, in several layouts."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from gristmill.trainer import PretrainConfig, pretrain
from gristmill.trainer.checkpoint import describe_checkpoint, find_checkpoints, read_facts
from gristmill.trainer.config import (
    CheckpointConfig,
    DataConfig,
    GenerateConfig,
    LogConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
    TrainingConfig,
)
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.report import read_report


def config(data: Path, **parallel: Any) -> PretrainConfig:
    return PretrainConfig(
        model=ModelConfig(
            num_layers=2,
            hidden_size=32,
            num_heads=4,
            num_kv_heads=2,
            ffn_size=64,
            num_experts=4,
            expert_ffn_size=32,
            num_shared_experts=1,
        ),
        data=DataConfig(path=str(data), sequence_length=32),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        schedule=ScheduleConfig(warmup_steps=2),
        training=TrainingConfig(
            num_steps=6, global_batch_size=8, micro_batch_size=2, device="cpu", precision="float32"
        ),
        parallel=ParallelConfig(threads_per_rank=1, **parallel),
        checkpoint=CheckpointConfig(every_steps=3, keep_last=0),
        log=LogConfig(every_steps=1, tensorboard=False),
        generate=GenerateConfig(max_tokens=4, prompts=("the mill",)),
    )


@pytest.fixture(scope="module")
def single(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("single")
    pretrain(config(data_folder), output=output)
    return output


def assert_alike(one: Path, other: Path) -> None:
    """Compare the curves and the scores of two trainings."""
    for left, right in zip(read_metrics(one), read_metrics(other), strict=True):
        assert left["loss"] == pytest.approx(right["loss"], rel=1e-4)
        assert left["gradient_norm"] == pytest.approx(right["gradient_norm"], rel=1e-3)
    scores = [read_report(run) or {} for run in (one, other)]
    assert scores[0]["total"]["loss"] == pytest.approx(scores[1]["total"]["loss"], rel=1e-4)
    assert scores[0]["total"]["tokens"] == scores[1]["total"]["tokens"]


@pytest.mark.slow
def test_experts_and_shards_on_two_ranks_train_as_one_process_and_go_on_in_it(
    single: Path, data_folder: Path, tmp_path: Path
) -> None:
    two = config(data_folder, data_parallel_size=2, expert_parallel_size=2, shard="full")
    pretrain(two, output=tmp_path / "two")

    assert_alike(single, tmp_path / "two")
    checkpoints = find_checkpoints(tmp_path / "two")
    layout = {"tensor": 1, "data": 2, "expert": 2, "shard": 2}
    assert read_facts(checkpoints[-1]).layout == layout
    assert "4 of width 32 in each layer, 2 for each token, 1 shared" in describe_checkpoint(
        checkpoints[-1]
    )

    shutil.rmtree(checkpoints[-1])
    (tmp_path / "two" / "pretrain_report.json").unlink()
    pretrain(config(data_folder), output=tmp_path / "two")
    assert_alike(single, tmp_path / "two")


@pytest.mark.deep
@pytest.mark.parametrize(
    "parallel",
    [
        {"tensor_parallel_size": 2, "sequence_parallel": True},
        {"data_parallel_size": 2},
        {"data_parallel_size": 2, "shard": "full"},
        {
            "tensor_parallel_size": 2,
            "data_parallel_size": 2,
            "sequence_parallel": True,
            "expert_parallel_size": 2,
            "shard": "hybrid",
            "shard_size": 2,
        },
    ],
)
def test_curves_of_every_layout_lie_on_each_other(
    parallel: dict[str, Any], single: Path, data_folder: Path, tmp_path: Path
) -> None:
    for model in ({"num_experts": 0}, {}):
        alone = single
        settings = config(data_folder, **parallel)
        settings = dataclasses.replace(
            settings,
            model=dataclasses.replace(settings.model, **model),  # type: ignore[arg-type]
        )
        name = "dense" if model else "experts"
        if model:
            alone = tmp_path / "alone"
            pretrain(dataclasses.replace(settings, parallel=ParallelConfig()), output=alone)
        pretrain(settings, output=tmp_path / name)
        assert_alike(alone, tmp_path / name)
