"""Self-attention with shared key/value heads, causal or not, and its cache.

Legend: B sequences, T positions, D hidden size, H query heads of this rank, K key/value heads of
this rank, E width of a head, C positions in the cache.
"""

from __future__ import annotations

import torch
from torch import nn

from .config_model import ModelConfig
from .grid import Ranks
from .layers import Linear, RMSNorm
from .parallel import enter, shares_kv_heads
from .places import Places, attend
from .products import can_multiply
from .rotary import rotate


class LayerCache:
    """Keys and values of the positions that one attention layer has seen."""

    def __init__(self, keys_BKCE: torch.Tensor, values_BKCE: torch.Tensor) -> None:
        self.keys_BKCE = keys_BKCE
        self.values_BKCE = values_BKCE

    def extend(
        self, start: int, keys_BKTE: torch.Tensor, values_BKTE: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store positions start .. start+T-1 and return all from 0 on."""
        end = start + keys_BKTE.shape[2]
        self.keys_BKCE[:, :, start:end] = keys_BKTE
        self.values_BKCE[:, :, start:end] = values_BKTE
        return self.keys_BKCE[:, :, :end], self.values_BKCE[:, :, :end]


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245)."""

    def __init__(self, config: ModelConfig, tensor: Ranks, sequence_parallel: bool = False) -> None:
        super().__init__()
        self.tensor = tensor
        self.sequence_parallel = sequence_parallel
        self.causal = config.causal
        self.head_width = config.head_size
        self.shares_kv_heads = shares_kv_heads(config, tensor)
        kv_heads = config.num_kv_heads
        if self.shares_kv_heads:
            # Every rank holds all key/value heads and computes the one its query heads need.
            self.kv_head = tensor.rank * kv_heads // tensor.size
        else:
            kv_heads //= tensor.size
        width, hidden, biases = self.head_width, config.hidden_size, config.biases
        self.query = Linear(hidden, config.num_heads // tensor.size * width, biases)
        self.key = Linear(hidden, kv_heads * width, biases)
        self.value = Linear(hidden, kv_heads * width, biases)
        self.output = Linear(config.num_heads // tensor.size * width, hidden, biases)
        if config.query_key_norm:
            self.query_norm: RMSNorm | None = RMSNorm(width, config.norm_epsilon)
            self.key_norm: RMSNorm | None = RMSNorm(width, config.norm_epsilon)
        else:
            self.query_norm = self.key_norm = None

    def forward(
        self,
        x_BTD: torch.Tensor,
        angles_TE: tuple[torch.Tensor, torch.Tensor] | None,
        cache: LayerCache | None = None,
        start: int = 0,
        places: Places | None = None,
    ) -> torch.Tensor:
        """Return what the attention adds to the residual stream.

        Args:
            x_BTD: normalized residual stream, whole on every rank; with sequence_parallel this
                rank's part of the sequence, and so is the result.
            angles_TE: cos and sin of the T positions' rotary angles ([B, 1, T, E] with `places`);
                None: nothing turns.
            cache: earlier positions, extended by these (generation only).
            start: position of x_BTD[:, 0].
            places: what each token may see; None: all before it, in encoders everything.
        """
        x_BTD = enter(x_BTD, self.tensor, self.sequence_parallel)
        q_BHTE = self._norm(self.query_norm, self._heads(self.query(x_BTD)))
        k_BKTE = self._norm(self.key_norm, self._heads(self._kv(self.key, x_BTD)))
        if angles_TE is not None:
            q_BHTE, k_BKTE = rotate(q_BHTE, *angles_TE), rotate(k_BKTE, *angles_TE)
        v_BKTE = self._heads(self._kv(self.value, x_BTD))
        if cache is not None:
            k_BKTE, v_BKTE = cache.extend(start, k_BKTE, v_BKTE)
        dtype = x_BTD.dtype
        if not can_multiply(dtype, x_BTD.device):
            q_BHTE, k_BKTE, v_BKTE = q_BHTE.float(), k_BKTE.float(), v_BKTE.float()
        y_BHTE = attend(q_BHTE, k_BKTE, v_BKTE, places, start, self.causal).to(dtype)
        y_BTF = y_BHTE.transpose(1, 2).flatten(2)
        out_BTD: torch.Tensor = self.output(y_BTF, self.tensor, self.sequence_parallel)
        return out_BTD

    def _norm(self, norm: RMSNorm | None, x_BHTE: torch.Tensor) -> torch.Tensor:
        if norm is None:
            return x_BHTE
        normed_BHTE: torch.Tensor = norm(x_BHTE)
        return normed_BHTE

    def _kv(self, linear: Linear, x_BTD: torch.Tensor) -> torch.Tensor:
        if not self.shares_kv_heads:
            projected: torch.Tensor = linear(x_BTD)
            return projected
        return linear.some_outputs(x_BTD, self.kv_head * self.head_width, self.head_width)

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """Turn [B, T, heads * E] into [B, heads, T, E]."""
        return x.view(*x.shape[:2], -1, self.head_width).transpose(1, 2)
