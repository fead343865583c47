"""Tensor parallelism: local tensors, and the few places where ranks talk to each other.

Every rank holds a slice of each matrix. A pair of matrices is cut so that only its ends need a
collective (Shoeybi et al. 2019, arXiv:1909.08053): the first by output rows, the second by input
columns.

    x ── enter ──► W1[rows of this rank] ──► W2[columns of this rank] ── leave ──► y
         forward: x    (each rank computes its part of the inner width)  forward: sum over ranks
         backward: sum over ranks                                        backward: dy

With sequence parallelism (Korthikanti et al. 2022, arXiv:2205.05198) a rank holds a part of the
sequence between `leave` and the next `enter`: the sum becomes a reduce-scatter, and its other half,
the all-gather, moves to `enter`. So norms and the residual stream are divided too, and the same
bytes travel.

With one rank `enter` and `leave` return their argument: no Function, no collective, the plain
module. Which parameter is cut along which dimension, and whose gradient is only a part of the sum
on each rank, stands in one table, `placement`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.distributed._functional_collectives as funcol

from .config_model import ModelConfig
from .grid import Ranks, divisors

_OUTPUT_ROWS = ("embedding", "head", "masked_head", "query", "key", "value", "gate", "up")
_INPUT_COLUMNS = ("output", "down")
_TABLES = ("position_table", "token_type_table")


class Cut(NamedTuple):
    """One division of a tensor into equal slices."""

    dimension: int
    """The dimension that is cut."""
    place: int
    """Which of the slices is this rank's."""
    num_slices: int
    """How many there are."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a rank's part of a parameter lies in the whole, shards of FSDP aside."""

    tensor: Cut | None = None
    """The cut over tensor-parallel ranks; None: each holds the whole parameter."""
    expert: Cut | None = None
    """The cut over expert-parallel ranks (experts only)."""
    is_expert: bool = False
    """Whether it belongs to experts: ranks with other experts have no gradient for it."""
    is_partial: bool = False
    """Whether tensor-parallel ranks have parts of its gradient, to be summed over them."""

    @property
    def cuts(self) -> tuple[Cut, ...]:
        """All cuts."""
        return tuple(cut for cut in (self.expert, self.tensor) if cut is not None)

    def slice(self, full: torch.Tensor) -> torch.Tensor:
        """Return this rank's part of the whole tensor (a view)."""
        for dimension, place, num_slices in self.cuts:
            length = full.shape[dimension] // num_slices
            full = full.narrow(dimension, place * length, length)
        return full

    def full_shape(self, local: torch.Size) -> tuple[int, ...]:
        """Return the shape of the whole tensor, given that of this rank's part."""
        shape = list(local)
        for cut in self.cuts:
            shape[cut.dimension] *= cut.num_slices
        return tuple(shape)


_ALONE = Ranks()


def placement(
    name: str,
    config: ModelConfig,
    tensor: Ranks,
    expert: Ranks = _ALONE,
    sequence_parallel: bool = False,
) -> Placement:
    """Return how the parameter or buffer called `name` is laid out over the ranks of one copy."""
    module, kind = name.split(".")[-2:]
    if name.startswith("masked_head.") and name != "masked_head.bias":
        # It stands between `enter` and the output layer, whose gradient every rank has a part of.
        return Placement(is_partial=tensor.size > 1)

    def cut(dimension: int, axis: Ranks) -> Cut | None:
        return Cut(dimension, axis.rank, axis.size) if axis.size > 1 else None

    if module == "experts":
        dimension = 2 if kind == "down" else 1
        return Placement(cut(dimension, tensor), cut(0, expert), is_expert=True)
    if tensor.size == 1:
        return Placement()
    if module in ("key", "value") and shares_kv_heads(config, tensor):
        return Placement(is_partial=True)  # the other ranks use other heads, or the same
    if kind in ("lora_a", "lora_b"):
        # One of the pair is cut as its matrix is; the other is whole, and every rank has the part
        # of its gradient that comes of its own outputs, or inputs.
        if kind == "lora_a":
            return Placement(cut(1, tensor) if module in _INPUT_COLUMNS else None,
                             is_partial=module in _OUTPUT_ROWS)  # fmt: skip
        return Placement(cut(0, tensor) if module in _OUTPUT_ROWS else None,
                         is_partial=module in _INPUT_COLUMNS)  # fmt: skip
    if module in _OUTPUT_ROWS:
        return Placement(cut(0, tensor))
    if module in _INPUT_COLUMNS and kind == "weight":
        return Placement(cut(1, tensor))
    if module in ("query_norm", "key_norm", "router"):  # used with the heads or experts of a rank
        return Placement(is_partial=True)
    assert module.endswith("norm") or module in (*_INPUT_COLUMNS, *_TABLES), name
    return Placement(is_partial=sequence_parallel)


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
    inner = "model.expert_ffn_size" if config.num_experts else "model.ffn_size"
    sizes = {
        "model.num_heads": config.num_heads,
        inner: config.expert_ffn_size if config.num_experts else config.ffn_size,
        "the padded vocabulary (a multiple of model.vocab_multiple)": padded_vocab_size,
    }
    for name, size in sizes.items():
        if size % ranks:
            raise ValueError(
                f"parallel.tensor_parallel_size = {ranks} does not divide {name} = {size}: each "
                "rank holds an equal share of every matrix. Choose a tensor_parallel_size that "
                f"divides it ({divisors(size, 16)}), or change the model"
            )
    if kv_heads % ranks and ranks % kv_heads:
        raise ValueError(
            f"parallel.tensor_parallel_size = {ranks} and model.num_kv_heads = {kv_heads}: one "
            "must divide the other, so that a rank's query heads find their key/value heads on "
            "the same rank. Change one of them"
        )


