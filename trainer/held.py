"""A model's sizes and a layout in, the parameters that lie on one rank out: for plans of memory."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from .config import ParallelConfig
from .config_lora import LoraConfig
from .config_model import ModelConfig
from .grid import Ranks, shard_size
from .lora import add_lora
from .model import Transformer
from .sharding import trained_parameters

_NO_LORA = LoraConfig()


class HeldParameters(NamedTuple):
    """Parameters on the rank that holds most."""

    own: int
    """Those whose weights, gradients and optimizer states rest on the rank."""
    fetched: int
    """Those of other ranks that are whole on it at the same time, at most, with their gradients:
    embeddings and output layer, one block and the next one; 0 without shards."""
    own_in_blocks: int
    """Those of `own` that are matrices of blocks."""
    trained: int
    """Those of `own` that have gradients and optimizer states: all, or the low-rank matrices."""


def count_held(
    config: ModelConfig,
    vocab_size: int,
    parallel: ParallelConfig,
    copies: int,
    lora: LoraConfig = _NO_LORA,
) -> HeldParameters:
    """Return how many parameters one rank has in memory.

    Args:
        config: resolved.
        vocab_size: real ids.
        parallel: a layout that divides the model.
        copies: data-parallel ranks.
        lora: of a low-rank fine-tuning.
    """
    experts = parallel.expert_parallel_size
    with torch.device("meta"):
        model = Transformer(
            config,
            vocab_size,
            Ranks(0, parallel.tensor_parallel_size),
            expert=Ranks(0, experts),
        )
    shards = shard_size(parallel, copies)
    expert_shards = copies // experts if shards > 1 else 1
    own, own_in_blocks, block, others = 0, 0, 0, 0
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            parts = expert_shards
        elif parameter.dim() < 2 or ".router." in name:  # left whole: see sharding.py
            parts = 1
        else:
            parts = shards
        held = math.ceil(parameter.shape[0] / parts) * parameter[0].numel()
        own += held
        own_in_blocks += held if name.startswith("blocks.") and parameter.dim() > 1 else 0
        fetched = parameter.numel() - held
        if name.startswith("blocks.0."):
            block += fetched
        elif not name.startswith("blocks."):
            others += fetched
    trained = own
    if lora.rank:
        with torch.device("meta"):
            add_lora(model, lora)
        trained = sum(p.numel() for p in trained_parameters(model).values())  # whole: see sharding
        own += trained
    at_once = others + min(2, config.num_layers) * block
    return HeldParameters(own, at_once, own_in_blocks, trained)
