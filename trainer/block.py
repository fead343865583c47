"""Token ids in, the residual stream out, and what a block adds to it: what a network is stacked of.

Legend: B sequences, T positions, D hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .attention import Attention, LayerCache
from .config_model import ModelConfig
from .experts import MixtureOfExperts
from .grid import Ranks
from .layers import FeedForward, make_norm
from .parallel import leave
from .places import Places


class Block(nn.Module):
    """Attention, then feed-forward, each on the normalized residual stream.

    With norms after, each reads the stream as it is, and their sum is normalized.
    """

    def __init__(
        self,
        config: ModelConfig,
        tensor: Ranks,
        expert: Ranks,
        sequence_parallel: bool,
        number: int = 0,
    ) -> None:
        super().__init__()
        self.norms_after = config.norm_position == "after"
        self.is_local = config.local_window > 0 and number % config.global_every > 0
        is_normed = number == 0 and config.embedding_norm and not self.norms_after
        self.attention_norm = nn.Identity() if is_normed else make_norm(config)
        self.attention = Attention(config, tensor, sequence_parallel)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward: FeedForward | MixtureOfExperts
        if config.num_experts:
            self.feed_forward = MixtureOfExperts(config, tensor, expert, sequence_parallel)
        else:
            self.feed_forward = FeedForward(config, config.ffn_size, tensor, sequence_parallel)

    def forward(
        self,
        x_BTD: torch.Tensor,
        angles_TE: tuple[torch.Tensor, torch.Tensor] | None,
        cache: LayerCache | None = None,
        start: int = 0,
        places: Places | None = None,
        num_valid_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the residual stream after this block."""
        if self.norms_after:
            y_BTD = self.attention(x_BTD, angles_TE, cache, start, places)
            x_BTD = self.attention_norm(x_BTD + y_BTD)
            after_BTD: torch.Tensor = self.feed_forward_norm(x_BTD + self.feed_forward(x_BTD))
            return after_BTD
        normed_BTD = self.attention_norm(x_BTD)
        x_BTD = x_BTD + self.attention(normed_BTD, angles_TE, cache, start, places)
        normed_BTD = self.feed_forward_norm(x_BTD)
        if isinstance(self.feed_forward, FeedForward):
            dense_BTD: torch.Tensor = x_BTD + self.feed_forward(normed_BTD)
            return dense_BTD
        mixed_BTD: torch.Tensor = x_BTD + self.feed_forward(normed_BTD, num_valid_B)
        return mixed_BTD


class Embedding(nn.Module):
    """Rows of the vocabulary that this rank holds."""

    def __init__(
        self, padded_vocab_size: int, hidden_size: int, tensor: Ranks, sequence_parallel: bool
    ) -> None:
        super().__init__()
        self.tensor = tensor
        self.sequence_parallel = sequence_parallel
        self.weight = nn.Parameter(torch.empty(padded_vocab_size // tensor.size, hidden_size))

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Return float[B, T, D], whole on every rank, or this rank's part of the sequence."""
        if self.tensor.group is None:
            return F.embedding(tokens_BT, self.weight)
        rows = self.weight.shape[0]
        local_BT = tokens_BT - self.tensor.rank * rows
        elsewhere_BT = (local_BT < 0) | (local_BT >= rows)
        x_BTD = F.embedding(local_BT.masked_fill(elsewhere_BT, 0), self.weight)
        x_BTD = x_BTD.masked_fill(elsewhere_BT[..., None], 0)
        return leave(x_BTD, self.tensor, self.sequence_parallel)
