"""Gradients in, new weights out: AdamW."""

from __future__ import annotations

import torch

from .config import OptimizerConfig
from .model import Transformer
from .sharding import local_parameters


def make_optimizer(model: Transformer, config: OptimizerConfig) -> torch.optim.AdamW:
    """Return AdamW (Loshchilov, Hutter 2019, arXiv:1711.05101) with decay on matrices only."""
    parameters = list(local_parameters(model).values())
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
    model: Transformer, optimizer: torch.optim.AdamW, steps: int
) -> dict[str, dict[str, torch.Tensor]]:
    """Return both moments of every parameter by name, created where there are none yet.

    The tensors are the optimizer's own: writing into them restores a state in which `steps` steps
    have been taken.
    """
    states: dict[str, dict[str, torch.Tensor]] = {"mean": {}, "square": {}}
    for name, parameter in local_parameters(model).items():
        state = optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"].fill_(steps)
        states["mean"][name] = state["exp_avg"]
        states["square"][name] = state["exp_avg_sq"]
    return states
