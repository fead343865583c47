"""Gradients of matrices in, orthogonalized steps out: Muon.

The momentum of a matrix is replaced by the nearest (semi-)orthogonal matrix, by a few
Newton-Schulz iterations, so that every direction moves equally far (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon). Steps are scaled by 0.2 sqrt(max(rows, columns)), the
size of AdamW's, so that learning rate and weight decay serve both (Liu et al. 2025,
arXiv:2502.16982).

The orthogonal factor of a slice is no slice of the orthogonal factor. Where ranks hold parts or
copies of a matrix, one of them puts it together and orthogonalizes it for all (whole_matrices.py):
steps are the same in every layout, and the work is divided. Each expert of a stack
[E, rows, columns] is a matrix of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .grid import Grid
from .whole_matrices import HeldMatrix, WholeMatrices

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
_LEAST_NORM = 1e-7
_MATCHED_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay, for matrices and stacks of them.

    Args:
        parameters: [..., rows, columns] each, what this rank holds of them.
        held: how each of them is divided among the ranks.
        grid: the ranks.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        held: Iterable[HeldMatrix],
        grid: Grid,
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        defaults = {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(list(parameters), defaults)
        self._held = list(held)
        self._matrices = WholeMatrices(self._held, grid)
        self.found_inf: torch.Tensor | None = None
        """float32[]; where it is not 0, nothing changes."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter; each has a gradient."""
        assert closure is None
        (group,) = self.param_groups
        parameters, beta = group["params"], group["momentum"]

        def direction(number: int) -> torch.Tensor:
            gradient = parameters[number].grad
            moved = self.momentum(parameters[number]).lerp(gradient, 1 - beta)
            return _format(gradient.lerp(moved, beta))  # Nesterov's

        for number, step in self._matrices.map(orthogonalize, direction):
            parameter = parameters[number]
            momentum = self.momentum(parameter)
            size = group["lr"] * _MATCHED_RMS * max(self._held[number].shape[-2:]) ** 0.5
            moved = momentum.lerp(parameter.grad, 1 - beta)
            changed = parameter * (1 - group["lr"] * group["weight_decay"])
            changed -= size * step.to(parameter.dtype)
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


def orthogonalize(matrix: torch.Tensor) -> torch.Tensor:
    """Return about U Vᵀ of the singular value decomposition U S Vᵀ of each matrix [..., R, C].

    Singular values of the result lie between 0.7 and 1.2: the quintic's slope at 0 makes small
    ones grow fast, and it does not settle at 1.
    """
    a, b, c = COEFFICIENTS
    x = matrix
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_LEAST_NORM)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    if tall:
        x = x.mT
    result: torch.Tensor = x
    return result


def _format(matrix: torch.Tensor) -> torch.Tensor:
    """Return the matrix in the number format to work in: bfloat16 is enough on GPUs."""
    narrow = matrix.is_cuda and matrix.dtype != torch.float64
    return matrix.to(torch.bfloat16) if narrow else matrix
