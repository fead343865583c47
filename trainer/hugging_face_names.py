"""Which tensors of a Hugging Face folder are made of which of our parameters.

GPT-2's files hold matrices as [inputs, outputs] (transposed), and query, key and value in one.
Files hold each expert's matrices apart; we have all experts of a layer in one tensor.
"""

from __future__ import annotations

from .config_model import ModelConfig
from .hugging_face_config import family
from .hugging_face_encoders import encoder_tensors
from .hugging_face_tensor import FileTensor

VOCABULARY = ("embedding.weight", "head.weight", "masked_head.bias")
"""Our parameters with a row for each id, which are padded here and not in files."""
_MATRICES = ("gate", "up", "down")
_MIXTRAL = {"gate": "w1", "up": "w3", "down": "w2"}


def file_tensors(config: ModelConfig) -> dict[str, FileTensor]:
    """Return each tensor of a folder by its name there, in the order of the layers."""
    if not config.causal:
        return encoder_tensors(config)
    return _gpt2(config) if family(config) == "gpt2" else _llama(config)


def _llama(config: ModelConfig) -> dict[str, FileTensor]:
    kinds = ("weight", "bias") if config.biases else ("weight",)
    tensors = {"model.embed_tokens.weight": FileTensor(("embedding.weight",))}
    linear = {
        "self_attn.q_proj": "attention.query",
        "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value",
        "self_attn.o_proj": "attention.output",
    }
    if not config.num_experts:
        linear |= {f"mlp.{name}_proj": f"feed_forward.{name}" for name in _MATRICES}
    norms = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm"}
    if config.query_key_norm:
        norms |= {"self_attn.q_norm": "attention.query_norm"}
        norms |= {"self_attn.k_norm": "attention.key_norm"}
    for layer in range(config.num_layers):
        theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
        for name, own in linear.items():
            for kind in kinds:
                tensors[f"{theirs}.{name}.{kind}"] = FileTensor((f"{ours}.{own}.{kind}",))
        if config.num_experts:
            tensors |= _experts(config, theirs, f"{ours}.feed_forward")
        for name, own in norms.items():
            tensors[f"{theirs}.{name}.weight"] = FileTensor((f"{ours}.{own}.weight",))
    tensors["model.norm.weight"] = FileTensor(("norm.weight",))
    if not config.tied_embeddings:
        tensors["lm_head.weight"] = FileTensor(("head.weight",))
    return tensors


def _experts(config: ModelConfig, layer: str, ours: str) -> dict[str, FileTensor]:
    """Return the tensors of one layer's router and experts, all experts of a matrix in a row."""
    name = family(config)
    module = "block_sparse_moe" if name == "mixtral" else "mlp"
    theirs = f"{layer}.{module}"
    tensors = {f"{theirs}.gate.weight": FileTensor((f"{ours}.router.weight",))}
    if name == "dots1":
        tensors[f"{theirs}.gate.e_score_correction_bias"] = FileTensor((f"{ours}.router.bias",))
    for matrix in _MATRICES:
        word = _MIXTRAL[matrix] if name == "mixtral" else f"{matrix}_proj"
        for expert in range(config.num_experts):
            tensors[f"{theirs}.experts.{expert}.{word}.weight"] = FileTensor(
                (f"{ours}.experts.{matrix}",), expert=expert
            )
        if name == "dots1":
            tensors[f"{theirs}.shared_experts.{matrix}_proj.weight"] = FileTensor(
                (f"{ours}.shared.{matrix}.weight",)
            )
    return tensors


def _gpt2(config: ModelConfig) -> dict[str, FileTensor]:
    tensors = {
        "transformer.wte.weight": FileTensor(("embedding.weight",)),
        "transformer.wpe.weight": FileTensor(("position_table.weight",)),
    }
    linear = {
        "attn.c_attn": ("attention.query", "attention.key", "attention.value"),
        "attn.c_proj": ("attention.output",),
        "mlp.c_fc": ("feed_forward.up",),
        "mlp.c_proj": ("feed_forward.down",),
    }
    norms = {"ln_1": "attention_norm", "ln_2": "feed_forward_norm"}
    for layer in range(config.num_layers):
        theirs, ours = f"transformer.h.{layer}", f"blocks.{layer}"
        for name, own in linear.items():
            for kind in ("weight", "bias"):
                parts = tuple(f"{ours}.{part}.{kind}" for part in own)
                tensors[f"{theirs}.{name}.{kind}"] = FileTensor(parts, kind == "weight")
        for name, norm in norms.items():
            for kind in ("weight", "bias"):
                tensors[f"{theirs}.{name}.{kind}"] = FileTensor((f"{ours}.{norm}.{kind}",))
    for kind in ("weight", "bias"):
        tensors[f"transformer.ln_f.{kind}"] = FileTensor((f"norm.{kind}",))
    return tensors
