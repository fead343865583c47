"""Hidden states of masked places in; what the output layer of a masked language model reads out.

    logits = norm(gelu(dense(x))) embeddingᵀ + bias

as in BERT and ModernBERT (Devlin et al. 2018, arXiv:1810.04805; Warner et al. 2024,
arXiv:2412.13663). The output layer, tied or not, is the model's; the bias of its rows stands here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .config_model import ModelConfig
from .layers import Linear, make_norm


class MaskedHead(nn.Module):
    """What lies between the last block and the output layer of an encoder.

    Args:
        config: resolved; `biases` says whether the matrix has a bias.
        num_rows: rows of the output layer that this rank holds.
    """

    def __init__(self, config: ModelConfig, num_rows: int) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, config.biases)
        self.norm = make_norm(config)
        self.bias = nn.Parameter(torch.empty(num_rows))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [..., D] to [..., D]."""
        y: torch.Tensor = self.norm(F.gelu(self.dense(x)))
        return y
