"""Logits and labels in, nll of each token out; the vocabulary may lie in slices on many ranks.

Legend: N tokens, V vocabulary columns of this rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .grid import Ranks


def token_nll(
    logits_NV: torch.Tensor, labels_N: torch.Tensor, mask_N: torch.Tensor, tensor: Ranks
) -> torch.Tensor:
    """Return the negative log-likelihood (nats) of each label, 0 where the mask is false.

    Sum it, and divide once by the number of valid tokens of the whole step: a mean of means would
    depend on micro-batches and ranks.

    Args:
        logits_NV: [num_tokens, columns of this rank], -inf in padded columns.
        labels_N: int64[num_tokens], ids of the whole vocabulary; anything where the mask is false.
        mask_N: bool[num_tokens], which tokens count.
        tensor: the ranks that hold the other columns.

    Returns:
        float32[num_tokens] (float64 for float64 logits), the same on every rank.
    """
    if logits_NV.dtype in (torch.bfloat16, torch.float16):
        logits_NV = logits_NV.float()
    if tensor.group is None:
        # The label -1 is ignored by position: no id of the vocabulary stands for padding.
        labels_N = labels_N.masked_fill(~mask_N, -1)
        return F.cross_entropy(logits_NV, labels_N, ignore_index=-1, reduction="none")
    nll_N: torch.Tensor = _ShardedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits_NV, labels_N, mask_N, tensor
    )
    return nll_N


class _ShardedCrossEntropy(torch.autograd.Function):
    """Cross-entropy over columns that lie on several ranks, with two all-reduces in all.

    One finds the row's maximum; one sums, in a single tensor, the exponentials and the logit of
    the label (which lies on exactly one rank). The gradient needs no communication.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits_NV: torch.Tensor,
        labels_N: torch.Tensor,
        mask_N: torch.Tensor,
        tensor: Ranks,
    ) -> torch.Tensor:
        columns = logits_NV.shape[1]
        highest_N = tensor.max(logits_NV.amax(dim=1))
        shifted_NV = logits_NV - highest_N[:, None]
        local_N = labels_N - tensor.rank * columns
        here_N = mask_N & (local_N >= 0) & (local_N < columns)
        local_N = local_N.masked_fill(~here_N, 0)
        label_N = shifted_NV.gather(1, local_N[:, None])[:, 0].masked_fill(~here_N, 0)
        probability_NV = shifted_NV.exp_()
        total_N, label_N = tensor.sum(torch.stack([probability_NV.sum(dim=1), label_N]))
        probability_NV /= total_N[:, None]
        ctx.save_for_backward(probability_NV, local_N, here_N, mask_N)
        nll_N: torch.Tensor = (total_N.log() - label_N).masked_fill(~mask_N, 0)
        return nll_N

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        # In place on the saved probabilities: a second backward is refused by their version.
        gradient_NV, local_N, here_N, mask_N = ctx.saved_tensors
        scale_N = gradients[0].masked_fill(~mask_N, 0)
        label_N1 = gradient_NV.gather(1, local_N[:, None]) - here_N[:, None].to(gradient_NV.dtype)
        gradient_NV.scatter_(1, local_N[:, None], label_N1)
        gradient_NV *= scale_N[:, None]
        return gradient_NV, None, None, None
