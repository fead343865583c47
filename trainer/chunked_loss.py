"""Hidden states and labels in, the loss out: no logits of more than one chunk ever exist.

Logits are the largest tensor of a step (tokens x vocabulary). Here they are computed for a chunk
of tokens at a time, turned into the chunk's share of every gradient while they are still in the
cache, and forgotten: three products of a chunk instead of three of everything, and no more memory
than one chunk's logits. What is kept for the backward pass has the size of the hidden states and
of the output matrix.

Legend: N tokens, C tokens of a chunk, D hidden size, V real vocabulary columns of this rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from .grid import Ranks
from .products import can_multiply

_CHUNK_LOGITS = {"cpu": 4 << 20, "cuda": 256 << 20}
"""Logits of a chunk where none is asked for: 16 MB in float32 stay in a CPU's cache."""
_LEAST_CHUNK, _CHUNK_MULTIPLE = 256, 128


def summed_nll(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    mask_N: torch.Tensor,
    tensor: Ranks,
    first_column: int = 0,
    num_columns: int | None = None,
    chunk_tokens: int = 0,
    bias_V: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the sum of the labels' negative log-likelihoods (nats) over the true places of mask.

    Equal to the sum of `token_nll`. Divide it once by the valid tokens of the whole step: a mean of
    means would depend on micro-batches and ranks. The gradients are computed along with it. Under
    tensor parallelism each chunk takes two all-reduces; the gradient of `hidden_ND` is this rank's
    part of a sum.

    Args:
        hidden_ND: [num_tokens, hidden], in the number format of the computation.
        weight_VD: this rank's rows of the output matrix, padded ones last.
        labels_N: int64[num_tokens], ids of the whole vocabulary; anything where mask is false.
        mask_N: bool[num_tokens], which tokens count.
        tensor: the ranks that hold the other rows.
        first_column: id of the first row.
        num_columns: rows that are no padding, 0 or more; None: all.
        chunk_tokens: tokens at a time; 0: as many as suit the device.
        bias_V: added to the logits, a number a row of `weight_VD`; None: nothing is.

    Returns:
        float32[] (float64 for float64 hidden states), the same on every rank.
    """
    total: torch.Tensor = _SummedNll.apply(  # type: ignore[no-untyped-call]
        hidden_ND,
        weight_VD,
        bias_V,
        labels_N,
        mask_N,
        tensor,
        first_column,
        num_columns,
        chunk_tokens,
    )
    return total


@torch.no_grad()
def token_nll(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_N: torch.Tensor,
    mask_N: torch.Tensor,
    tensor: Ranks,
    first_column: int = 0,
    num_columns: int | None = None,
    chunk_tokens: int = 0,
    bias_V: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the nll (nats) of each label, 0 where the mask is false, without a gradient.

    Arguments and number format are those of `summed_nll`: the same on every rank, [num_tokens].
    """
    rounded_VD = _rounded(weight_VD, num_columns, hidden_ND)
    labels_N = labels_N - first_column
    size = chunk_tokens or default_chunk(weight_VD.shape[0], hidden_ND.device)
    chunks = _chunks(hidden_ND, rounded_VD, bias_V, labels_N, mask_N, tensor, size)
    return torch.cat([nll_C for _, _, nll_C, _ in chunks])


def default_chunk(num_columns: int, device: torch.device) -> int:
    """Return the tokens of a chunk that suit the device, for so many columns of logits."""
    logits = _CHUNK_LOGITS.get(device.type, _CHUNK_LOGITS["cuda"])
    tokens = logits // max(1, num_columns)
    return max(_LEAST_CHUNK, tokens // _CHUNK_MULTIPLE * _CHUNK_MULTIPLE)


class _SummedNll(torch.autograd.Function):
    """The gradients are made in the forward pass, chunk by chunk, and scaled in the backward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_N: torch.Tensor,
        mask_N: torch.Tensor,
        tensor: Ranks,
        first_column: int,
        num_columns: int | None,
        chunk_tokens: int,
    ) -> torch.Tensor:
        rounded_VD = _rounded(weight_VD, num_columns, hidden_ND)
        labels_N = labels_N - first_column
        size = chunk_tokens or default_chunk(weight_VD.shape[0], hidden_ND.device)
        columns = slice(len(rounded_VD))
        wide = _wide(hidden_ND.dtype)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        d_hidden_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        d_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if needs_weight else None
        d_bias_V = (
            torch.zeros_like(bias_V, dtype=wide) if bias_V is not None and needs_bias else None
        )
        total = torch.zeros((), dtype=torch.float64, device=hidden_ND.device)
        for chunk, hidden_CD, nll_C, d_logits_CV in _chunks(
            hidden_ND, rounded_VD, bias_V, labels_N, mask_N, tensor, size
        ):
            total += nll_C.sum(dtype=torch.float64)
            if d_bias_V is not None:
                d_bias_V[columns] += d_logits_CV.T @ mask_N[chunk].to(wide)
            d_logits_CV = d_logits_CV.to(hidden_CD.dtype)
            # Masked tokens have no gradient: a row each of two small factors, not of the logits.
            keep_C1 = mask_N[chunk, None]
            if d_hidden_ND is not None:
                d_hidden_CD = d_logits_CV @ rounded_VD
                d_hidden_ND[chunk] = torch.where(keep_C1, d_hidden_CD, 0)
            if d_weight_VD is not None:
                kept_CD = torch.where(keep_C1, hidden_CD, 0)
                if kept_CD.dtype == wide:
                    d_weight_VD[columns].addmm_(d_logits_CV.T, kept_CD)
                else:
                    d_weight_VD[columns] += d_logits_CV.T @ kept_CD
        ctx.save_for_backward(d_hidden_ND, d_weight_VD, d_bias_V)
        ctx.weight_dtype = weight_VD.dtype
        return total.to(wide)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        d_hidden_ND, d_weight_VD, d_bias_V = ctx.saved_tensors
        (scale,) = gradients
        # Looking at a number waits for a GPU, and costs nothing on a CPU.
        if scale.device.type != "cpu" or scale.item() != 1:
            if d_hidden_ND is not None:
                d_hidden_ND = d_hidden_ND * scale.to(d_hidden_ND.dtype)
            if d_weight_VD is not None:
                d_weight_VD = d_weight_VD * scale
            if d_bias_V is not None:
                d_bias_V = d_bias_V * scale
        if d_weight_VD is not None:
            d_weight_VD = d_weight_VD.to(ctx.weight_dtype)
        return d_hidden_ND, d_weight_VD, d_bias_V, *6 * [None]


def _rounded(
    weight_VD: torch.Tensor, num_columns: int | None, hidden_ND: torch.Tensor
) -> torch.Tensor:
    """Return the rows that are no padding, to be multiplied with hidden states.

    Without arithmetic of its own on this device, a number format is only what the values were
    rounded to: products are taken of the same values in float32.
    """
    dtype = hidden_ND.dtype
    narrow = dtype if can_multiply(dtype, hidden_ND.device) else _wide(dtype)
    return weight_VD[:num_columns].detach().to(dtype).to(narrow)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _chunks(
    hidden_ND: torch.Tensor,
    rounded_VD: torch.Tensor,
    bias_V: torch.Tensor | None,
    local_N: torch.Tensor,
    mask_N: torch.Tensor,
    tensor: Ranks,
    size: int,
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield (which tokens, hidden states, nll, gradient by the logits) of `size` tokens at a time.

    Hidden states are in the number format of `rounded_VD`, the gradient in float32 or wider.
    """
    narrow, wide = rounded_VD.dtype, _wide(hidden_ND.dtype)
    for start in range(0, hidden_ND.shape[0], size):
        chunk = slice(start, start + size)
        hidden_CD = hidden_ND[chunk].to(narrow)
        logits_CV = (hidden_CD @ rounded_VD.T).to(wide)
        if bias_V is not None:
            logits_CV += bias_V[: len(rounded_VD)].detach()
        nll_C, d_logits_CV = _nll_and_gradient(logits_CV, local_N[chunk], mask_N[chunk], tensor)
        del logits_CV
        yield chunk, hidden_CD, nll_C, d_logits_CV


def _nll_and_gradient(
    logits_CV: torch.Tensor, local_C: torch.Tensor, mask_C: torch.Tensor, tensor: Ranks
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each token's nll (0 where masked) and, where not masked, its gradient by the logits.

    A row's largest probability is 1 / sum(exp(logit - highest)): the softmax tells the sum, and
    one pass over the logits is spared.
    """
    columns = logits_CV.shape[1]
    if columns == 0:  # every column of this rank is padding
        probability_CV = logits_CV
        own_C = torch.full_like(local_C, -torch.inf, dtype=logits_CV.dtype)
        here_C = torch.zeros_like(mask_C)
        label_C = torch.zeros_like(own_C)
    else:
        here_C = mask_C & (local_C >= 0) & (local_C < columns)
        index_C1 = local_C.masked_fill(~here_C, 0)[:, None]
        label_C = logits_CV.gather(1, index_C1)[:, 0].masked_fill(~here_C, 0)
        highest_C = logits_CV.amax(dim=1)
        probability_CV = logits_CV.softmax(dim=1)
        own_C = highest_C - probability_CV.amax(dim=1).log()  # log of the sum of exponentials
    if tensor.group is None:
        all_C = own_C
    else:
        highest_C = tensor.max(own_C)
        share_C = (own_C - highest_C).exp()
        total_C, label_C = tensor.sum(torch.stack([share_C, label_C]))
        all_C = highest_C + total_C.log()
        probability_CV *= (share_C / total_C)[:, None]
    if columns:
        probability_CV.scatter_add_(1, index_C1, -here_C[:, None].to(probability_CV.dtype))
    return (all_C - label_C).masked_fill(~mask_C, 0), probability_CV
