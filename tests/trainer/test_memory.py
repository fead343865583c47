"""Memory is estimated before the start, and what does not fit is refused with a remedy."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from gristmill.trainer import PretrainConfig, memory, plan_pretrain, pretrain
from gristmill.trainer.config import DataConfig, OptimizerConfig, ParallelConfig, TrainingConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.memory import NotEnoughMemoryError, estimate_memory
from gristmill.trainer.model import resolve


def config(data: str = "", **parallel: Any) -> PretrainConfig:
    return PretrainConfig(
        model=resolve(ModelConfig(num_layers=4, hidden_size=64, num_heads=4, init_std=0.1)),
        data=DataConfig(path=data, sequence_length=64),
        training=TrainingConfig(precision="float32", device="cpu", num_steps=2),
        parallel=ParallelConfig(**parallel),
    )


def test_states_are_divided_by_what_divides_them() -> None:
    one = estimate_memory(config(), 256, 1)
    two = estimate_memory(config(tensor_parallel_size=2), 256, 2)
    full = estimate_memory(config(data_parallel_size=4, shard="full"), 256, 4)

    assert one["optimizer"] == 2 * one["weights"] == 2 * one["gradients"]
    assert two["weights"] == pytest.approx(one["weights"] / 2, rel=0.02)
    assert two["activations"] < one["activations"]
    for part in ("weights", "gradients", "optimizer"):
        assert full[part] == pytest.approx(one[part] / 4, rel=0.02)  # norms stay whole
    assert full["gathered"] > 0


def test_settings_that_save_memory_are_counted() -> None:
    plain = config()
    training = dataclasses.replace(plain.training, activation_checkpointing="full")
    less = dataclasses.replace(plain, training=training)
    muon = dataclasses.replace(plain, optimizer=OptimizerConfig(kind="muon"))
    half = dataclasses.replace(plain, training=TrainingConfig(precision="bfloat16", device="cpu"))

    assert (
        estimate_memory(less, 256, 1)["activations"]
        < estimate_memory(plain, 256, 1)["activations"] / 2
    )
    assert estimate_memory(muon, 256, 1)["optimizer"] < estimate_memory(plain, 256, 1)["optimizer"]
    assert estimate_memory(half, 256, 1)["copies"] == estimate_memory(plain, 256, 1)["weights"] / 2


@pytest.mark.parametrize(
    ("there", "words"),
    [(3.03e8, r"lower training\.micro_batch_size"), (1e6, r'parallel\.shard = "full"')],
)
def test_a_training_that_does_not_fit_is_refused_before_it_starts(
    there: float, words: str, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda *_: there)

    with pytest.raises(NotEnoughMemoryError, match=words):
        pretrain(config(str(data_folder)), output=tmp_path / "run")

    assert not (tmp_path / "run").exists()
    text = plan_pretrain(config(str(data_folder)), output=tmp_path / "run")
    assert "8 x H100" in text
    assert "at 40% MFU" in " ".join(text.split())


@pytest.mark.deep
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", ["none", "selective", "full"])
@pytest.mark.parametrize("shape", ["gpt2", "many_layers", "large_vocabulary", "mixture"])
def test_the_estimate_is_within_15_percent_of_what_a_process_takes(shape: str, mode: str) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "memory.py"
    spec = importlib.util.spec_from_file_location("memory_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)

    found = benchmark.measure({**benchmark.SHAPES[shape], "mode": mode, "steps": 2, "threads": 1})

    measured = found.pop("measured")
    assert sum(found.values()) == pytest.approx(measured, rel=0.15)
