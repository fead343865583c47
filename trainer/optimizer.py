"""Gradients in, new weights out: AdamW, and Muon for the matrices of the blocks."""

from __future__ import annotations

import torch
from torch import nn

from .config import OptimizerConfig
from .grid import Grid
from .model import Transformer, placements
from .muon import Muon
from .sharding import local_parameters, num_shards
from .whole_matrices import HeldMatrix


class Optimizers:
    """AdamW for all parameters, or for those that Muon leaves."""

    def __init__(self, adamw: torch.optim.AdamW, muon: Muon | None = None) -> None:
        self._adamw = adamw
        self._muon = muon

    def step(self, learning_rate: float, skip: torch.Tensor | None = None) -> None:
        """Move every parameter by its gradient.

        Args:
            skip: bool[]; where true nothing changes, no state either. It is looked at on the
                device, so nobody waits for it.
        """
        optimizers: list[torch.optim.AdamW | Muon] = [self._adamw]
        if self._muon is not None:
            optimizers.append(self._muon)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            # torch's own door for "the numbers are bad, do nothing": fused kernels look at it.
            optimizer.found_inf = None if skip is None else skip.float()  # type: ignore[union-attr]
            optimizer.step()

    def state(self, model: Transformer, steps: int) -> dict[str, dict[str, torch.Tensor]]:
        """Return what is remembered of every parameter, by kind and name, zeros at first.

        The tensors are the optimizers' own: writing into them restores a state in which `steps`
        steps have been taken.
        """
        states: dict[str, dict[str, torch.Tensor]] = {"mean": {}, "square": {}}
        by_muon = set() if self._muon is None else set(self._muon.param_groups[0]["params"])
        if self._muon is not None:
            states["momentum"] = {}
        for name, parameter in local_parameters(model).items():
            if self._muon is not None and parameter in by_muon:
                states["momentum"][name] = self._muon.momentum(parameter)
                continue
            state = self._adamw.state[parameter]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                state["exp_avg"] = torch.zeros_like(parameter)
                state["exp_avg_sq"] = torch.zeros_like(parameter)
            state["step"].fill_(steps)
            states["mean"][name] = state["exp_avg"]
            states["square"][name] = state["exp_avg_sq"]
        return states


def make_optimizer(model: Transformer, config: OptimizerConfig, grid: Grid) -> Optimizers:
    """Return the optimizer that `config.kind` names, with decay on matrices only.

    AdamW: Loshchilov, Hutter 2019, arXiv:1711.05101. Muon: see muon.py.
    """
    named = local_parameters(model)
    muon = None
    if config.kind == "muon":
        chosen = [name for name, p in named.items() if _is_hidden_matrix(name, p)]
        where, whole = placements(model), dict(model.named_parameters())
        muon = Muon(
            [named[name] for name in chosen],
            [
                HeldMatrix(
                    where[name].full_shape(whole[name].shape), where[name], num_shards(whole[name])
                )
                for name in chosen
            ],
            grid,
            learning_rate=config.learning_rate,
            momentum=config.muon_momentum,
            weight_decay=config.weight_decay,
        )
        named = {name: p for name, p in named.items() if name not in chosen}
    parameters = list(named.values())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,  # one pass over weights, gradients and moments, on CPUs too
    )
    return Optimizers(adamw, muon)


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon is for it: matrices of the blocks, but the router, whose rows are a head's."""
    return name.startswith("blocks.") and parameter.dim() >= 2 and ".router." not in name
