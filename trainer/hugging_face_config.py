"""Our model config in, Hugging Face's config.json out; and the way back.

Dense models are `gpt2`, `llama` or, with normalized queries and keys, `qwen3`. With experts these
become `mixtral` and `qwen3_moe`; `dots1` has a router of sigmoids with a bias and shared experts.
Encoders stand in hugging_face_encoders.py.
What a config.json asks for and this model does not compute is refused by name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .config_model import ModelConfig
from .hugging_face_encoders import (
    EncoderFamily,
    encoder_entries,
    encoder_family,
    read_bert,
    read_modernbert,
)
from .hugging_face_error import HuggingFaceError, require
from .hugging_face_rope import read_rope_scaling, rope_entries
from .model import resolve

Family = Literal["llama", "qwen3", "gpt2", "mixtral", "qwen3_moe", "dots1"] | EncoderFamily
ARCHITECTURES: dict[Family, str] = {
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "dots1": "Dots1ForCausalLM",
    "bert": "BertForMaskedLM",
    "modernbert": "ModernBertForMaskedLM",
}

_DECODER: dict[str, Any] = {"norm_position": "before", "embedding_norm": False, "token_types": 0}
_GPT2: dict[str, Any] = {
    "norm": "layer",
    "positions": "learned",
    "activation": "gelu",
    "biases": True,
    "query_key_norm": False,
    "tied_embeddings": True,
}
_LLAMA: dict[str, Any] = {"norm": "rms", "positions": "rotary", "activation": "swiglu"}


def family(config: ModelConfig) -> Family:
    """Return the family that computes what `config` (resolved) describes.

    Raises:
        HuggingFaceError: none does; names the setting in the way.
    """
    if not config.causal:
        return encoder_family(config)
    wanted = _GPT2 if config.norm == "layer" or config.positions == "learned" else _LLAMA
    name: Family = "gpt2" if wanted is _GPT2 else "llama"
    for field, value in (wanted | _DECODER).items():
        if getattr(config, field) != value:
            raise HuggingFaceError(
                f"model.{field} = {getattr(config, field)!r} has no counterpart in the Hugging "
                f"Face family {name!r}, which has {value!r}: such a model can be trained, not "
                "exported"
            )
    if name == "gpt2":
        same = config.num_kv_heads == config.num_heads
        if not same or config.head_size * config.num_heads != config.hidden_size:
            raise HuggingFaceError(
                f"model.num_kv_heads = {config.num_kv_heads} and model.head_size = "
                f"{config.head_size}: the Hugging Face family 'gpt2' has as many key/value heads "
                "as query heads, which share hidden_size evenly"
            )
        return name
    if config.num_experts:
        return _family_of_experts(config)
    if config.query_key_norm and config.biases:
        raise HuggingFaceError(
            "model.query_key_norm with model.biases has no counterpart in Hugging Face's families: "
            "such a model can be trained, not exported"
        )
    return "qwen3" if config.query_key_norm else "llama"


def _family_of_experts(config: ModelConfig) -> Family:
    """Return the family of a mixture of experts: by its router, then by its attention."""
    name: Family = "qwen3_moe" if config.query_key_norm else "mixtral"
    wanted: dict[str, Any] = {"router_score": "softmax", "num_shared_experts": 0}
    if config.router_score == "sigmoid" or config.num_shared_experts:
        name, wanted = "dots1", {"router_score": "sigmoid", "query_key_norm": True}
    elif name == "mixtral":
        wanted["normalize_gates"] = True
    for field, value in wanted.items():
        if getattr(config, field) != value:
            raise HuggingFaceError(
                f"model.{field} = {getattr(config, field)!r} has no counterpart in the Hugging "
                f"Face family {name!r}, which has {value!r}: such a model can be trained, not "
                "exported"
            )
    if name == "dots1" and not config.num_shared_experts:
        raise HuggingFaceError(
            "model.num_shared_experts = 0 has no counterpart in the Hugging Face family 'dots1', "
            "the one with a sigmoid in its router: such a model can be trained, not exported"
        )
    return name


def to_hugging_face(
    config: ModelConfig, vocab_size: int, max_positions: int, eod_id: int | None, dtype: str
) -> dict[str, Any]:
    """Return the content of config.json.

    Args:
        config: resolved.
        max_positions: longest context to name where `config.max_positions` is 0.
        dtype: number format of the weights, e.g. bfloat16.
    """
    name = family(config)
    shared = {
        "architectures": [ARCHITECTURES[name]],
        "model_type": name,
        "vocab_size": vocab_size,
        "bos_token_id": eod_id,  # a document begins after the end of another, as in training
        "eos_token_id": eod_id,
        "tie_word_embeddings": config.tied_embeddings,
        "initializer_range": config.init_std,
        "torch_dtype": dtype,
        "use_cache": True,
    }
    positions = config.max_positions or max_positions
    if not config.causal:
        return shared | encoder_entries(config, positions, eod_id)
    if name == "gpt2":
        return shared | {
            "n_embd": config.hidden_size,
            "n_head": config.num_heads,
            "n_layer": config.num_layers,
            "n_positions": positions,
            "n_inner": config.ffn_size,
            "layer_norm_epsilon": config.norm_epsilon,
            "activation_function": "gelu_new",
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }
    return (
        shared
        | _llama_entries(config, positions)
        | {
            "llama": {"attention_bias": config.biases, "mlp_bias": config.biases},
            "qwen3": {"attention_bias": config.biases, "use_sliding_window": False},
            "mixtral": _mixtral_entries(config),
            "qwen3_moe": _qwen3_moe_entries(config),
            "dots1": _dots1_entries(config),
        }[name]
    )


def _llama_entries(config: ModelConfig, positions: int) -> dict[str, Any]:
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": positions,
        "rms_norm_eps": config.norm_epsilon,
        **rope_entries(config),
        "attention_dropout": 0.0,
    }


def _mixtral_entries(config: ModelConfig) -> dict[str, Any]:
    return {
        "intermediate_size": config.expert_ffn_size,
        "num_local_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "router_aux_loss_coef": _loss_weight(config),
        "sliding_window": None,
    }


def _qwen3_moe_entries(config: ModelConfig) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "moe_intermediate_size": config.expert_ffn_size,
        "num_experts": config.num_experts,
        "num_experts_per_tok": config.experts_per_token,
        "norm_topk_prob": config.normalize_gates,
        "router_aux_loss_coef": _loss_weight(config),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
        "sliding_window": None,
    }


def _dots1_entries(config: ModelConfig) -> dict[str, Any]:
    return {
        "attention_bias": False,
        "moe_intermediate_size": config.expert_ffn_size,
        "n_routed_experts": config.num_experts,
        "n_shared_experts": config.num_shared_experts,
        "num_experts_per_tok": config.experts_per_token,
        "norm_topk_prob": config.normalize_gates,
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 0,
        "sliding_window": None,
        "layer_types": ["full_attention"] * config.num_layers,
    }


def _loss_weight(config: ModelConfig) -> float:
    return config.balance_loss_weight if config.balance == "loss" else 0.0


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a Hugging Face folder.

    Raises:
        HuggingFaceError: there is none, or it is not JSON.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise HuggingFaceError(
            f"{path} cannot be read ({error.strerror}): give a folder as `save_pretrained` writes "
            "it, with config.json and model.safetensors"
        ) from error
    except ValueError as error:
        raise HuggingFaceError(f"{path} is not JSON ({error}): copy the folder again") from error
    if not isinstance(values, dict):
        raise HuggingFaceError(f"{path} holds no JSON object: copy the folder again")
    return values


def from_hugging_face(values: Mapping[str, Any], where: str) -> tuple[ModelConfig, int]:
    """Return our config, resolved, and the vocabulary size of a config.json.

    Args:
        values: its content.
        where: its folder, for messages.

    Raises:
        HuggingFaceError: another family, or a feature that this model does not compute.
    """
    kind = values.get("model_type")
    try:
        if kind == "gpt2":
            return _from_gpt2(values, where), int(values["vocab_size"])
        if kind in ("bert", "modernbert"):
            read = read_bert if kind == "bert" else read_modernbert
            return resolve(read(values, where)), int(values["vocab_size"])
        if kind in ARCHITECTURES:
            return _from_llama(values, where), int(values["vocab_size"])
    except KeyError as error:
        raise HuggingFaceError(f"{where}: config.json lacks {error}: it is incomplete") from error
    raise HuggingFaceError(
        f"{where} is of the family {kind!r}; gristmill reads {', '.join(ARCHITECTURES)}"
    )


def _from_gpt2(values: Mapping[str, Any], where: str) -> ModelConfig:
    require(values, where, "activation_function", ("gelu_new", "gelu_pytorch_tanh"))
    require(values, where, "tie_word_embeddings", (True,))
    require(values, where, "scale_attn_weights", (True,))
    require(values, where, "scale_attn_by_inverse_layer_idx", (False,))
    require(values, where, "add_cross_attention", (False,))
    config = ModelConfig(
        num_layers=values["n_layer"],
        hidden_size=values["n_embd"],
        num_heads=values["n_head"],
        ffn_size=values.get("n_inner") or 4 * values["n_embd"],
        max_positions=values["n_positions"],
        norm_epsilon=values.get("layer_norm_epsilon", 1e-5),
    )
    return resolve(dataclasses.replace(config, **_GPT2))


def _from_llama(values: Mapping[str, Any], where: str) -> ModelConfig:
    kind = values["model_type"]
    is_llama, has_norms = kind == "llama", kind in ("qwen3", "qwen3_moe", "dots1")
    require(values, where, "hidden_act", ("silu",))
    require(values, where, "use_sliding_window", (False,))
    require(values, where, "partial_rotary_factor", (None, 1.0))
    biases = values.get("attention_bias", False)
    require(values, where, "mlp_bias", (biases,) if is_llama else (False,))
    if not is_llama:
        require(values, where, "attention_bias", (False,))
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    return resolve(
        ModelConfig(
            num_layers=values["num_hidden_layers"],
            hidden_size=values["hidden_size"],
            num_heads=values["num_attention_heads"],
            num_kv_heads=values.get("num_key_value_heads") or 0,
            head_size=values.get("head_dim") or 0,
            ffn_size=values["intermediate_size"],
            max_positions=values.get("max_position_embeddings", 0),
            biases=biases,
            query_key_norm=has_norms,
            tied_embeddings=values.get("tie_word_embeddings", False),
            rope_theta=float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0),
            rope_scaling=read_rope_scaling(rope, where),
            norm_epsilon=values.get("rms_norm_eps", 1e-6),
            **(_experts_of(values, where) if kind in ("mixtral", "qwen3_moe", "dots1") else {}),
        )
    )


def _experts_of(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return our settings of a mixture of experts."""
    kind = values["model_type"]
    found: dict[str, Any] = {"experts_per_token": values["num_experts_per_tok"]}
    if kind == "mixtral":
        require(values, where, "sliding_window", (None,))
        require(values, where, "router_jitter_noise", (0.0,))
        return found | {
            "num_experts": values["num_local_experts"],
            "expert_ffn_size": values["intermediate_size"],
        }
    found |= {
        "expert_ffn_size": values["moe_intermediate_size"],
        "normalize_gates": values.get("norm_topk_prob", False),
    }
    if kind == "qwen3_moe":
        require(values, where, "decoder_sparse_step", (1,))
        require(values, where, "mlp_only_layers", ([], None))
        # The files on the hub say num_experts, transformers 5 writes num_local_experts.
        count = values.get("num_experts", values.get("num_local_experts"))
        if count is None:
            raise KeyError("num_experts")
        return found | {"num_experts": count}
    require(values, where, "first_k_dense_replace", (0,))
    require(values, where, "n_group", (1,))
    require(values, where, "routed_scaling_factor", (1.0,))
    require(values, where, "layer_types", (["full_attention"] * values["num_hidden_layers"],))
    return found | {
        "num_experts": values.get("n_routed_experts") or values["num_local_experts"],
        "num_shared_experts": values["n_shared_experts"],
        "router_score": "sigmoid",
    }
