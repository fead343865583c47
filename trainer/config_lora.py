"""What a user can set about low-rank adaptation: plain typed values in, nothing done here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Target = Literal["query", "key", "value", "output", "gate", "up", "down"]
TARGETS: tuple[Target, ...] = get_args(Target)
"""Matrices of a block that can be adapted: four of the attention, three of a feed-forward layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adaptation: the model stays as it is, and small matrices beside its own are trained.

    A matrix W computes W x + alpha / rank * B A x; only A and B have gradients and optimizer states
    and are in the checkpoints (Hu et al. 2021, arXiv:2106.09685).
    """

    rank: int = 0
    """Rows of A and columns of B; 0: train the model itself."""
    alpha: float = 0.0
    """What B A x is multiplied with, times rank; 0: twice the rank."""
    targets: tuple[Target, ...] = TARGETS
    """Matrices that get a pair, in every block: query, key, value and output of the attention;
    gate, up and down of dense feed-forward layers (and shared experts)."""

    @property
    def scale(self) -> float:
        """The factor before B A x."""
        return (self.alpha or 2.0 * self.rank) / self.rank


def check_lora(lora: LoraConfig, init_from: str, optimizer: str) -> None:
    """Refuse settings that can never work.

    Raises:
        ValueError: names the field, its value and what to set instead.
    """
    if lora.rank < 0 or lora.alpha < 0:
        raise ValueError(
            f"lora.rank = {lora.rank} and lora.alpha = {lora.alpha} must not be negative"
        )
    if lora.rank == 0:
        if lora != LoraConfig():
            raise ValueError(
                "lora.alpha or lora.targets is set, but lora.rank is 0, so nothing would use them: "
                "set lora.rank (8 or 16, say), or leave them out"
            )
        return
    if not lora.targets or len(set(lora.targets)) < len(lora.targets):
        raise ValueError(
            f"lora.targets = {list(lora.targets)} must name one or more matrices, each once: "
            f"{', '.join(TARGETS)}"
        )
    if not init_from:
        raise ValueError(
            f"lora.rank = {lora.rank}, but training.init_from is empty: low-rank matrices beside "
            "random weights learn nothing. Name the model to adapt"
        )
    if optimizer == "muon":
        raise ValueError(
            'lora.rank > 0 with optimizer.kind = "muon": orthogonal steps are for whole matrices, '
            'not for two thin ones whose product counts. Set optimizer.kind = "adamw"'
        )
