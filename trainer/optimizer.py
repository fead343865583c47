"""Gradients in, new weights out: AdamW, and the sums and norms that span ranks.

The order within a step: every micro-batch adds the gradient of its *summed* loss; `sum_gradients`
adds up the copies of the model once; `scale_gradients` divides once by the valid tokens of the
whole step and clips by a norm that is the same in every layout.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from .config import OptimizerConfig
from .grid import Grid, Ranks
from .model import Transformer, placements

_BUCKET_ELEMENTS = 32 << 20


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101) with decay on matrices only."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,  # one pass over weights, gradients and moments, on CPUs too
    )


def optimizer_state(
    model: nn.Module, optimizer: torch.optim.AdamW, steps: int
) -> dict[str, dict[str, torch.Tensor]]:
    """Return both moments of every parameter by name, created where there are none yet.

    The tensors are the optimizer's own: writing into them restores a state in which `steps` steps
    have been taken.
    """
    states: dict[str, dict[str, torch.Tensor]] = {"mean": {}, "square": {}}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"].fill_(steps)
        states["mean"][name] = state["exp_avg"]
        states["square"][name] = state["exp_avg_sq"]
    return states


def gradients_of(parameters: Iterable[nn.Parameter]) -> list[torch.Tensor]:
    """Return the gradients, zeros where a parameter took no part."""
    gradients = []
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients.append(parameter.grad)
    return gradients


def sum_gradients(gradients: list[torch.Tensor], data: Ranks) -> None:
    """Add up the gradients of all copies of the model, in place, in few large messages."""
    if data.group is None:
        return
    bucket: list[torch.Tensor] = []
    size = 0
    for number, gradient in enumerate(gradients):
        bucket.append(gradient)
        size += gradient.numel()
        if size >= _BUCKET_ELEMENTS or number == len(gradients) - 1:
            total = data.sum(torch.cat([part.flatten() for part in bucket]))
            parts = torch.split(total, [part.numel() for part in bucket])
            torch._foreach_copy_(
                bucket, [new.view_as(old) for new, old in zip(parts, bucket, strict=True)]
            )
            bucket, size = [], 0


def gradient_norm(model: Transformer, gradients: list[torch.Tensor], grid: Grid) -> torch.Tensor:
    """Return the global L2 norm, float64, the same in every layout.

    Slices count on the rank that holds them, whole parameters once.
    """
    cut = [where.dimension is not None for where in placements(model).values()]
    squares = torch.stack(torch._foreach_norm(gradients)).double().square()
    is_cut = torch.tensor(cut, device=squares.device)
    if grid.tensor.group is None:
        return squares.sum().sqrt()
    sliced = grid.tensor.sum(squares[is_cut].sum())
    return (sliced + squares[~is_cut].sum()).sqrt()


def scale_gradients(
    gradients: list[torch.Tensor], norm: torch.Tensor, num_tokens: torch.Tensor, clip_norm: float
) -> torch.Tensor:
    """Divide summed gradients by the step's valid tokens, clip them; return the unclipped norm.

    Args:
        norm: of the summed gradients.
        num_tokens: valid tokens of the step over all ranks.
        clip_norm: largest norm of the mean gradient; 0: no clipping.
    """
    share = 1 / num_tokens.clamp(min=1).double()
    norm = norm * share
    if clip_norm > 0:
        share = share * (clip_norm / (norm + 1e-6)).clamp(max=1)
    torch._foreach_mul_(gradients, share.to(gradients[0].dtype))
    return norm
