"""Logits in, the next token out; the vocabulary may lie in slices on many ranks.

Nothing gathers the logits. Ranks exchange their highest candidates to find where a cut lies, then
each masks its own slice, and the token is the largest of logit + Gumbel noise (Maddison et al.
2014, arXiv:1411.0030), which is an exact draw from the softmax of what is left. The noise of
an id does not depend on the layout, so neither does the token.

Legend: B sequences, V vocabulary columns of this rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .grid import Ranks

_FIRST_CANDIDATES = 256
_ALONE = Ranks()


@dataclass(frozen=True, slots=True)
class Sampler:
    """How the next token is drawn. The cuts apply in the order of the fields."""

    temperature: float = 1.0
    """Divides the logits; 0: the likeliest token, the first of equals."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Keep the smallest set of the likeliest tokens that holds this much probability
    (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751)."""
    min_p: float = 0.0
    """Keep tokens of at least this share of the likeliest one's probability (Nguyen et al. 2024,
    arXiv:2407.01082)."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature = {self.temperature} and top_k = {self.top_k} must not be negative, "
                f"top_p = {self.top_p} must lie in (0, 1]"
            )
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p = {self.min_p} must lie in [0, 1]")

    def draw(
        self,
        logits_BV: torch.Tensor,
        generators: list[torch.Generator],
        tensor: Ranks = _ALONE,
    ) -> torch.Tensor:
        """Return int64[B], the same on every rank; each sequence draws from its own generator.

        Args:
            logits_BV: this rank's columns, -inf where they are padding.
            generators: in the same state on every rank; unused at temperature 0.
            tensor: the ranks that hold the other columns.
        """
        logits_BV = logits_BV.double()
        if self.temperature == 0:
            return _highest(logits_BV, tensor)
        logits_BV = logits_BV / self.temperature
        columns = logits_BV.shape[1]
        if 0 < self.top_k < columns * tensor.size:
            values_BC, _ = _candidates(logits_BV, self.top_k, tensor)
            lowest_B1 = values_BC[:, self.top_k - 1, None]
            logits_BV = logits_BV.masked_fill(logits_BV < lowest_B1, -torch.inf)
        if self.top_p < 1:
            logits_BV = _nucleus(logits_BV, self.top_p, tensor)
        if self.min_p > 0:
            highest_B1 = tensor.max(logits_BV.amax(dim=1, keepdim=True))
            too_low_BV = (logits_BV - highest_B1).exp() < self.min_p
            logits_BV = logits_BV.masked_fill(too_low_BV, -torch.inf)
        first = tensor.rank * columns
        noise = [
            torch.empty(columns * tensor.size, dtype=torch.float64)
            .exponential_(generator=generator)[first : first + columns]
            .log_()
            for generator in generators
        ]
        return _highest(logits_BV - torch.stack(noise).to(logits_BV.device), tensor)


def _nucleus(logits_BV: torch.Tensor, top_p: float, tensor: Ranks) -> torch.Tensor:
    """Return the logits with all but the smallest set of at least top_p masked."""
    highest_B1 = tensor.max(logits_BV.amax(dim=1, keepdim=True))
    total_B1 = tensor.sum((logits_BV - highest_B1).exp().sum(dim=1, keepdim=True))
    columns, count = logits_BV.shape[1], _FIRST_CANDIDATES
    while True:
        values_BC, names_BC = _candidates(logits_BV, count, tensor)
        probability_BC = (values_BC - highest_B1).exp() / total_B1
        before_BC = probability_BC.cumsum(dim=1) - probability_BC
        kept_BC = before_BC < top_p
        # The first that is left out shows that all that are kept were among the candidates.
        if count >= columns or not bool(kept_BC[:, -1].any()):
            break
        count *= 4
    last_B1 = kept_BC.sum(dim=1, keepdim=True) - 1
    value_B1, name_B1 = values_BC.gather(1, last_B1), names_BC.gather(1, last_B1)
    own_V = torch.arange(columns, device=logits_BV.device) + tensor.rank * columns
    kept_BV = (logits_BV > value_B1) | ((logits_BV == value_B1) & (own_V <= name_B1))
    return logits_BV.masked_fill(~kept_BV, -torch.inf)


def _highest(logits_BV: torch.Tensor, tensor: Ranks) -> torch.Tensor:
    """Return int64[B], the ids of the highest logits of all ranks, the lowest of equals."""
    values_B, local_B = logits_BV.max(dim=1)
    names_B = local_B + tensor.rank * logits_BV.shape[1]
    if tensor.group is None:
        return names_B
    values_BR, names_BR = _gather(values_B[:, None], tensor), _gather(names_B[:, None], tensor)
    return names_BR.gather(1, values_BR.argmax(dim=1, keepdim=True))[:, 0]


def _candidates(
    logits_BV: torch.Tensor, count: int, tensor: Ranks
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` highest logits of all ranks, highest first, and their ids: [B, C].

    Equal ones stand in the order of their ids. C may be larger where ranks have fewer columns.
    """
    columns = logits_BV.shape[1]
    values_BC, local_BC = logits_BV.sort(dim=1, descending=True, stable=True)
    values_BC, local_BC = values_BC[:, :count], local_BC[:, :count]
    names_BC = local_BC + tensor.rank * columns
    if tensor.group is not None:
        values_BC, names_BC = _gather(values_BC, tensor), _gather(names_BC, tensor)
        values_BC, order_BC = values_BC.sort(dim=1, descending=True, stable=True)
        values_BC = values_BC[:, :count]
        names_BC = names_BC.gather(1, order_BC)[:, :count]
    return values_BC, names_BC


def _gather(x_BC: torch.Tensor, tensor: Ranks) -> torch.Tensor:
    """Return what every rank has, side by side: the same type, [B, ranks * C]."""
    slots_RBC = x_BC.new_zeros(tensor.size, *x_BC.shape)
    slots_RBC[tensor.rank] = x_BC  # the others add 0, which changes nothing
    return tensor.sum(slots_RBC).transpose(0, 1).flatten(1)
