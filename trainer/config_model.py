"""What a user can set about the network: plain typed values in, nothing done here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class RopeScalingConfig:
    """Slower rotary positions, for texts longer than those a model was trained on."""

    kind: Literal["none", "linear", "llama3", "yarn"] = "none"
    """none: as trained; linear: all positions closer together; llama3, yarn: the slow ones only."""
    factor: float = 1.0
    """How much longer the texts are than `original_positions`."""
    original_positions: int = 0
    """llama3, yarn: the longest context before."""
    low_frequency_factor: float = 1.0
    """llama3: pairs with fewer turns in the original context are slowed by the whole factor."""
    high_frequency_factor: float = 4.0
    """llama3: pairs with more turns are left as they are."""
    beta_fast: float = 32.0
    """yarn: pairs with more turns in the original context are left as they are."""
    beta_slow: float = 1.0
    """yarn: pairs with fewer turns are slowed by the whole factor."""
    attention_factor: float = 0.0
    """yarn: scales queries and keys; 0: 0.1 ln(factor) + 1, or from the two below."""
    mscale: float = 0.0
    """yarn: with mscale_all_dim, (0.1 mscale ln(factor) + 1) / (0.1 mscale_all_dim ln(factor) + 1)
    is the attention factor (DeepSeek)."""
    mscale_all_dim: float = 0.0
    """yarn: see mscale."""
    truncate: bool = True
    """yarn: the ramp begins and ends at whole pairs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A decoder; by default Llama's: RMSNorm, rotary positions, shared key/value heads, SwiGLU.
    With causal = false it is an encoder, trained to fill in masked tokens.

    Qwen3: query_key_norm and a head_size of its own. GPT-2: norm = "layer", positions = "learned",
    activation = "gelu", biases. Mixtral, Qwen3-MoE: num_experts; DeepSeek: router_score = "sigmoid"
    and num_shared_experts as well. BERT, ModernBERT: see the presets, and docs/encoders.md.
    """

    preset: str = ""
    """Sizes of a well-known network, e.g. "gpt2-124m", "llama-1b", "qwen3-8b", "mixtral-8x7b" (a
    wrong name lists all). Fields that are given another value than their default override it."""
    causal: bool = True
    """true: a decoder, which sees what is before each token and predicts the next one; false: an
    encoder, which sees both sides and predicts masked tokens ([pretrain.masking])."""
    num_layers: int = 6
    """Number of transformer blocks."""
    hidden_size: int = 384
    """Width of the residual stream."""
    num_heads: int = 6
    """Query heads of each attention layer."""
    num_kv_heads: int = 0
    """Key and value heads, shared by groups of query heads; 0: as many as query heads."""
    head_size: int = 0
    """Width of one attention head; 0: hidden_size / num_heads."""
    ffn_size: int = 0
    """Inner width of the feed-forward layer; 0: 8/3 of hidden_size (gelu: 4 times), rounded up to
    64."""
    norm: Literal["rms", "layer", "layer_without_bias"] = "rms"
    """rms: RMSNorm; layer: LayerNorm with biases; layer_without_bias: without."""
    norm_position: Literal["before", "after"] = "before"
    """before: attention and feed-forward layers read the normalized residual stream, which is
    normalized once more at the end; after: their sum with it is normalized (BERT)."""
    embedding_norm: bool = False
    """Normalize the embeddings too; with norms before, the first attention takes them as they are
    then (ModernBERT)."""
    token_types: int = 0
    """Rows of BERT's table of token types, of which every token here has the first; 0: none."""
    local_window: int = 0
    """Encoders: tokens, half of them on either side, that attention sees in all but each
    `global_every`-th layer; 0: everything everywhere."""
    global_every: int = 3
    """local_window: the first of so many layers sees everything."""
    local_rope_theta: float = 10_000.0
    """local_window: base of the rotary frequencies of the other layers."""
    positions: Literal["rotary", "learned"] = "rotary"
    """rotary: queries and keys turn with their place; learned: a table added to the embedding."""
    max_positions: int = 0
    """Rows of the learned table (of rotary positions, only what an export names as the longest
    context); 0: the longest sequence length of the training."""
    activation: Literal["swiglu", "geglu", "gelu", "gelu_exact"] = "swiglu"
    """swiglu, geglu: two matrices in, one gating the other; gelu: one matrix in (tanh
    approximation); gelu_exact: without the approximation, which geglu has none of either."""
    biases: bool = False
    """Add a bias to every matrix of the blocks."""
    query_key_norm: bool = False
    """Normalize each query and key head (RMSNorm with a weight of head_size)."""
    tied_embeddings: bool = True
    """Use the embedding matrix as output layer too."""
    rope_theta: float = 10_000.0
    """Base of the rotary position frequencies."""
    rope_scaling: RopeScalingConfig = field(default_factory=RopeScalingConfig)
    """Rotary positions for longer texts than before; `init_from` takes it from the folder unless it
    is set here."""
    norm_epsilon: float = 1e-5
    """Added to the mean square inside RMSNorm."""
    init_std: float = 0.02
    """Standard deviation of the initial weights; layers that write into the residual stream
    take init_std / sqrt(2 num_layers)."""
    vocab_multiple: int = 64
    """The embedding matrix is padded to a multiple of this many rows, whatever the layout."""
    num_experts: int = 0
    """Feed-forward layers of each block, of which every token takes a few (mixture of experts); 0:
    one, which every token takes (dense)."""
    experts_per_token: int = 2
    """Experts that every token takes."""
    expert_ffn_size: int = 0
    """Inner width of one expert; 0: ffn_size."""
    num_shared_experts: int = 0
    """Experts that every token takes besides the chosen ones, computed as one wide one."""
    router_score: Literal["softmax", "sigmoid"] = "softmax"
    """How the router's outputs become scores: softmax over all experts, or a sigmoid of each."""
    normalize_gates: bool = True
    """Divide the chosen experts' scores by their sum, so that a token's weights add up to 1."""
    balance: Literal["bias", "loss", "none"] = "bias"
    """What keeps experts evenly used. bias: a bias of each expert, added to its score in the choice
    only, rises while it gets less than its share; loss: a term of the loss in each sequence."""
    balance_loss_weight: float = 0.01
    """balance = "loss": weight of the term, which is 1 where experts are used evenly."""
    balance_bias_rate: float = 1e-3
    """balance = "bias": what a step adds to or takes from each bias."""
    router_z_loss_weight: float = 0.0
    """Weight of the mean square of the logarithm of the router outputs' summed exponentials, which
    keeps them small; 0: none."""


