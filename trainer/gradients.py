"""Gradients of a summed loss in, gradients of the mean loss out: the sums and norms across ranks.

The order within a step: every micro-batch adds the gradient of its *summed* loss; `sum_gradients`
adds up what the ranks have, once; `scale_gradients` divides once by the valid tokens of the whole
step and clips by a norm that is the same in every layout.
"""

from __future__ import annotations

import torch

from .grid import Grid, Ranks
from .model import Transformer, placements
from .parallel import Placement
from .sharding import local_parameters, local_part, num_shards, trained_parameters

_BUCKET_ELEMENTS = 32 << 20


def gradients_of(model: Transformer) -> dict[str, torch.Tensor]:
    """Return the gradients that this rank holds by name, zeros where a parameter took no part.

    The optimizer sees the same tensors.
    """
    gradients = {}
    local = local_parameters(model)
    for name, parameter in trained_parameters(model).items():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        gradients[name] = local_part(parameter.grad)
        if local[name] is not parameter:
            local[name].grad = gradients[name]
    return gradients


def clear_gradients(model: Transformer) -> None:
    """Forget the gradients of a step.

    On CPUs they become zeros in the same memory: allocated anew in every backward, among the
    activations that it computes and frees, they would leave holes all over the heap, which then
    grows by a fifth to a half.
    """
    if model.device.type == "cpu":
        gradients = [local_part(p.grad) for p in model.parameters() if p.grad is not None]
        if gradients:
            torch._foreach_zero_(gradients)
        return
    for parameter in (*model.parameters(), *local_parameters(model).values()):
        parameter.grad = None


def sum_gradients(model: Transformer, gradients: dict[str, torch.Tensor], grid: Grid) -> None:
    """Add up what tensor- and data-parallel ranks have, in place, in few large messages.

    Shards are summed over the data-parallel ranks already, where FSDP scattered them.
    """
    where = placements(model)
    whole = {name for name, p in trained_parameters(model).items() if num_shards(p) == 1}

    def chosen(is_expert: bool) -> list[torch.Tensor]:
        return [g for n, g in gradients.items() if n in whole and where[n].is_expert == is_expert]

    _sum([g for n, g in gradients.items() if where[n].is_partial], grid.tensor)
    _sum(chosen(is_expert=False), grid.data)
    _sum(chosen(is_expert=True), grid.expert_data)


def _sum(gradients: list[torch.Tensor], ranks: Ranks) -> None:
    if ranks.group is None:
        return
    bucket: list[torch.Tensor] = []
    size = 0
    for number, gradient in enumerate(gradients):
        bucket.append(gradient)
        size += gradient.numel()
        if size >= _BUCKET_ELEMENTS or number == len(gradients) - 1:
            total = ranks.sum(torch.cat([part.flatten() for part in bucket]))
            parts = torch.split(total, [part.numel() for part in bucket])
            torch._foreach_copy_(
                bucket, [new.view_as(old) for new, old in zip(parts, bucket, strict=True)]
            )
            bucket, size = [], 0


def gradient_norm(
    model: Transformer, gradients: dict[str, torch.Tensor], grid: Grid
) -> torch.Tensor:
    """Return the global L2 norm, float64, the same in every layout and on every rank.

    Slices and shards count on the rank that holds them, what n ranks hold alike 1/n on each.
    """
    where = placements(model)
    squares = torch.stack(torch._foreach_norm(list(gradients.values()))).double().square()
    parts = [_num_parts(where[name], p) for name, p in trained_parameters(model).items()]
    if all(number == 1 for number in parts):
        return squares.sum().sqrt()
    share = torch.tensor(parts, dtype=torch.float64, device=squares.device) / grid.world.size
    return grid.world.sum((squares * share).sum()).sqrt()


def _num_parts(where: Placement, parameter: torch.Tensor) -> int:
    """Return into how many different parts a parameter is cut over all ranks."""
    parts = num_shards(parameter)
    for cut in where.cuts:
        parts *= cut.num_slices
    return parts


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
