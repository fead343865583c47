"""Token ids in, logits out: a network whose matrices may lie in slices on many ranks.

Legend: B sequences, T positions, D hidden size, V padded vocabulary columns of this rank.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from typing import Any

import torch
from torch import nn

from .attention import LayerCache
from .block import Block, Embedding
from .chunked_loss import summed_nll, token_nll
from .config_model import ModelConfig
from .grid import Ranks
from .layers import Linear, is_gated, make_norm
from .masked_head import MaskedHead
from .parallel import Placement, check_layout, check_sequence, enter, placement
from .places import Places, nearby_places
from .products import product
from .rotary import rotary_angles
from .sharding import assign


def resolve(config: ModelConfig) -> ModelConfig:
    """Return the config with the derived sizes (0) filled in; `max_positions` is left alone."""
    thirds = 8 if is_gated(config) else 12
    ffn_size = config.ffn_size or -(-thirds * config.hidden_size // (3 * 64)) * 64
    return dataclasses.replace(
        config,
        num_kv_heads=config.num_kv_heads or config.num_heads,
        head_size=config.head_size or config.hidden_size // config.num_heads,
        ffn_size=ffn_size,
        expert_ffn_size=config.num_experts and (config.expert_ffn_size or ffn_size),
    )


def pad_vocabulary(vocab_size: int, multiple: int) -> int:
    """Return the rows of the embedding matrix: it does not depend on the number of ranks."""
    return -(-vocab_size // multiple) * multiple


class Transformer(nn.Module):
    """The whole network, or this rank's slice of it.

    Args:
        config: sizes, resolved by `resolve`.
        vocab_size: number of real ids; the padded columns' logits are -inf.
        tensor: the ranks that share each matrix.
        compute_dtype: number format of activations; parameters rest in float32, or in float64
            when that is the compute dtype.
        expert: the ranks that share the experts.
        sequence_parallel: the ranks of `tensor` share norms and the residual stream as well (for
            training: no cache).
    """

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        tensor: Ranks | None = None,
        compute_dtype: torch.dtype = torch.float32,
        *,
        expert: Ranks | None = None,
        sequence_parallel: bool = False,
    ) -> None:
        super().__init__()
        tensor, expert = tensor or Ranks(), expert or Ranks()
        sequence_parallel = sequence_parallel and tensor.size > 1
        padded = pad_vocabulary(vocab_size, config.vocab_multiple)
        check_layout(config, padded, tensor.size)
        self.config = config
        self.vocab_size = vocab_size
        self.tensor = tensor
        self.expert = expert
        self.sequence_parallel = sequence_parallel
        self.compute_dtype = compute_dtype
        self.local_parameters: dict[str, nn.Parameter] | None = None  # see sharding.py
        self.embedding = Embedding(padded, config.hidden_size, tensor, sequence_parallel)
        if config.positions == "learned":
            self.position_table = nn.Embedding(config.max_positions, config.hidden_size)
        if config.token_types:
            self.token_type_table = nn.Embedding(config.token_types, config.hidden_size)
        self.embedding_norm = make_norm(config) if config.embedding_norm else None
        self.blocks = nn.ModuleList(
            Block(config, tensor, expert, sequence_parallel, number)
            for number in range(config.num_layers)
        )
        self.norm = make_norm(config) if config.norm_position == "before" else None
        if not config.tied_embeddings:
            self.head = Linear(config.hidden_size, padded // tensor.size)
        self.masked_head = None if config.causal else MaskedHead(config, padded // tensor.size)
        if compute_dtype == torch.float64:
            self.double()
        self._angles: dict[float, tuple[torch.Tensor, torch.Tensor]] = {}
        self._padding_V: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def forward(
        self,
        tokens_BT: torch.Tensor,
        cache: list[LayerCache] | None = None,
        start: int = 0,
        places: Places | None = None,
        num_valid_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits[B, T, V]: the columns of this rank, -inf where they are padding.

        Args:
            tokens_BT: int64 ids below vocab_size.
            cache: one entry a layer, for generation; see `make_cache`.
            start: position of tokens_BT[:, 0].
            places: where documents, or rows behind padding, begin; None: at position 0.
            num_valid_B: tokens of each sequence that have a loss, for the terms that routers add
                to it; None: all.
        """
        x_BTD = self.hidden(tokens_BT, cache, start, places, num_valid_B)
        return self.logits(x_BTD)

    def hidden(
        self,
        tokens_BT: torch.Tensor,
        cache: list[LayerCache] | None = None,
        start: int = 0,
        places: Places | None = None,
        num_valid_B: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the normalized residual stream after the last block, float[B, T, D].

        Of an encoder, what `MaskedHead` and heads of other tasks read.

        With sequence_parallel it is this rank's part of the sequence: `enter` makes it whole.
        """
        length = tokens_BT.shape[1]
        if self.sequence_parallel:
            check_sequence(length, self.tensor.size)
        x_BTD: torch.Tensor = self.embedding(tokens_BT)
        config, angles_TE = self.config, None
        if config.token_types:
            x_BTD = x_BTD + self.token_type_table.weight[0]
        if config.positions == "learned":
            self._require_positions(start + length)
            part = x_BTD.shape[1]  # of the sequence, which may be divided among ranks
            first = self.tensor.rank * part if self.sequence_parallel else 0
            table = self.position_table.weight
            if places is None:
                x_BTD = x_BTD + table[start + first : start + first + part]
            else:
                x_BTD = x_BTD + table[places.positions_BT[:, first : first + part]]
        else:
            angles_TE = self._rotary_angles(config, start, length, x_BTD.device, places)
        if self.embedding_norm is not None:
            x_BTD = self.embedding_norm(x_BTD)
        x_BTD = x_BTD.to(self.compute_dtype)
        near_places, near_angles_TE = places, angles_TE
        if config.local_window:
            half = config.local_window // 2
            near_places = nearby_places(places, half, tokens_BT, self.compute_dtype)
            if angles_TE is not None:
                near = dataclasses.replace(config, rope_theta=config.local_rope_theta)
                near_angles_TE = self._rotary_angles(near, start, length, x_BTD.device, places)
        for number, block in enumerate(self.blocks):
            layer = cache[number] if cache is not None else None
            if block.is_local:
                x_BTD = block(x_BTD, near_angles_TE, layer, start, near_places, num_valid_B)
            else:
                x_BTD = block(x_BTD, angles_TE, layer, start, places, num_valid_B)
        if self.norm is not None:
            x_BTD = self.norm(x_BTD)
        return x_BTD

    def logits(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Return logits[B, T, V] of this rank's columns."""
        weight = self.embedding.weight if self.config.tied_embeddings else self.head.weight
        x_BTD = enter(x_BTD, self.tensor, self.sequence_parallel)
        bias_V = self._padding_bias(weight, x_BTD.dtype)
        if self.masked_head is not None:
            x_BTD = self.masked_head(x_BTD)
            own_V = self.masked_head.bias
            bias_V = own_V if bias_V is None else bias_V + own_V.to(bias_V.dtype)
        return product(x_BTD, weight, bias_V)

    def loss(
        self,
        tokens_BT: torch.Tensor,
        labels_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        places: Places | None = None,
        chunk_tokens: int = 0,
        rows_N: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the summed nll (nats) of the labels where mask is true; see `summed_nll`.

        Args:
            labels_BT: int64, the token after each; of an encoder, the one that was masked.
            mask_BT: bool, which labels count.
            places: where documents begin; None: at position 0.
            chunk_tokens: tokens whose logits exist at once; 0: as many as suit the device.
            rows_N: int64, the true places of the mask, one row after the other: all that the
                output layer then sees; None: it sees every token.
        """
        found = self._predictions(tokens_BT, labels_BT, mask_BT, places, rows_N)
        return summed_nll(**found, chunk_tokens=chunk_tokens)

    def token_nll(
        self,
        tokens_BT: torch.Tensor,
        labels_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        places: Places | None = None,
    ) -> torch.Tensor:
        """Return the nll (nats) of each label, [B, T], 0 where mask is false; without a gradient.

        Arguments are those of `loss`, and no more logits exist at once than there.
        """
        with torch.no_grad():
            nll_N = token_nll(**self._predictions(tokens_BT, labels_BT, mask_BT, places, None))
        return nll_N.view(labels_BT.shape)

    def _predictions(
        self,
        tokens_BT: torch.Tensor,
        labels_BT: torch.Tensor,
        mask_BT: torch.Tensor,
        places: Places | None,
        rows_N: torch.Tensor | None,
    ) -> dict[str, Any]:
        """Return what a loss is computed of: arguments of `summed_nll`."""
        x_BTD = self.hidden(tokens_BT, places=places, num_valid_B=mask_BT.sum(dim=1))
        x_ND = enter(x_BTD, self.tensor, self.sequence_parallel).flatten(0, 1)
        labels_N, mask_N = labels_BT.flatten(), mask_BT.flatten()
        if rows_N is not None:
            x_ND, labels_N, mask_N = x_ND[rows_N], labels_N[rows_N], mask_N[rows_N]
        bias_V = None
        if self.masked_head is not None:
            x_ND, bias_V = self.masked_head(x_ND), self.masked_head.bias
        weight = self.embedding.weight if self.config.tied_embeddings else self.head.weight
        rows = weight.shape[0]
        first_column = self.tensor.rank * rows
        return {
            "hidden_ND": x_ND,
            "weight_VD": weight,
            "labels_N": labels_N,
            "mask_N": mask_N,
            "tensor": self.tensor,
            "first_column": first_column,
            "num_columns": min(rows, max(0, self.vocab_size - first_column)),
            "bias_V": bias_V,
        }

    def make_cache(self, num_sequences: int, length: int) -> list[LayerCache]:
        """Return an empty cache of `length` positions for each layer."""
        config = self.config
        heads = max(1, config.num_kv_heads // self.tensor.size)
        shape = (num_sequences, heads, length, config.head_size)
        device = self.device

        def empty() -> torch.Tensor:
            return torch.zeros(shape, dtype=self.compute_dtype, device=device)

        return [LayerCache(empty(), empty()) for _ in range(config.num_layers)]

    def _require_positions(self, length: int) -> None:
        if length > self.config.max_positions:
            raise ValueError(
                f"a text of {length} tokens is longer than the {self.config.max_positions} learned "
                "positions of this model: shorten it (prompt and max_tokens together), or train "
                "with a larger model.max_positions"
            )

    def _rotary_angles(
        self,
        config: ModelConfig,
        start: int,
        length: int,
        device: torch.device,
        places: Places | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angles = self._angles.get(config.rope_theta)
        known = 0 if angles is None else angles[0].shape[0]
        if angles is None or known < start + length or angles[0].device != device:
            size = max(start + length, 2 * known if known else 0)
            with torch.inference_mode(False):  # they outlive an evaluation: training needs them too
                cos, sin = rotary_angles(config, 0, size, device)
                angles = cos.to(self.compute_dtype), sin.to(self.compute_dtype)
            self._angles[config.rope_theta] = angles
        cos, sin = angles
        if places is not None:
            return cos[places.positions_BT][:, None], sin[places.positions_BT][:, None]
        return cos[start : start + length], sin[start : start + length]

    def _padding_bias(self, weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
        """Return 0 for real columns and -inf for padded ones; None if this rank has no padding.

        As the bias of the output layer it costs no pass over the logits of its own.
        """
        rows = weight.shape[0]
        num_real = self.vocab_size - self.tensor.rank * rows
        if num_real >= rows:
            return None
        if self._padding_V is None or self._padding_V.device != weight.device:
            with torch.inference_mode(False):
                bias_V = torch.zeros(rows, dtype=dtype, device=weight.device)
                bias_V[max(0, num_real) :] = -math.inf
            self._padding_V = bias_V
        return self._padding_V


def placements(model: Transformer) -> dict[str, Placement]:
    """Return how each parameter and buffer of `model` is laid out over its ranks."""
    return {
        name: placement(name, model.config, model.tensor, model.expert, model.sequence_parallel)
        for name in (*dict(model.named_parameters()), *dict(model.named_buffers()))
    }


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> None:
    """Fill the weights so that they do not depend on the layout, bit for bit.

    Each whole tensor is drawn in float32 on the CPU from a generator of its own, keyed by the
    parameter's name, then cut: TP=k holds slices of what TP=1 holds.
    """
    config = model.config
    where = placements(model)
    for buffer in model.buffers():
        buffer.zero_()
    for name, parameter in model.named_parameters():
        module, kind = name.split(".")[-2:]
        if kind == "bias":
            nn.init.zeros_(parameter)
            continue
        if module.endswith("norm"):
            nn.init.ones_(parameter)
            continue
        std = config.init_std
        if module in ("output", "down") or kind == "down":
            std /= math.sqrt(2 * config.num_layers)
        full = torch.empty(where[name].full_shape(parameter.shape), dtype=torch.float32)
        full.normal_(0, std, generator=generator_of(seed, name))
        assign(parameter, where[name].slice(full))


def generator_of(seed: int, name: str) -> torch.Generator:
    """Return the generator of a parameter's initial values, the same in every layout."""
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)


def count_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Return the number of parameters of the whole model (`config` resolved)."""
    return sum(parameter.numel() for parameter in _shapes(config, vocab_size).parameters())


def count_product_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Return the parameters of matrices that a token is multiplied with: no look-up, no norm.

    Of experts, only those that it takes.
    """
    total = 0
    for name, parameter in _shapes(config, vocab_size).named_parameters():
        if ".experts." in name:
            total += parameter.numel() // config.num_experts * config.experts_per_token
        elif parameter.dim() == 2 and "_table" not in name:
            total += parameter.numel() * (config.tied_embeddings or "embedding" not in name)
    return total


@functools.lru_cache(maxsize=4)
def _shapes(config: ModelConfig, vocab_size: int) -> Transformer:
    """Return a model without memory."""
    with torch.device("meta"):
        return Transformer(config, vocab_size)
