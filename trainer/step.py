"""One optimizer step: this rank's batch in, new weights and a few numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from .data import Batch
from .gradients import (
    clear_gradients,
    gradient_norm,
    gradients_of,
    scale_gradients,
    sum_gradients,
)
from .grid import Grid
from .model import Transformer
from .places import document_places
from .router import Routing, balance_experts, collect_routing


class TrainingDivergedError(ValueError):
    """Loss or gradients are no longer finite numbers."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step tells, the same on every rank."""

    loss: float
    """Mean nll of all valid tokens of the step, nats."""
    gradient_norm: float
    """Global L2 norm of the mean loss's gradient, before clipping."""
    num_tokens: int
    """Valid tokens of the step."""
    stop: bool
    """Whether any rank was asked to stop."""
    routing: Routing | None
    """What the routers of a mixture of experts did."""


def accumulate(
    model: Transformer,
    batch: Batch,
    micro_batch_size: int,
    device: torch.device,
    loss_chunk_tokens: int = 0,
) -> torch.Tensor:
    """Add the gradients of the batch's summed loss; return that sum, float64[]."""
    total = torch.zeros((), dtype=torch.float64, device=device)
    for part in batch.micro_batches(micro_batch_size, device):
        places = document_places(part.bounds_BN, device, model.compute_dtype)
        loss = model.loss(part.tokens_BT, part.labels_BT, part.mask_BT, loss_chunk_tokens, places)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def take_step(
    model: Transformer,
    optimizer: torch.optim.AdamW,
    batch: Batch,
    grid: Grid,
    *,
    micro_batch_size: int,
    learning_rate: float,
    clip_norm: float,
    stop: bool = False,
) -> StepResult:
    """Take one optimizer step; all ranks call it.

    The loss is summed over micro-batches and ranks and divided once, so that neither changes it.

    Args:
        stop: whether this rank was asked to stop; the result says whether any was.

    Raises:
        TrainingDivergedError: loss or norm is not finite; the weights are as before the step.
    """
    device = model.norm.weight.device
    loss = accumulate(model, batch, micro_batch_size, device)
    counts = torch.tensor([batch.num_valid, stop], dtype=torch.float64, device=device)
    totals = grid.world.sum(torch.cat([loss[None], counts])) / grid.tensor.size
    gradients = gradients_of(model)
    sum_gradients(model, gradients, grid)
    norm = gradient_norm(model, gradients, grid)
    norm = scale_gradients(list(gradients.values()), norm, totals[1], clip_norm)
    routing = collect_routing(model, grid.data)
    loss_sum, num_tokens, stops = totals.tolist()
    result = StepResult(
        loss=loss_sum / max(1.0, num_tokens),
        gradient_norm=norm.item(),
        num_tokens=int(num_tokens),
        stop=stops > 0,
        routing=routing,
    )
    if not math.isfinite(result.loss) or not math.isfinite(result.gradient_norm):
        raise TrainingDivergedError(
            f"the loss is {result.loss}, the gradient's norm {result.gradient_norm}: the training "
            "has diverged. Lower optimizer.learning_rate or lengthen schedule.warmup_steps; the "
            "last checkpoint is from before"
        )
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    if routing is not None:
        balance_experts(model, routing)
    clear_gradients(model)
    return result
