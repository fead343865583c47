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
    """y = x Wᵀ + b, computed in the number format of x while W and b rest in their own.

    With low-rank matrices beside W (lora.py) it is x Wᵀ + b + scale * x Aᵀ Bᵀ.
    """

    def __init__(self, num_inputs: int, num_outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.bias = nn.Parameter(torch.empty(num_outputs)) if bias else None
        self.lora_a: nn.Parameter | None = None
        self.lora_b: nn.Parameter | None = None
        self.lora_scale = 0.0

    def forward(
        self, x: torch.Tensor, partial: Ranks | None = None, sequence_parallel: bool = False
    ) -> torch.Tensor:
        """Map [..., num_inputs] to [..., num_outputs].

        Args:
            partial: the ranks that hold the other input columns: their products are summed before
                the bias is added, once.
            sequence_parallel: with `partial`: return this rank's part of the sequence.
        """
        if partial is None or partial.group is None:
            return self._adapted(x, product(x, self.weight, self.bias))
        y = leave(self._adapted(x, product(x, self.weight)), partial, sequence_parallel)
        return y if self.bias is None else y + self.bias.to(x.dtype)

    def some_outputs(self, x: torch.Tensor, first: int, count: int) -> torch.Tensor:
        """Return `count` of the outputs, from `first` on."""
        bias = None if self.bias is None else self.bias.narrow(0, first, count)
        y = product(x, self.weight.narrow(0, first, count), bias)
        return self._adapted(x, y, first)

    def _adapted(self, x: torch.Tensor, y: torch.Tensor, first: int = 0) -> torch.Tensor:
        """Return y with what the low-rank matrices add to outputs `first` and following."""
        if self.lora_a is None or self.lora_b is None:
            return y
        rows = self.lora_b.narrow(0, first, y.shape[-1])
        return y + self.lora_scale * product(product(x, self.lora_a), rows)


class RMSNorm(nn.Module):
    """x / rms(x) * weight, in float32 or wider (Zhang, Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension."""
        return F.rms_norm(wide(x), self.weight.shape, self.weight, self.epsilon).to(x.dtype)


class LayerNorm(nn.Module):
    """(x - mean) / deviation * weight + bias, in float32 or wider (Ba et al., arXiv:1607.06450)."""

    def __init__(self, size: int, epsilon: float, bias: bool = True) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.empty(size))
        self.bias = nn.Parameter(torch.empty(size)) if bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalize the last dimension."""
        y = F.layer_norm(wide(x), self.weight.shape, self.weight, self.bias, self.epsilon)
        return y.to(x.dtype)


def make_norm(config: ModelConfig) -> RMSNorm | LayerNorm:
    """Return a norm of the residual stream."""
    if config.norm == "rms":
        return RMSNorm(config.hidden_size, config.norm_epsilon)
    return LayerNorm(config.hidden_size, config.norm_epsilon, config.norm == "layer")


def is_gated(config: ModelConfig) -> bool:
    """Whether the activation takes two matrices, one gating the other."""
    return config.activation in ("swiglu", "geglu")


class FeedForward(nn.Module):
    """SwiGLU, GeGLU (Shazeer 2020, arXiv:2002.05202), or GELU between two matrices as in GPT-2."""

    def __init__(
        self, config: ModelConfig, ffn_size: int, tensor: Ranks, sequence_parallel: bool = False
    ) -> None:
        super().__init__()
        self.tensor = tensor
        self.sequence_parallel = sequence_parallel
        inner = ffn_size // tensor.size
        self.activation = config.activation
        if is_gated(config):
            self.gate: Linear | None = Linear(config.hidden_size, inner, config.biases)
        else:
            self.gate = None
        self.up = Linear(config.hidden_size, inner, config.biases)
        self.down = Linear(inner, config.hidden_size, config.biases)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return what the layer adds to the residual stream."""
        x_BTD = enter(x_BTD, self.tensor, self.sequence_parallel)
        inner_BTF = self._inner(x_BTD)
        out_BTD: torch.Tensor = self.down(inner_BTF, self.tensor, self.sequence_parallel)
        return out_BTD

    def partial(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return this rank's part of the sum over ranks, for a whole x that has entered."""
        out_BTD: torch.Tensor = self.down(self._inner(x_BTD))
        return out_BTD

    def _inner(self, x_BTD: torch.Tensor) -> torch.Tensor:
        up_BTF = self.up(x_BTD)
        return activate(self.activation, None if self.gate is None else self.gate(x_BTD), up_BTF)


def activate(kind: str, gate: torch.Tensor | None, up: torch.Tensor) -> torch.Tensor:
    """Return what lies between the matrices of a feed-forward layer; kind is `model.activation`."""
    if gate is None:
        return F.gelu(up, approximate="tanh" if kind == "gelu" else "none")
    return (F.gelu(gate) if kind == "geglu" else F.silu(gate)) * up


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return x in float32, or in its own format if that is wider."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
