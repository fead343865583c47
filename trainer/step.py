"""One optimizer step: this rank's batch in, new weights and a few numbers out."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .batch import Batch
from .gradients import (
    clear_gradients,
    gradient_norm,
    gradients_of,
    scale_gradients,
    sum_gradients,
)
from .grid import Grid
from .guard import Guard
from .model import Transformer
from .optimizer import Optimizers
from .places import document_places
from .router import Routing, balance_experts, collect_routing


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
    skipped: bool
    """Whether the guard left weights and optimizer as they were."""
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
        places = document_places(part.bounds_BN, device, model.compute_dtype, model.config.causal)
        loss = model.loss(
            part.tokens_BT, part.labels_BT, part.mask_BT, places, loss_chunk_tokens, part.rows_N
        )
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


class PendingStep:
    """A step whose work is given to the device; its numbers are on their way."""

    def __init__(self, numbers: torch.Tensor, routing: Routing | None) -> None:
        self._routing = routing
        self._numbers = numbers
        self._arrived: torch.cuda.Event | None = None
        if numbers.is_cuda:
            self._numbers = numbers.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> StepResult:
        """Return what the step tells; waits until the device has done it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        loss_sum, num_tokens, stops, norm, skipped = self._numbers.tolist()
        return StepResult(
            loss=loss_sum / max(1.0, num_tokens),
            gradient_norm=norm,
            num_tokens=int(num_tokens),
            stop=stops > 0,
            skipped=skipped > 0,
            routing=self._routing,
        )


def start_step(
    model: Transformer,
    optimizer: Optimizers,
    batch: Batch,
    grid: Grid,
    guard: Guard,
    *,
    micro_batch_size: int,
    learning_rate: float,
    clip_norm: float,
    stop: bool = False,
    loss_chunk_tokens: int = 0,
) -> PendingStep:
    """Take one optimizer step; all ranks call it. Nothing in it waits for a GPU.

    The loss is summed over micro-batches and ranks and divided once, so that neither changes it.

    Args:
        guard: says whether the step is skipped: then weights and optimizer stay as they are.
        stop: whether this rank was asked to stop; the result says whether any was.
        loss_chunk_tokens: tokens whose logits exist at once; 0: as many as suit the device.
    """
    device = model.device
    loss = accumulate(model, batch, micro_batch_size, device, loss_chunk_tokens)
    counts = torch.tensor([batch.num_valid, stop], dtype=torch.float64)
    if device.type == "cuda":
        counts = counts.pin_memory().to(device, non_blocking=True)
    totals = grid.world.sum(torch.cat([loss[None], counts])) / grid.tensor.size
    gradients = gradients_of(model)
    sum_gradients(model, gradients, grid)
    norm = gradient_norm(model, gradients, grid)
    norm = scale_gradients(list(gradients.values()), norm, totals[1], clip_norm)
    routing = collect_routing(model, grid.data)
    skip = guard.judge(totals[0], norm)
    optimizer.step(learning_rate, skip)
    if routing is not None:
        balance_experts(model, routing, ~skip)
    clear_gradients(model)
    return PendingStep(torch.cat([totals, norm[None].double(), skip[None].double()]), routing)
