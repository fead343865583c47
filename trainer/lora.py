"""A model in, the same model with small trained matrices beside its frozen ones out; and merged.

    y = W x + scale * B A x        W frozen; A: [rank, inputs], B: [outputs, rank], trained

(Hu et al. 2021, arXiv:2106.09685.) B begins as 0, so the model begins as it was. Under tensor
parallelism A or B is cut as W is and the other is whole on every rank (`parallel.placement`).
Checkpoints hold A and B alone; `add_updates` puts them into the weights of the model they began
with, which then computes the same without them.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import nn

from .checkpoint import load_tensors
from .config_lora import LoraConfig
from .layers import Linear
from .model import Transformer, generator_of, placements
from .sharding import assign, trained_parameters


def adapted_matrices(model: Transformer, lora: LoraConfig) -> dict[str, Linear]:
    """Return the layers of the blocks that `lora.targets` names, by name.

    Raises:
        ValueError: the model has none of a target.
    """
    found = {
        f"blocks.{number}.{name}": module
        for number, block in enumerate(model.blocks)
        for name, module in block.named_modules()
        if isinstance(module, Linear) and name.rpartition(".")[2] in lora.targets
    }
    there = {name.rpartition(".")[2] for name in found}
    missing = [target for target in lora.targets if target not in there]
    if missing:
        raise ValueError(
            f"lora.targets names {', '.join(missing)}, which this model does not have (experts "
            f"are not adapted, and gelu has no gate): leave it out, {sorted(there)} are there"
        )
    return found


def add_lora(model: Transformer, lora: LoraConfig) -> None:
    """Freeze the model and put a pair of matrices beside each target, without values yet.

    Call it before the model is divided or gets memory. Nothing happens at rank 0.

    Raises:
        ValueError: the model has none of a target.
    """
    if lora.rank == 0:
        return
    linears = adapted_matrices(model, lora)
    model.requires_grad_(False)
    for linear in linears.values():
        outputs, inputs = linear.weight.shape
        linear.lora_a = nn.Parameter(linear.weight.new_empty((lora.rank, inputs)))
        linear.lora_b = nn.Parameter(linear.weight.new_empty((outputs, lora.rank)))
        linear.lora_scale = lora.scale


def count_lora(model: Transformer) -> int:
    """Return the elements of all low-rank matrices, whatever the layout."""
    where = placements(model)
    shapes = [where[name].full_shape(p.shape) for name, p in trained_parameters(model).items()]
    return sum(math.prod(shape) for shape in shapes)


@torch.no_grad()
def initialize_lora(model: Transformer, seed: int) -> None:
    """Fill A with uniform values of deviation 1 / sqrt(3 inputs), B with 0, alike in every layout.

    These are the bounds of a linear layer of torch, which PEFT takes too.
    """
    where = placements(model)
    for name, parameter in trained_parameters(model).items():
        if name.endswith("lora_b"):
            nn.init.zeros_(parameter)
            continue
        full = torch.empty(where[name].full_shape(parameter.shape), dtype=torch.float32)
        bound = 1 / math.sqrt(full.shape[1])
        full.uniform_(-bound, bound, generator=generator_of(seed, name))
        assign(parameter, where[name].slice(full))


@torch.no_grad()
def add_updates(model: Transformer, lora: LoraConfig, folder: Path) -> None:
    """Add scale * B A of a checkpoint to the weights of a model without such matrices.

    Args:
        model: one process's, or this rank's slices; not divided by FSDP. It holds the weights that
            the training began with.

    Raises:
        CheckpointError: the files cannot be read.
    """
    where = placements(model)
    for name, linear in adapted_matrices(model, lora).items():
        outputs, inputs = where[f"{name}.weight"].full_shape(linear.weight.shape)
        pair = {
            f"weight.{name}.lora_a": torch.empty(lora.rank, inputs, dtype=linear.weight.dtype),
            f"weight.{name}.lora_b": torch.empty(outputs, lora.rank, dtype=linear.weight.dtype),
        }
        load_tensors(pair, folder)
        a, b = pair.values()
        update = where[f"{name}.weight"].slice(lora.scale * (b @ a))
        linear.weight.add_(update.to(linear.weight.device))
