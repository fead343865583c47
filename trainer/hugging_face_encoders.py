"""Our encoders in, `bert` and `modernbert` of Hugging Face out; and the way back.

`BertForMaskedLM`: norms after, learned positions, token types, biases. `ModernBertForMaskedLM`:
norms before, rotary positions of two bases, local attention in all but each third layer, no biases.
Their dropout has no counterpart here: a folder is written with none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from .config_model import ModelConfig
from .hugging_face_error import HuggingFaceError, require
from .hugging_face_tensor import FileTensor

EncoderFamily = Literal["bert", "modernbert"]

_BERT: dict[str, Any] = {
    "norm": "layer",
    "norm_position": "after",
    "embedding_norm": True,
    "positions": "learned",
    "activation": "gelu_exact",
    "biases": True,
    "query_key_norm": False,
    "tied_embeddings": True,
    "local_window": 0,
}
_MODERNBERT: dict[str, Any] = {
    "norm": "layer_without_bias",
    "norm_position": "before",
    "embedding_norm": True,
    "token_types": 0,
    "positions": "rotary",
    "activation": "geglu",
    "biases": False,
    "query_key_norm": False,
    "tied_embeddings": True,
}
_FULL, _LOCAL = "full_attention", "sliding_attention"


def encoder_family(config: ModelConfig) -> EncoderFamily:
    """Return the family that computes what `config` (resolved, not causal) describes.

    Raises:
        HuggingFaceError: none does; names the setting in the way.
    """
    name: EncoderFamily = "bert" if config.norm_position == "after" else "modernbert"
    for field, value in (_BERT if name == "bert" else _MODERNBERT).items():
        if getattr(config, field) != value:
            raise HuggingFaceError(
                f"model.{field} = {getattr(config, field)!r} has no counterpart in the Hugging "
                f"Face family {name!r}, which has {value!r}: such an encoder can be trained, not "
                "exported"
            )
    if name == "bert" and not config.token_types:
        raise HuggingFaceError(
            "model.token_types = 0, but the Hugging Face family 'bert' has token types: such an "
            "encoder can be trained, not exported"
        )
    if name == "modernbert" and config.rope_scaling.kind != "none":
        raise HuggingFaceError(
            f'model.rope_scaling.kind = "{config.rope_scaling.kind}" is not written for the '
            "Hugging Face family 'modernbert': such an encoder can be trained, not exported"
        )
    same = config.num_kv_heads == config.num_heads
    if not same or config.head_size * config.num_heads != config.hidden_size:
        raise HuggingFaceError(
            f"model.num_kv_heads = {config.num_kv_heads} and model.head_size = {config.head_size}: "
            f"the Hugging Face family {name!r} has as many key/value heads as query heads, which "
            "share hidden_size evenly"
        )
    return name


def encoder_entries(config: ModelConfig, positions: int, eod_id: int | None) -> dict[str, Any]:
    """Return what a config.json says beside what all families say.

    Args:
        positions: longest context to name.
        eod_id: what stands for padding, which no token of ours does.
    """
    shared: dict[str, Any] = {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.ffn_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": positions,
        "pad_token_id": eod_id or 0,
        "use_cache": False,
    }
    if encoder_family(config) == "bert":
        return shared | {
            "hidden_act": "gelu",
            "type_vocab_size": config.token_types,
            "layer_norm_eps": config.norm_epsilon,
            "position_embedding_type": "absolute",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
    every = config.global_every if config.local_window else 1
    return shared | {
        "hidden_activation": "gelu",
        "norm_eps": config.norm_epsilon,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "decoder_bias": True,
        "classifier_bias": False,
        "classifier_activation": "gelu",
        "cls_token_id": eod_id,
        "sep_token_id": eod_id,
        "layer_types": [_LOCAL if n % every else _FULL for n in range(config.num_layers)],
        "global_attn_every_n_layers": every,
        "local_attention": config.local_window or 128,
        "rope_parameters": {
            _FULL: {"rope_type": "default", "rope_theta": config.rope_theta},
            _LOCAL: {"rope_type": "default", "rope_theta": config.local_rope_theta},
        },
        # The same for transformers 4.
        "global_rope_theta": config.rope_theta,
        "local_rope_theta": config.local_rope_theta,
        "attention_dropout": 0.0,
        "embedding_dropout": 0.0,
        "mlp_dropout": 0.0,
    }


def read_bert(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Return our config of a BERT config.json, not resolved."""
    require(values, where, "hidden_act", ("gelu",))
    require(values, where, "tie_word_embeddings", (True,))
    require(values, where, "is_decoder", (False,))
    require(values, where, "add_cross_attention", (False,))
    require(values, where, "position_embedding_type", ("absolute", None))
    return ModelConfig(
        causal=False,
        num_layers=values["num_hidden_layers"],
        hidden_size=values["hidden_size"],
        num_heads=values["num_attention_heads"],
        ffn_size=values["intermediate_size"],
        max_positions=values["max_position_embeddings"],
        token_types=values.get("type_vocab_size", 2),
        norm_epsilon=values.get("layer_norm_eps", 1e-12),
        **_BERT,
    )


