"""Tensor parallelism: local tensors, and the few places where ranks talk to each other.

Every rank holds a slice of each matrix. A pair of matrices is cut so that only its ends need a
collective (Shoeybi et al. 2019, arXiv:1909.08053): the first by output rows, the second by input
columns.

    x ── enter ──► W1[rows of this rank] ──► W2[columns of this rank] ── leave ──► y
         forward: x    (each rank computes its part of the inner width)  forward: sum over ranks
         backward: sum over ranks                                        backward: dy

With one rank `enter` and `leave` return their argument: no Function, no collective, the plain
module. Which parameter is cut along which dimension stands in one table, `placement`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .config_model import ModelConfig
from .grid import Ranks

_OUTPUT_ROWS = ("embedding", "head", "query", "key", "value", "gate", "up")
_INPUT_COLUMNS = ("output", "down")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a rank's part of a parameter lies in the whole."""

    dimension: int | None
    """The dimension that is cut; None: every rank holds the whole parameter."""
    index: int = 0
    """Which of the equal slices is this rank's."""
    num_slices: int = 1
    """How many slices there are."""

    def slice(self, full: torch.Tensor) -> torch.Tensor:
        """Return this rank's part of the whole tensor (a view)."""
        if self.dimension is None:
            return full
        length = full.shape[self.dimension] // self.num_slices
        return full.narrow(self.dimension, self.index * length, length)

    def full_shape(self, local: torch.Size) -> tuple[int, ...]:
        """Return the shape of the whole tensor, given that of this rank's part."""
        shape = list(local)
        if self.dimension is not None:
            shape[self.dimension] *= self.num_slices
        return tuple(shape)


def placement(name: str, config: ModelConfig, tensor: Ranks) -> Placement:
    """Return how the parameter called `name` is laid out over tensor-parallel ranks."""
    module, kind = name.split(".")[-2:]
    if tensor.size == 1 or (module in ("key", "value") and shares_kv_heads(config, tensor)):
        return Placement(None)
    if module in _OUTPUT_ROWS:
        return Placement(0, tensor.rank, tensor.size)
    if module in _INPUT_COLUMNS and kind == "weight":
        return Placement(1, tensor.rank, tensor.size)
    assert module.endswith("norm") or module in (*_INPUT_COLUMNS, "position_table"), name
    return Placement(None)


def shares_kv_heads(config: ModelConfig, tensor: Ranks) -> bool:
    """Whether there are fewer key/value heads than ranks, so that every rank holds them all."""
    return (config.num_kv_heads or config.num_heads) < tensor.size


def check_layout(config: ModelConfig, padded_vocab_size: int, tensor_parallel_size: int) -> None:
    """Refuse a layout that does not divide the model.

    Raises:
        ValueError: names the sizes and the values that would work.
    """
    ranks = tensor_parallel_size
    kv_heads = config.num_kv_heads or config.num_heads
    sizes = {
        "model.num_heads": config.num_heads,
        "model.ffn_size": config.ffn_size,
        "the padded vocabulary (a multiple of model.vocab_multiple)": padded_vocab_size,
    }
    for name, size in sizes.items():
        if size % ranks:
            raise ValueError(
                f"parallel.tensor_parallel_size = {ranks} does not divide {name} = {size}: each "
                "rank holds an equal share of every matrix. Choose a tensor_parallel_size that "
                f"divides it ({_divisors(size, 16)}), or change the model"
            )
    if kv_heads % ranks and ranks % kv_heads:
        raise ValueError(
            f"parallel.tensor_parallel_size = {ranks} and model.num_kv_heads = {kv_heads}: one "
            "must divide the other, so that a rank's query heads find their key/value heads on "
            "the same rank. Change one of them"
        )


def _divisors(number: int, limit: int) -> str:
    return ", ".join(str(k) for k in range(1, limit + 1) if number % k == 0)


def enter(x: torch.Tensor, tensor: Ranks) -> torch.Tensor:
    """Hand a whole tensor to matrices cut by output rows: sums its gradient over the ranks."""
    if tensor.group is None:
        return x
    entered: torch.Tensor = _Enter.apply(x, tensor)  # type: ignore[no-untyped-call]
    return entered


def leave(x: torch.Tensor, tensor: Ranks) -> torch.Tensor:
    """Sum the partial results of matrices cut by input columns; the gradient passes unchanged."""
    if tensor.group is None:
        return x
    left: torch.Tensor = _Leave.apply(x, tensor)  # type: ignore[no-untyped-call]
    return left


class _Enter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tensor: Ranks) -> torch.Tensor:
        ctx.tensor = tensor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.tensor.sum(gradients[0].contiguous()), None


class _Leave(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tensor: Ranks) -> torch.Tensor:
        return tensor.sum(x.contiguous())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None