def check_experts(config: ModelConfig, expert_parallel_size: int) -> None:
    """Refuse experts that the ranks cannot share equally.

    Raises:
        ValueError: names the sizes and the values that would work.
    """
    ranks = expert_parallel_size
    if ranks > 1 and not config.num_experts:
        raise ValueError(
            f"parallel.expert_parallel_size = {ranks}, but the model has no experts: set it to 1, "
            "or model.num_experts"
        )
    if config.num_experts % ranks:
        raise ValueError(
            f"parallel.expert_parallel_size = {ranks} does not divide model.num_experts = "
            f"{config.num_experts}: each rank holds as many experts. Set it to one of "
            f"{divisors(config.num_experts)}, or change the model"
        )


def check_sequence(length: int, tensor_parallel_size: int) -> None:
    """Refuse a sequence that tensor-parallel ranks cannot share equally.

    Raises:
        ValueError: names the sizes and what to change.
    """
    if length % tensor_parallel_size:
        raise ValueError(
            f"parallel.sequence_parallel = true, and a sequence of {length} tokens cannot be "
            f"divided among parallel.tensor_parallel_size = {tensor_parallel_size} ranks. Choose "
            "a data.sequence_length that is a multiple of it, or set sequence_parallel = false"
        )


def enter(x: torch.Tensor, tensor: Ranks, sequence_parallel: bool = False) -> torch.Tensor:
    """Hand x to matrices cut by output rows: sums its gradient over the ranks.

    Args:
        x: the same on every rank; with sequence_parallel this rank's part along dimension 1, and
            the result is whole.
    """
    if tensor.group is None:
        return x
    function = _Gather if sequence_parallel else _Enter
    entered: torch.Tensor = function.apply(x, tensor)  # type: ignore[no-untyped-call]
    return entered


def leave(x: torch.Tensor, tensor: Ranks, sequence_parallel: bool = False) -> torch.Tensor:
    """Sum the partial results of matrices cut by input columns.

    With sequence_parallel each rank gets its part of the sum along dimension 1.
    """
    if tensor.group is None:
        return x
    function = _Scatter if sequence_parallel else _Leave
    left: torch.Tensor = function.apply(x, tensor)  # type: ignore[no-untyped-call]
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


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tensor: Ranks) -> torch.Tensor:
        ctx.tensor = tensor
        return _all_gather(x, tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _reduce_scatter(gradients[0], ctx.tensor), None


class _Scatter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, tensor: Ranks) -> torch.Tensor:
        ctx.tensor = tensor
        return _reduce_scatter(x, tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _all_gather(gradients[0], ctx.tensor), None


# Newer torch calls them by other names, and warns at the old ones.
_gather_rows = getattr(funcol, "all_gather_single", None) or funcol.all_gather_tensor
_scatter_rows = getattr(funcol, "reduce_scatter_single", None) or funcol.reduce_scatter_tensor


def _all_gather(x_BTD: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Return the ranks' parts of the sequence one after the other."""
    assert ranks.group is not None
    # Collectives join along dimension 0, where a part is contiguous; a single sequence is already.
    gathered = _gather_rows(x_BTD.contiguous(), 0, ranks.group)
    parts: torch.Tensor = funcol.wait_tensor(gathered)  # type: ignore[no-untyped-call]
    return parts.view(ranks.size, *x_BTD.shape).transpose(0, 1).flatten(1, 2)


def _reduce_scatter(x_BTD: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    """Return this rank's part of the sequence of the sum over ranks."""
    assert ranks.group is not None
    parts = torch.cat(x_BTD.chunk(ranks.size, dim=1))
    total = _scatter_rows(parts, "sum", 0, ranks.group)
    part: torch.Tensor = funcol.wait_tensor(total)  # type: ignore[no-untyped-call]
    return part
