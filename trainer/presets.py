"""Names of well-known networks in, their sizes out.

Sizes are those of the published models, so that `model.preset = "qwen3-0.6b"` trains the network
that `transformers` calls so, trained anew: the vocabulary is that of the data, the longest context
that of the training, and no rotary position is scaled. The smallest three are ours, for CPUs.
"""

from __future__ import annotations

import dataclasses
import difflib
from typing import Any

from .config_model import ModelConfig

_GPT2: dict[str, Any] = {
    "norm": "layer",
    "positions": "learned",
    "activation": "gelu",
    "biases": True,
    "max_positions": 1024,
}
_QWEN3: dict[str, Any] = {
    "query_key_norm": True,
    "head_size": 128,
    "num_kv_heads": 8,
    "rope_theta": 1_000_000.0,
    "norm_epsilon": 1e-6,
}
_LLAMA3: dict[str, Any] = {"num_kv_heads": 8, "rope_theta": 500_000.0}
_MIXTRAL: dict[str, Any] = {
    "num_experts": 8,
    "experts_per_token": 2,
    "num_kv_heads": 8,
    "tied_embeddings": False,
    "rope_theta": 1_000_000.0,
    "balance": "loss",
}
_BERT: dict[str, Any] = {
    "causal": False,
    "norm": "layer",
    "norm_position": "after",
    "embedding_norm": True,
    "token_types": 2,
    "positions": "learned",
    "activation": "gelu_exact",
    "biases": True,
    "max_positions": 512,
    "norm_epsilon": 1e-12,
}
_MODERNBERT: dict[str, Any] = {
    "causal": False,
    "norm": "layer_without_bias",
    "embedding_norm": True,
    "activation": "geglu",
    "local_window": 128,
    "rope_theta": 160_000.0,
}


def _sizes(
    num_layers: int, hidden_size: int, num_heads: int, ffn_size: int, **others: Any
) -> dict[str, Any]:
    return {
        "num_layers": num_layers,
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "ffn_size": ffn_size,
        **others,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "llama-3m": _sizes(6, 192, 6, 512, num_kv_heads=3),
    "llama-10m": _sizes(8, 320, 5, 896),
    "llama-60m": _sizes(12, 640, 10, 1_728, num_kv_heads=5),
    "gpt2-124m": _sizes(12, 768, 12, 3_072, **_GPT2),
    "gpt2-355m": _sizes(24, 1024, 16, 4_096, **_GPT2),
    "gpt2-774m": _sizes(36, 1280, 20, 5_120, **_GPT2),
    "gpt2-1.5b": _sizes(48, 1600, 25, 6_400, **_GPT2),
    "llama-1b": _sizes(16, 2048, 32, 8_192, **_LLAMA3),
    "llama-3b": _sizes(28, 3072, 24, 8_192, **_LLAMA3),
    "llama-8b": _sizes(32, 4096, 32, 14_336, **_LLAMA3, tied_embeddings=False),
    "llama-70b": _sizes(80, 8192, 64, 28_672, **_LLAMA3, tied_embeddings=False),
    "qwen3-0.6b": _sizes(28, 1024, 16, 3_072, **_QWEN3),
    "qwen3-1.7b": _sizes(28, 2048, 16, 6_144, **_QWEN3),
    "qwen3-4b": _sizes(36, 2560, 32, 9_728, **_QWEN3),
    "qwen3-8b": _sizes(36, 4096, 32, 12_288, **_QWEN3, tied_embeddings=False),
    "qwen3-14b": _sizes(40, 5120, 40, 17_408, **_QWEN3, tied_embeddings=False),
    "qwen3-32b": _sizes(64, 5120, 64, 25_600, **_QWEN3, tied_embeddings=False),
    "bert-base": _sizes(12, 768, 12, 3_072, **_BERT),
    "bert-large": _sizes(24, 1024, 16, 4_096, **_BERT),
    "modernbert-base": _sizes(22, 768, 12, 1_152, **_MODERNBERT),
    "modernbert-large": _sizes(28, 1024, 16, 2_624, **_MODERNBERT),
    "mixtral-8x7b": _sizes(32, 4096, 32, 14_336, **_MIXTRAL),
    "mixtral-8x22b": _sizes(56, 6144, 48, 16_384, **_MIXTRAL),
    "qwen3-30b-a3b": _sizes(
        48,
        2048,
        32,
        6_144,
        **_QWEN3 | {"num_kv_heads": 4},
        tied_embeddings=False,
        num_experts=128,
        experts_per_token=8,
        expert_ffn_size=768,
        balance="loss",
        balance_loss_weight=0.001,
    ),
}
"""Name -> the fields of `ModelConfig` that it sets."""


def apply_preset(config: ModelConfig) -> ModelConfig:
    """Return the config with its preset's values where it has defaults.

    Raises:
        ValueError: there is no such preset; lists those that there are.
    """
    if not config.preset:
        return config
    if config.preset not in PRESETS:
        near = difflib.get_close_matches(config.preset, PRESETS, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(
            f'model.preset = "{config.preset}" is not known{hint}; choose one of: '
            f"{', '.join(PRESETS)}; or leave it empty and give the sizes"
        )
    default = ModelConfig()
    values = {
        name: value
        for name, value in PRESETS[config.preset].items()
        if getattr(config, name) == getattr(default, name)
    }
    return dataclasses.replace(config, **values)
