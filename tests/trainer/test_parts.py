"""The small pure parts: loss, schedule, sampling, gradient norm, config."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math

import pytest
import torch

from gristmill.trainer.config import (
    EvaluateConfig,
    GenerateConfig,
    PretrainConfig,
    ScheduleConfig,
    TrainingConfig,
    from_dict,
    to_dict,
)
from gristmill.trainer.config_check import check
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.gradients import scale_gradients
from gristmill.trainer.sampler import Sampler
from gristmill.trainer.schedule import learning_rate


def test_warm_up_rises_in_equal_steps_to_the_peak() -> None:
    schedule = ScheduleConfig(warmup_steps=4)

    rates = [learning_rate(step, 8.0, schedule, 100) for step in range(4)]

    assert rates == [2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize("kind", ["cosine", "wsd"])
def test_decay_ends_at_the_minimum_in_the_last_step_and_stays_there(kind: str) -> None:
    schedule = ScheduleConfig(kind=kind, warmup_steps=10, minimum_ratio=0.1)  # type: ignore[arg-type]

    rates = [learning_rate(step, 1.0, schedule, 100) for step in range(120)]

    assert max(rates) == 1.0
    assert rates[99] == pytest.approx(0.1)
    assert rates[99:] == [rates[99]] * 21
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))


def test_cosine_is_half_way_at_half_time() -> None:
    schedule = ScheduleConfig(warmup_steps=0, minimum_ratio=0.0)

    assert learning_rate(50, 1.0, schedule, 101) == pytest.approx(0.5)


def test_wsd_is_constant_until_its_last_part() -> None:
    schedule = ScheduleConfig(kind="wsd", warmup_steps=5, decay_fraction=0.2, minimum_ratio=0.0)

    rates = [learning_rate(step, 1.0, schedule, 100) for step in range(100)]

    assert rates[4:80] == [1.0] * 76
    assert rates[89] == pytest.approx(0.5)


@pytest.mark.parametrize("fraction", [0.0, 1.0])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_schedules_of_a_few_steps_have_no_holes(fraction: float, num_steps: int) -> None:
    for kind in ("cosine", "wsd", "constant"):
        schedule = ScheduleConfig(kind=kind, warmup_steps=2, decay_fraction=fraction)  # type: ignore[arg-type]
        for step in range(num_steps):
            assert 0 < learning_rate(step, 1.0, schedule, num_steps) <= 1


def test_decay_steps_keeps_a_schedule_when_the_training_grows() -> None:
    schedule = ScheduleConfig(warmup_steps=3, decay_steps=20)

    short = [learning_rate(step, 1.0, schedule, 10) for step in range(20)]
    long = [learning_rate(step, 1.0, schedule, 1000) for step in range(20)]

    assert short == long


def test_the_likeliest_token_is_taken_at_temperature_zero() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 5.0, 1.0]])

    assert Sampler(temperature=0).draw(logits, []).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("sampler", "possible"),
    [
        (Sampler(top_k=2), {0, 1}),
        (Sampler(top_p=0.6), {0, 1}),  # 0.5 alone is below 0.6, with 0.25 it is enough
        (Sampler(top_p=0.5), {0}),
        (Sampler(top_p=1e-9), {0}),
        (Sampler(), {0, 1, 2, 3}),
    ],
)
def test_cuts_leave_the_likeliest_tokens(sampler: Sampler, possible: set[int]) -> None:
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    generators = [torch.Generator().manual_seed(0)]

    drawn = {int(sampler.draw(logits, generators)) for _ in range(200)}

    assert drawn == possible


def test_draws_follow_the_probabilities_and_the_seed() -> None:
    logits = torch.tensor([[0.7, 0.3]]).log()

    def draw(seed: int) -> list[int]:
        generators = [torch.Generator().manual_seed(seed)]
        return [int(Sampler().draw(logits, generators)) for _ in range(2000)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert sum(draw(3)) / 2000 == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}])
def test_impossible_samplers_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="top_p"):
        Sampler(**values)  # type: ignore[arg-type]


def test_gradients_are_divided_by_the_tokens_and_then_clipped() -> None:
    gradients = [torch.tensor([30.0]), torch.tensor([40.0])]  # norm 50, of 10 tokens: 5

    norm = scale_gradients(gradients, torch.tensor(50.0), torch.tensor(10.0), clip_norm=1.0)

    assert norm.item() == pytest.approx(5.0)
    assert gradients[0].item() == pytest.approx(0.6, rel=1e-5)
    assert gradients[1].item() == pytest.approx(0.8, rel=1e-5)


def test_a_step_without_valid_tokens_is_no_division_by_zero() -> None:
    gradients = [torch.zeros(2)]

    norm = scale_gradients(gradients, torch.tensor(0.0), torch.tensor(0.0), clip_norm=1.0)

    assert norm.item() == 0
    assert math.isfinite(gradients[0].sum().item())


def test_a_config_survives_json() -> None:
    config = dataclasses.replace(PretrainConfig(), model=ModelConfig(num_layers=7))

    assert from_dict(PretrainConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_a_config_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="no field `layers`"):
        from_dict(ModelConfig, {"layers": 3})


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"model": ModelConfig(hidden_size=100, num_heads=3)}, "multiple"),
        ({"model": ModelConfig(hidden_size=21, num_heads=3)}, "even"),
        ({"model": ModelConfig(num_heads=6, num_kv_heads=4)}, "num_kv_heads = 4"),
        ({"training": TrainingConfig(num_steps=0)}, "num_steps is 0"),
        ({"schedule": ScheduleConfig(warmup_steps=-1)}, "warmup_steps is -1"),
        ({"schedule": ScheduleConfig(minimum_ratio=2.0)}, "minimum_ratio"),
        ({"model": ModelConfig(rope_theta=0.0)}, "rope_theta is 0"),
        ({"evaluate": EvaluateConfig(batch_size=-1)}, "batch_size is -1"),
        ({"generate": GenerateConfig(top_k=-1)}, "top_k is -1"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(
    section: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check(dataclasses.replace(PretrainConfig(), **section))  # type: ignore[arg-type]
