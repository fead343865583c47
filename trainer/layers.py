"""The parts of a block but for attention: activations in, activations out.

Legend: B sequences, T positions, D hidden size, F inner width of this rank.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .config_model import ModelConfig
from .grid import Ranks
from .parallel import enter, leave
from .products import product


class Linear(nn.Module):
    """y = x Wᵀ + b, computed in the number format of x while W and b rest in their own."""

    def __init__(self, num_inputs: int, num_outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.bias = nn.Parameter(torch.empty(num_outputs)) if bias else None

    def forward(self, x: torch.Tensor, partial: Ranks | None = None) -> torch.Tensor:
        """Map [..., num_inputs] to [..., num_outputs].

        Args:
            partial: the ranks that hold the other input columns: their products are summed before
                the bias is added, once.
        """
        if partial is None or partial.group is None:
            return product(x, self.weight, self.bias)
        y = leave(product(x, self.weight), partial)
        return y if self.bias is None else y + self.bias.to(x.dtype)


class RMSNorm(nn.Module):
    """x / rms(x) * weight, in float32 or wider (Zhang, Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension."""
        return self.normalize(x, self.weight)

    def normalize(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension with a weight that has passed `enter`, say."""
        return F.rms_norm(_wide(x), weight.shape, weight, self.epsilon).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / deviation * weight + bias, in float32 or wider (Ba et al., arXiv:1607.06450)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension."""
        wide = F.layer_norm(_wide(x), self.weight.shape, self.weight, self.bias, self.epsilon)
        return wide.to(x.dtype)


def make_norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """Return a norm of the residual stream."""
    kind = RMSNorm if config.norm == "rms" else LayerNorm
    return kind(config.hidden_size, config.norm_epsilon)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202), or GELU between two matrices as in GPT-2."""

    def __init__(self, config: ModelConfig, tensor: Ranks) -> None:
        super().__init__()
        self.tensor = tensor
        inner = config.ffn_size // tensor.size
        if config.activation == "swiglu":
            self.gate: Linear | None = Linear(config.hidden_size, inner, config.biases)
        else:
            self.gate = None
        self.up = Linear(config.hidden_size, inner, config.biases)
        self.down = Linear(inner, config.hidden_size, config.biases)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return what the layer adds to the residual stream."""
        x_BTD = enter(x_BTD, self.tensor)
        up_BTF = self.up(x_BTD)
        if self.gate is None:
            inner_BTF = F.gelu(up_BTF, approximate="tanh")
        else:
            inner_BTF = F.silu(self.gate(x_BTD)) * up_BTF
        out_BTD: torch.Tensor = self.down(inner_BTF, self.tensor)
        return out_BTD


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