def check_model(model: ModelConfig) -> None:
    """Refuse sizes that no model can have.

    Raises:
        ValueError: names the fields, their values and what to set instead.
    """
    pairs = " (rotary positions turn pairs of a head's dimensions)"
    if not model.head_size and model.hidden_size % model.num_heads:
        raise ValueError(
            f"model.hidden_size = {model.hidden_size} is no multiple of model.num_heads = "
            f"{model.num_heads}, and model.head_size is not set; change one of them"
        )
    head_size = model.head_size or model.hidden_size // model.num_heads
    if model.positions == "rotary" and head_size % 2:
        where = (
            f"model.head_size = {head_size} must be even"
            if model.head_size
            else f"model.hidden_size = {model.hidden_size} must be an even multiple of "
            f"model.num_heads = {model.num_heads}"
        )
        raise ValueError(f"{where}{pairs}; change it")
    if model.num_kv_heads and model.num_heads % model.num_kv_heads:
        raise ValueError(
            f"model.num_kv_heads = {model.num_kv_heads} must divide model.num_heads = "
            f"{model.num_heads}: every key/value head serves a whole group of query heads"
        )
    _check_rope_scaling(model)
    _check_encoder(model)
    if model.num_experts:
        _check_experts(model)


def _check_encoder(model: ModelConfig) -> None:
    if model.local_window < 0 or model.local_window % 2 or model.global_every < 1:
        raise ValueError(
            f"model.local_window = {model.local_window} and model.global_every = "
            f"{model.global_every}: the window is an even number of tokens, or 0, and global_every "
            "at least 1"
        )
    if model.causal and model.local_window:
        raise ValueError(
            f"model.local_window = {model.local_window} with model.causal = true: only encoders "
            "have local attention here. Set local_window = 0, or causal = false"
        )
    if model.num_experts and (not model.causal or model.norm_position == "after"):
        raise ValueError(
            f"model.num_experts = {model.num_experts} with model.causal = {model.causal} and "
            f'model.norm_position = "{model.norm_position}": encoders, and models with norms '
            "after, are dense here. Set num_experts = 0"
        )


def _check_rope_scaling(model: ModelConfig) -> None:
    scaling = model.rope_scaling
    if scaling == RopeScalingConfig():
        return
    if model.positions != "rotary":
        raise ValueError(
            f'model.rope_scaling.kind = "{scaling.kind}" with model.positions = '
            f'"{model.positions}": there is nothing to scale. Leave it out'
        )
    if scaling.kind == "none":
        raise ValueError(
            'model.rope_scaling has settings, but its kind is "none", so nothing would use them. '
            "Set kind to linear, llama3 or yarn, or leave them out"
        )
    if scaling.factor < 1:
        raise ValueError(f"model.rope_scaling.factor is {scaling.factor}: it must be 1 or more")
    if scaling.kind != "linear" and scaling.original_positions <= 0:
        raise ValueError(
            f'model.rope_scaling.kind = "{scaling.kind}" needs original_positions: the longest '
            "context that the model was trained on before"
        )
    if (
        scaling.kind == "llama3"
        and not 0 < (scaling.low_frequency_factor) < scaling.high_frequency_factor
    ):
        raise ValueError(
            f"model.rope_scaling.low_frequency_factor = {scaling.low_frequency_factor} must lie "
            f"between 0 and high_frequency_factor = {scaling.high_frequency_factor}"
        )
    if scaling.kind == "yarn" and not 0 < scaling.beta_slow <= scaling.beta_fast:
        raise ValueError(
            f"model.rope_scaling.beta_slow = {scaling.beta_slow} must lie between 0 and beta_fast "
            f"= {scaling.beta_fast}"
        )


def _check_experts(model: ModelConfig) -> None:
    if not 1 <= model.experts_per_token <= model.num_experts:
        raise ValueError(
            f"model.experts_per_token = {model.experts_per_token} must lie between 1 and "
            f"model.num_experts = {model.num_experts}: change one of them"
        )
    if model.experts_per_token == 1 and model.normalize_gates:
        raise ValueError(
            "model.experts_per_token = 1 and model.normalize_gates = true: the only weight would "
            "always be 1, and the router learn nothing. Set normalize_gates = false"
        )
    if model.biases:
        raise ValueError(
            f"model.biases = true and model.num_experts = {model.num_experts}: experts have no "
            "biases. Set model.biases = false, or model.num_experts = 0 for a dense model"
        )
