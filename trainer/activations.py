"""A model in; the same model that keeps fewer activations for the backward pass, out.

Kept from forward to backward, by `training.activation_checkpointing`:
    none        everything
    selective   each block's input and the results of its products and its attention; norms,
                activation functions and sums, which are cheap, are computed again
    full        each block's input alone: the whole block is computed again (a third more work)

The same operations run on the same values, so loss and gradients are the same bits.
(Chen et al. 2016, arXiv:1604.06174; Korthikanti et al. 2022, arXiv:2205.05198.)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from .config import ActivationCheckpointing
from .model import Transformer

_KEPT = (
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten._grouped_mm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_cudnn_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
    # What came over the wire is not sent again.
    torch.ops._c10d_functional.all_reduce.default,
    torch.ops._c10d_functional.all_gather_into_tensor.default,
    torch.ops._c10d_functional.reduce_scatter_tensor.default,
    torch.ops._c10d_functional.all_to_all_single.default,
    torch.ops._c10d_functional.wait_tensor.default,
)


def checkpoint_activations(model: Transformer, mode: ActivationCheckpointing) -> None:
    """Make every block keep only what `mode` says; call it before the blocks are compiled."""
    if mode == "none":
        return
    for block in model.blocks:
        block.forward = _Checkpointed(block.forward, mode)


class _Checkpointed:
    """A block's forward that computes again, in the backward pass, what it has not kept."""

    def __init__(self, forward: Callable[..., torch.Tensor], mode: ActivationCheckpointing) -> None:
        self._forward = forward
        self._arguments: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        if mode == "selective":
            self._arguments["context_fn"] = functools.partial(
                create_selective_checkpoint_contexts, _policy
            )

    def __call__(self, *arguments: Any, **named: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return self._forward(*arguments, **named)
        out: torch.Tensor = checkpoint(self._forward, *arguments, **self._arguments, **named)
        return out


def _policy(context: Any, operation: Any, *arguments: Any, **named: Any) -> CheckpointPolicy:
    keep = operation in _KEPT
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE
