"""Our model config in, Hugging Face's config.json out; and the way back.

Three families have a counterpart: `llama`, `qwen3` (llama with normalized queries and keys) and
`gpt2`. What a config.json asks for and this model does not compute is refused by name.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from .config_model import ModelConfig
from .hugging_face_error import HuggingFaceError
from .hugging_face_rope import read_rope_scaling, rope_entries
from .model import resolve

Family = Literal["llama", "qwen3", "gpt2"]
ARCHITECTURES: dict[Family, str] = {
    "llama": "LlamaForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}

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
    wanted = _GPT2 if config.norm == "layer" or config.positions == "learned" else _LLAMA
    name: Family = "gpt2" if wanted is _GPT2 else "llama"
    for field, value in wanted.items():
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
    if config.query_key_norm and config.biases:
        raise HuggingFaceError(
            "model.query_key_norm with model.biases has no counterpart in Hugging Face's families: "
            "such a model can be trained, not exported"
        )
    return "qwen3" if config.query_key_norm else "llama"


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
    return shared | {
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
        "attention_bias": config.biases,
        "attention_dropout": 0.0,
        **({"mlp_bias": config.biases} if name == "llama" else {"use_sliding_window": False}),
    }


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
        if kind in ("llama", "qwen3"):
            return _from_llama(values, where), int(values["vocab_size"])
    except KeyError as error:
        raise HuggingFaceError(f"{where}: config.json lacks {error}: it is incomplete") from error
    raise HuggingFaceError(
        f"{where} is of the family {kind!r}; gristmill reads {', '.join(ARCHITECTURES)}"
    )


def _from_gpt2(values: Mapping[str, Any], where: str) -> ModelConfig:
    _require(values, where, "activation_function", ("gelu_new", "gelu_pytorch_tanh"))
    _require(values, where, "tie_word_embeddings", (True,))
    _require(values, where, "scale_attn_weights", (True,))
    _require(values, where, "scale_attn_by_inverse_layer_idx", (False,))
    _require(values, where, "add_cross_attention", (False,))
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
    is_qwen3 = values["model_type"] == "qwen3"
    _require(values, where, "hidden_act", ("silu",))
    _require(values, where, "use_sliding_window", (False,))
    _require(values, where, "partial_rotary_factor", (None, 1.0))
    biases = values.get("attention_bias", False)
    _require(values, where, "mlp_bias", (biases,) if not is_qwen3 else (False,))
    if is_qwen3:
        _require(values, where, "attention_bias", (False,))
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
            query_key_norm=is_qwen3,
            tied_embeddings=values.get("tie_word_embeddings", False),
            rope_theta=float(rope.get("rope_theta") or values.get("rope_theta") or 10_000.0),
            rope_scaling=read_rope_scaling(rope, where),
            norm_epsilon=values.get("rms_norm_eps", 1e-6),
        )
    )


def _require(values: Mapping[str, Any], where: str, key: str, allowed: tuple[Any, ...]) -> None:
    """Refuse a setting that asks for another computation; a missing one is the first allowed."""
    found = values.get(key, allowed[0])
    if found not in allowed:
        raise HuggingFaceError(
            f"{where} has {key} = {found!r}, which gristmill does not compute: it needs "
            f"{' or '.join(map(repr, allowed))}"
        )