def read_modernbert(values: Mapping[str, Any], where: str) -> ModelConfig:
    """Return our config of a ModernBERT config.json, not resolved."""
    require(values, where, "hidden_activation", ("gelu",))
    require(values, where, "classifier_activation", ("gelu",))
    require(values, where, "tie_word_embeddings", (True,))
    require(values, where, "decoder_bias", (True,))
    for name in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"):
        require(values, where, name, (False,))
    num_layers, rope = values["num_hidden_layers"], values.get("rope_parameters") or {}
    kinds = values.get("layer_types")
    every = values.get("global_attn_every_n_layers", 3)
    if kinds is not None:
        every = next((n for n in range(1, num_layers) if kinds[n] == _FULL), num_layers)
        if kinds != [_LOCAL if n % every else _FULL for n in range(num_layers)]:
            raise HuggingFaceError(
                f"{where} has layer_types = {kinds}, which gristmill does not compute: it needs "
                "global attention in the first of every so many layers"
            )
    for name in (_FULL, _LOCAL):
        require(rope.get(name) or {}, where, "rope_type", ("default",))
    return ModelConfig(
        causal=False,
        num_layers=num_layers,
        hidden_size=values["hidden_size"],
        num_heads=values["num_attention_heads"],
        ffn_size=values["intermediate_size"],
        max_positions=values.get("max_position_embeddings", 0),
        local_window=0 if every == 1 else values.get("local_attention", 128),
        global_every=3 if every == 1 else every,
        rope_theta=_theta(rope.get(_FULL), values.get("global_rope_theta"), 160_000.0),
        local_rope_theta=_theta(rope.get(_LOCAL), values.get("local_rope_theta"), 10_000.0),
        norm_epsilon=values.get("norm_eps", 1e-5),
        **_MODERNBERT,
    )


def _theta(rope: Mapping[str, Any] | None, older: float | None, default: float) -> float:
    return float((rope or {}).get("rope_theta") or older or default)


def encoder_tensors(config: ModelConfig) -> dict[str, FileTensor]:
    """Return each tensor of an encoder's folder by its name there, in the order of the layers."""
    return _bert(config) if encoder_family(config) == "bert" else _modernbert(config)


def _bert(config: ModelConfig) -> dict[str, FileTensor]:
    tables = {
        "word_embeddings": "embedding",
        "position_embeddings": "position_table",
        "token_type_embeddings": "token_type_table",
    }
    tensors = {
        f"bert.embeddings.{theirs}.weight": FileTensor((f"{ours}.weight",))
        for theirs, ours in tables.items()
    }
    both = {"bert.embeddings.LayerNorm": "embedding_norm"}
    for layer in range(config.num_layers):
        theirs, ours = f"bert.encoder.layer.{layer}", f"blocks.{layer}"
        for name in ("query", "key", "value"):
            both[f"{theirs}.attention.self.{name}"] = f"{ours}.attention.{name}"
        both[f"{theirs}.attention.output.dense"] = f"{ours}.attention.output"
        both[f"{theirs}.attention.output.LayerNorm"] = f"{ours}.attention_norm"
        both[f"{theirs}.intermediate.dense"] = f"{ours}.feed_forward.up"
        both[f"{theirs}.output.dense"] = f"{ours}.feed_forward.down"
        both[f"{theirs}.output.LayerNorm"] = f"{ours}.feed_forward_norm"
    both["cls.predictions.transform.dense"] = "masked_head.dense"
    both["cls.predictions.transform.LayerNorm"] = "masked_head.norm"
    for name, own in both.items():
        for kind in ("weight", "bias"):
            tensors[f"{name}.{kind}"] = FileTensor((f"{own}.{kind}",))
    return tensors | {"cls.predictions.bias": FileTensor(("masked_head.bias",))}


def _modernbert(config: ModelConfig) -> dict[str, FileTensor]:
    names: dict[str, tuple[str, ...]] = {
        "model.embeddings.tok_embeddings": ("embedding",),
        "model.embeddings.norm": ("embedding_norm",),
    }
    for layer in range(config.num_layers):
        theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
        if layer:  # the first one takes the normalized embeddings as they are
            names[f"{theirs}.attn_norm"] = (f"{ours}.attention_norm",)
        attention = f"{ours}.attention"
        names[f"{theirs}.attn.Wqkv"] = tuple(f"{attention}.{n}" for n in ("query", "key", "value"))
        names[f"{theirs}.attn.Wo"] = (f"{attention}.output",)
        names[f"{theirs}.mlp_norm"] = (f"{ours}.feed_forward_norm",)
        names[f"{theirs}.mlp.Wi"] = (f"{ours}.feed_forward.gate", f"{ours}.feed_forward.up")
        names[f"{theirs}.mlp.Wo"] = (f"{ours}.feed_forward.down",)
    names["model.final_norm"] = ("norm",)
    names["head.dense"] = ("masked_head.dense",)
    names["head.norm"] = ("masked_head.norm",)
    tensors = {
        f"{name}.weight": FileTensor(tuple(f"{part}.weight" for part in parts))
        for name, parts in names.items()
    }
    return tensors | {"decoder.bias": FileTensor(("masked_head.bias",))}
