"""Muon moves matrices by orthogonal steps; a step that the guard refuses changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from gristmill.trainer.config import OptimizerConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.grid import Grid
from gristmill.trainer.guard import Guard, TrainingDivergedError
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.muon import COEFFICIENTS, Muon, orthogonalize
from gristmill.trainer.optimizer import make_optimizer
from gristmill.trainer.parallel import Placement
from gristmill.trainer.whole_matrices import HeldMatrix

SIZES: dict[str, Any] = {"num_layers": 2, "hidden_size": 16, "num_heads": 2, "ffn_size": 32}
CPU = torch.device("cpu")


def reference_orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """The polynomial of Newton-Schulz applied to singular values, by the decomposition itself."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ vh


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8)])
def test_the_iteration_works_on_singular_values(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    found = orthogonalize(matrix)

    torch.testing.assert_close(found, reference_orthogonalize(matrix))
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_each_expert_is_a_matrix_of_its_own() -> None:
    stack = torch.randn(3, 6, 10, dtype=torch.float64)

    assert torch.allclose(orthogonalize(stack)[1], orthogonalize(stack[1]))


def test_steps_equal_those_of_torchs_muon() -> None:
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(12, 20, generator=generator)
    mine, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    held = [HeldMatrix((12, 20), Placement(), 1)]
    ours = Muon([mine], held, Grid(), learning_rate=0.01, momentum=0.95, weight_decay=0.1)
    torchs = torch.optim.Muon(
        [theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        gradient = torch.randn(12, 20, generator=generator)
        mine.grad, theirs.grad = gradient.clone(), gradient.clone()
        ours.step()
        torchs.step()

    # torch computes in bfloat16.
    assert (mine - start).norm() > 0.05
    assert (mine - theirs).norm() < 0.02 * (mine - start).norm()


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    model = Transformer(resolve(ModelConfig(**SIZES, num_experts=2)), 64)
    optimizer = make_optimizer(model, OptimizerConfig(kind="muon"), Grid())

    state = optimizer.state(model, 0)

    names = set(dict(model.named_parameters()))
    assert set(state["momentum"]) | set(state["mean"]) == names
    assert not set(state["momentum"]) & set(state["mean"])
    assert "blocks.0.feed_forward.experts.up" in state["momentum"]
    assert "blocks.0.attention.query.weight" in state["momentum"]
    for name in ("embedding.weight", "norm.weight", "blocks.0.feed_forward.router.weight"):
        assert name in state["mean"]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_skipped_step_changes_no_weight_and_no_state(kind: str) -> None:
    model = Transformer(resolve(ModelConfig(**SIZES)), 64)
    initialize(model, 1)
    optimizer = make_optimizer(model, OptimizerConfig(kind=kind), Grid())  # type: ignore[arg-type]

    def step(value: float, skip: bool) -> dict[str, torch.Tensor]:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.step(0.1, torch.tensor(skip))
        kept = {name: p.detach().clone() for name, p in model.named_parameters()}
        for moments in optimizer.state(model, 1).values():
            kept |= {f"state.{name}": moment.clone() for name, moment in moments.items()}
        return kept

    before = step(1.0, skip=False)
    after = step(float("nan"), skip=True)
    moved = step(1.0, skip=False)

    assert all(torch.equal(before[name], after[name]) for name in before)
    assert any(not torch.equal(before[name], moved[name]) for name in before)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_spikes_are_judged_by_the_median_of_the_steps_that_were_taken() -> None:
    guard = Guard(OptimizerConfig(spike_factor=5), CPU)
    assert not any(guard.judge(number(3.0), number(1000.0)) for _ in range(5))
    assert not any(guard.judge(number(3.0), number(1.0)) for _ in range(64))

    assert guard.judge(number(3.0), number(5.1))
    assert not guard.judge(number(3.0), number(4.9))
    for bad in (float("nan"), float("inf")):
        assert guard.judge(number(bad), number(1.0))
        assert guard.judge(number(3.0), number(bad))


def test_what_a_guard_remembers_goes_on_from_a_checkpoint() -> None:
    guard = Guard(OptimizerConfig(spike_factor=5), CPU)
    for size in range(40):
        guard.judge(number(1.0), number(1.0 + size / 100))

    again = Guard(OptimizerConfig(spike_factor=5), CPU, **guard.state())  # type: ignore[arg-type]

    assert again.state() == guard.state()
    assert again.judge(number(1.0), number(10.0))


def test_too_many_skipped_steps_in_a_row_stop_the_training_with_a_remedy() -> None:
    guard = Guard(OptimizerConfig(max_skipped_steps=2), CPU)
    guard.count(True, 1.0, 1.0)
    guard.count(True, 1.0, 1.0)
    guard.count(False, 1.0, 1.0)
    guard.count(True, 1.0, 1.0)
    guard.count(True, 1.0, 1.0)

    with pytest.raises(TrainingDivergedError, match=r"learning_rate.*warmup_steps"):
        guard.count(True, float("nan"), 1.0)
