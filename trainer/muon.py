"""Gradients of matrices in, orthogonalized steps out: Muon.

The momentum of a matrix is replaced by the nearest (semi-)orthogonal matrix, by a few
Newton-Schulz iterations, so that every direction moves equally far (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon). Steps are scaled by 0.2 sqrt(max(rows, columns)), the
size of AdamW's, so that learning rate and weight decay serve both (Liu et al. 2025,
arXiv:2502.16982).

The orthogonal factor of a slice is no slice of the orthogonal factor. Under tensor parallelism
the momentum is therefore gathered, orthogonalized whole on every rank, and cut again: steps are
the same in every layout. Each expert of a stack [E, rows, columns] is a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed._functional_collectives as funcol
from torch import nn

from .grid import Ranks
from .parallel import Placement

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
_LEAST_NORM = 1e-7
_MATCHED_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for matrices and stacks of them.

    Args:
        parameters: [..., rows, columns] each, this rank's slices.
        places: how each of them is cut.
        tensor: the ranks that hold the other slices.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        places: Iterable[Placement],
        tensor: Ranks,
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        defaults = {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(list(parameters), defaults)
        self._places = list(places)
        self._tensor = tensor
        self.found_inf: torch.Tensor | None = None
        """float32[]; where it is not 0, nothing changes."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter."""
        assert closure is None
        (group,) = self.param_groups
        rate, beta, decay = group["lr"], group["momentum"], group["weight_decay"]
        for parameter, place in zip(group["params"], self._places, strict=True):
            gradient, momentum = parameter.grad, self.momentum(parameter)
            if gradient is None:
                continue
            moved = momentum.lerp(gradient, 1 - beta)
            whole = orthogonalize(self._whole(gradient.lerp(moved, beta), place))
            size = rate * _MATCHED_RMS * max(whole.shape[-2:]) ** 0.5
            step = self._part(whole, place).to(parameter.dtype)
            changed = parameter * (1 - rate * decay) - size * step
            if self.found_inf is not None:  # decided where the numbers are: no GPU is waited for
                skip = self.found_inf != 0
                moved = torch.where(skip, momentum, moved)
                changed = torch.where(skip, parameter, changed)
            momentum.copy_(moved)
            parameter.copy_(changed)

    def momentum(self, parameter: nn.Parameter) -> torch.Tensor:
        """Return the running mean of the parameter's gradients, made where there is none."""
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        found: torch.Tensor = state["momentum"]
        return found

    def _whole(self, part: torch.Tensor, place: Placement) -> torch.Tensor:
        if place.tensor is None or self._tensor.group is None:
            return part
        gathered = funcol.all_gather_tensor(
            part.contiguous(), place.tensor.dimension, self._tensor.group
        )
        whole: torch.Tensor = funcol.wait_tensor(gathered)  # type: ignore[no-untyped-call]
        return whole

    def _part(self, whole: torch.Tensor, place: Placement) -> torch.Tensor:
        if place.tensor is None or self._tensor.group is None:
            return whole
        dimension, index, num_slices = place.tensor
        length = whole.shape[dimension] // num_slices
        return whole.narrow(dimension, index * length, length)


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return about U Vᵀ of the singular value decomposition U S Vᵀ of each matrix [..., R, C].

    Singular values of the result lie between 0.7 and 1.2: the quintic's slope at 0 makes small
    ones grow fast, and it does not settle at 1. bfloat16 is enough on GPUs.
    """
    a, b, c = COEFFICIENTS
    x = matrix.to(torch.bfloat16) if matrix.is_cuda and matrix.dtype != torch.float64 else matrix
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
