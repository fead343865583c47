"""Tokens in, their experts and gates out; counts of the choices in, evenly used experts out.

A router is one matrix: its outputs, as scores, choose `experts_per_token` experts, whose scores
become the weights (gates) of their results. It computes in float32 or wider. Left alone it soon
uses few experts. Two remedies:

- `balance = "bias"`: a bias is added to the scores in the choice only, and moved after each step
  by the sign of what the expert lacks (Wang et al. 2024, arXiv:2408.15664). It has no gradient.
- `balance = "loss"`: Switch's term (Fedus et al. 2021, arXiv:2101.03961), experts * sum of (share
  of choices * mean probability), taken in each sequence (as in arXiv:2412.19437): sequences are
  the same in every layout, so the term does not depend on micro-batches or ranks.

Legend: B sequences, T positions, N = B * T tokens, D hidden size, E experts, K experts per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .config_model import ModelConfig
from .grid import Ranks
from .layers import wide

if TYPE_CHECKING:
    from .model import Transformer

_NO_DIVISION_BY_ZERO = 1e-20  # far below any score: a larger one would change the gates


class Router(nn.Module):
    """Chooses the experts of each token."""

    def __init__(self, config: ModelConfig, tensor: Ranks) -> None:
        super().__init__()
        self.config = config
        self.tensor = tensor
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.bias: torch.Tensor
        self.register_buffer("bias", torch.zeros(config.num_experts))
        # What a step counts (choices of each expert, both loss terms) arrives as the gradient of
        # this tensor: backward runs once a micro-batch, a forward again when it is recomputed.
        self.tally = torch.zeros(config.num_experts + 2, requires_grad=True)

    def forward(
        self, x_BTD: torch.Tensor, num_valid_B: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return gates[N, K], in float32 or wider, and experts int64[N, K].

        Args:
            x_BTD: whole sequences, the same on every tensor-parallel rank.
            num_valid_B: tokens of each sequence that have a loss, by which the terms of the loss
                count it; None: all.
        """
        config = self.config
        logits_NE = F.linear(wide(x_BTD).flatten(0, 1), self.weight)
        if config.router_score == "softmax":
            scores_NE = logits_NE.softmax(dim=1)
        else:
            scores_NE = logits_NE.sigmoid()
        chosen_NE = scores_NE.detach() + self.bias
        experts_NK = chosen_NE.topk(config.experts_per_token, dim=1).indices
        gates_NK = scores_NE.gather(1, experts_NK)
        if config.normalize_gates:
            gates_NK = gates_NK / (gates_NK.sum(dim=1, keepdim=True) + _NO_DIVISION_BY_ZERO)
        if torch.is_grad_enabled():
            gates_NK = self._observe(x_BTD.shape, logits_NE, scores_NE, experts_NK, gates_NK,
                                     num_valid_B)  # fmt: skip
        return gates_NK, experts_NK

    def _observe(
        self,
        shape: torch.Size,
        logits_NE: torch.Tensor,
        scores_NE: torch.Tensor,
        experts_NK: torch.Tensor,
        gates_NK: torch.Tensor,
        num_valid_B: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the gates, whose backward adds the loss terms' gradients and the counts."""
        config = self.config
        shape_BTE = (*shape[:2], config.num_experts)
        taken_NE = torch.zeros_like(scores_NE).scatter_(1, experts_NK, 1.0)
        counts_BE = taken_NE.view(shape_BTE).sum(dim=1)
        if num_valid_B is None:
            num_valid_B = counts_BE.new_full((shape[0],), shape[1])
        weight_B = num_valid_B.to(counts_BE.dtype)
        loss = balance = z = counts_BE.new_zeros(())
        if config.balance == "loss":
            chances_NE = scores_NE
            if config.router_score == "sigmoid":
                chances_NE = scores_NE / (scores_NE.sum(dim=1, keepdim=True) + _NO_DIVISION_BY_ZERO)
            chance_BE = chances_NE.view(shape_BTE).mean(dim=1)
            share_BE = counts_BE / (config.experts_per_token * shape[1])
            balance = (weight_B * (share_BE * chance_BE).sum(dim=1)).sum() * config.num_experts
            loss = loss + config.balance_loss_weight * balance
        if config.router_z_loss_weight > 0:
            z_BT = logits_NE.logsumexp(dim=1).square().view(shape[:2])
            z = (weight_B * z_BT.mean(dim=1)).sum()
            loss = loss + config.router_z_loss_weight * z
        numbers = torch.cat([counts_BE.sum(dim=0), torch.stack([balance, z])]).detach()
        observed_NK: torch.Tensor = _Observe.apply(  # type: ignore[no-untyped-call]
            # Every tensor-parallel rank has the whole term; its gradient is summed over them.
            gates_NK, loss / self.tensor.size, self.tally, numbers.to(self.tally.dtype)
        )  # fmt: skip
        return observed_NK

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Router:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.tally = fn(self.tally.detach()).requires_grad_()
        return self


class _Observe(torch.autograd.Function):
    """The gates as they are; backward gives the loss term gradient 1, the tally its numbers.

    Right for gradients of a *summed* loss, to which the term is added by this.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gates_NK: torch.Tensor,
        loss: torch.Tensor,
        tally: torch.Tensor,
        numbers: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(numbers)
        return gates_NK.view_as(gates_NK)

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        (numbers,) = ctx.saved_tensors
        return gradients[0], gradients[0].new_ones(()), numbers, None


class Routing(NamedTuple):
    """What all routers did in one step, the same on every rank."""

    counts_LE: torch.Tensor
    """Choices of each expert in each layer."""
    balance_L: torch.Tensor
    """Sum over sequences of (valid tokens * balance term)."""
    z_L: torch.Tensor
    """The same of the z term."""


def collect_routing(model: Transformer, data: Ranks) -> Routing | None:
    """Return what the routers did since the last call, over all ranks; None for a dense model."""
    routers = routers_of(model)
    if not routers:
        return None
    found = [
        router.tally.grad if router.tally.grad is not None else torch.zeros_like(router.tally)
        for router in routers
    ]
    for router in routers:
        router.tally.grad = None
    numbers = data.sum(torch.stack(found).detach())
    return Routing(numbers[:, :-2], numbers[:, -2], numbers[:, -1])


@torch.no_grad()
def balance_experts(
    model: Transformer, routing: Routing, taken: torch.Tensor | None = None
) -> None:
    """Raise the bias of experts that got less than their share, lower that of the others.

    Args:
        taken: bool[], whether the step was taken; None: it was.
    """
    frozen = not routers_of(model)[0].weight.requires_grad
    if model.config.balance != "bias" or frozen:
        return
    counts_LE = routing.counts_LE
    change_LE = (counts_LE.mean(dim=1, keepdim=True) - counts_LE).sign()
    change_LE *= model.config.balance_bias_rate
    if taken is not None:
        change_LE *= taken
    for router, change_E in zip(routers_of(model), change_LE, strict=True):
        router.bias += change_E


def routing_metrics(routing: Routing, num_tokens: float) -> dict[str, float]:
    """Return what a log line says: loads as shares of an even one, over all layers.

    `expert_load_entropy` is the mean over layers of the entropy of the load, 1 where it is even;
    `balance_loss` and `router_z_loss` are means over tokens and layers, before their weights.

    Args:
        num_tokens: valid tokens of the step.
    """
    counts_LE = routing.counts_LE.double()
    share_LE = counts_LE / counts_LE.sum(dim=1, keepdim=True).clamp(min=1)
    num_layers, num_experts = share_LE.shape
    entropy_L = torch.special.entr(share_LE).sum(dim=1)
    sums = (routing.balance_L.sum(), routing.z_L.sum())
    balance, z = (float(total) / max(1.0, num_tokens) / num_layers for total in sums)
    metrics = {
        "expert_load_min": float(share_LE.min()) * num_experts,
        "expert_load_max": float(share_LE.max()) * num_experts,
        "expert_load_entropy": float(entropy_L.mean()) / math.log(max(2, num_experts)),
    }
    return metrics | {"balance_loss": balance, "router_z_loss": z}


def routers_of(model: nn.Module) -> list[Router]:
    """Return the routers, first layer first."""
    return [module for module in model.modules() if isinstance(module, Router)]
