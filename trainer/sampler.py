"""Logits in, the next token out.

Legend: B sequences, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Sampler:
    """How the next token is drawn. The cuts apply in this order: temperature, top_k, top_p."""

    temperature: float = 1.0
    """Divides the logits; 0: the likeliest token, the first of equals."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Keep the smallest set of the likeliest tokens that holds this much probability
    (nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751)."""

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature = {self.temperature} and top_k = {self.top_k} must not be negative, "
                f"top_p = {self.top_p} must lie in (0, 1]"
            )

    def draw(self, logits_BV: torch.Tensor, generators: list[torch.Generator]) -> torch.Tensor:
        """Return int64[B]; each sequence draws from its own generator."""
        if self.temperature == 0:
            return logits_BV.argmax(dim=1)
        logits_BV = logits_BV.double() / self.temperature
        if 0 < self.top_k < logits_BV.shape[1]:
            kth = logits_BV.topk(self.top_k, dim=1).values[:, -1:]
            logits_BV = logits_BV.masked_fill(logits_BV < kth, -torch.inf)
        probability_BV = logits_BV.softmax(dim=1)
        if self.top_p < 1:
            probability_BV = _nucleus(probability_BV, self.top_p)
        draws = [
            torch.multinomial(row_V, 1, generator=generator)
            for row_V, generator in zip(probability_BV.cpu(), generators, strict=True)
        ]
        return torch.cat(draws).to(logits_BV.device)


def _nucleus(probability_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Return the probabilities with all but the smallest set of at least top_p set to 0."""
    sorted_BV, order_BV = probability_BV.sort(dim=1, descending=True, stable=True)
    before_BV = sorted_BV.cumsum(dim=1) - sorted_BV
    sorted_BV = sorted_BV.masked_fill(before_BV >= top_p, 0)
    return torch.zeros_like(probability_BV).scatter(1, order_BV, sorted_BV)
