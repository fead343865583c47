"""What a user can set about the network: plain typed values in, nothing done here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """A decoder; by default Llama's: RMSNorm, rotary positions, shared key/value heads, SwiGLU.

    Qwen3: query_key_norm and a head_size of its own. GPT-2: norm = "layer", positions = "learned",
    activation = "gelu", biases.
    """

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
    norm: Literal["rms", "layer"] = "rms"
    """rms: RMSNorm; layer: LayerNorm with biases."""
    positions: Literal["rotary", "learned"] = "rotary"
    """rotary: queries and keys turn with their place; learned: a table added to the embedding."""
    max_positions: int = 0
    """Rows of the learned table (of rotary positions, only what an export names as the longest
    context); 0: the longest sequence length of the training."""
    activation: Literal["swiglu", "gelu"] = "swiglu"
    """swiglu: two matrices in, one gating the other; gelu: one matrix in (tanh approximation)."""
    biases: bool = False
    """Add a bias to every matrix of the blocks."""
    query_key_norm: bool = False
    """Normalize each query and key head (RMSNorm with a weight of head_size)."""
    tied_embeddings: bool = True
    """Use the embedding matrix as output layer too."""
    rope_theta: float = 10_000.0
    """Base of the rotary position frequencies."""
    norm_epsilon: float = 1e-5
    """Added to the mean square inside RMSNorm."""
    init_std: float = 0.02
    """Standard deviation of the initial weights; layers that write into the residual stream
    take init_std / sqrt(2 num_layers)."""
    vocab_multiple: int = 64
    """The embedding matrix is padded to a multiple of this many rows, whatever the layout."""


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
