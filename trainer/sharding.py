"""A model in, the same model with its matrices divided among data-parallel ranks out (FSDP).

Each rank keeps an equal part of every matrix, of its gradient and of its optimizer states, fetches
the matrices of one block before it computes it, and gives them back (Rajbhandari et al. 2020,
arXiv:1910.02054; torch's `fully_shard`). What is left whole is small and used in float32: norms,
biases, routers. Experts are divided among the ranks that hold the same ones.

torch shows the divided parameters as DTensors. Nothing else here does: the optimizer gets the local
parts, which share their memory. Slices of tensor parallelism are cut first, then divided.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from .experts import Experts
from .grid import Grid
from .router import Router

if TYPE_CHECKING:
    from .model import Transformer


def shard_model(model: Transformer, grid: Grid, device: torch.device) -> None:
    """Divide the matrices of `model` among the ranks of `grid.shard`; nothing if it is one rank.

    Weights that are there already are divided; a model on the meta device gets memory, and no
    rank ever has the whole in memory.
    """
    if grid.shard.group is not None:
        # The logits are a view of a matrix; nobody writes into them.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        mesh = _mesh(grid, device)
        narrow = model.compute_dtype in (torch.bfloat16, torch.float16)
        # The matrices travel in the number format that computes, gradients in that they rest in.
        policy = MixedPrecisionPolicy(
            param_dtype=model.compute_dtype if narrow else None,
            reduce_dtype=torch.float32 if narrow else None,
            cast_forward_inputs=False,
        )
        whole = {p for module in model.modules() for p in _left_whole(module, grid)}
        for block in model.blocks:
            if grid.expert_data.group is not None:
                same = DeviceMesh.from_group(grid.expert_data.group, device.type)
                for experts in [part for part in block.modules() if isinstance(part, Experts)]:
                    fully_shard(experts, mesh=same, mp_policy=policy)
            fully_shard(block, mesh=mesh, mp_policy=policy, ignored_params=whole)
        # Embeddings and output layer: in float32, or their sparse sums would be rounded each time.
        fully_shard(model, mesh=mesh, ignored_params=whole)
        for name in ("hidden", "loss", "token_nll"):
            register_fsdp_forward_method(model, name)
        for module in model.modules():
            if isinstance(module, FSDPModule):  # sums, where the default is means
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
    if any(p.is_meta for p in model.parameters()):
        model.to_empty(device=device)
    else:
        model.to(device)


def _left_whole(module: nn.Module, grid: Grid) -> list[nn.Parameter]:
    if isinstance(module, Experts) and grid.expert_data.group is None:
        return list(module.parameters())  # no other rank has them
    return [
        p
        for name, p in module.named_parameters(recurse=False)
        if p.dim() < 2 or isinstance(module, Router) or name.startswith("lora_")
    ]


def _mesh(grid: Grid, device: torch.device) -> DeviceMesh:
    """Return this rank's neighbours as torch wants them."""
    shard, replica = grid.shard, grid.replica
    assert shard.group is not None
    if replica.group is None:
        return DeviceMesh.from_group(shard.group, device.type)
    first = grid.tensor.rank
    places = torch.arange(grid.data.size) * grid.tensor.size + first
    return DeviceMesh.from_group(
        [replica.group, shard.group],
        device.type,
        mesh=places.view(replica.size, shard.size),
        mesh_dim_names=("replica", "shard"),
    )


def gather_nothing(model: Transformer) -> None:
    """Give back matrices that a forward without backward has left whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def num_shards(parameter: torch.Tensor) -> int:
    """Return among how many ranks FSDP divides a parameter; 1 if it does not."""
    if not isinstance(parameter, DTensor):
        return 1
    return parameter.device_mesh.size(_shard_dimension(parameter))


def _shard_dimension(parameter: DTensor) -> int:
    """Return the dimension of the parameter's mesh along which it is divided: the last one."""
    return parameter.device_mesh.ndim - 1


@torch.no_grad()
def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this rank holds of a parameter or gradient, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor.detach()


def local_parameters(model: Transformer) -> dict[str, nn.Parameter]:
    """Return what an optimizer updates: the parameters, or this rank's parts of them, by name.

    Call it when the weights are in memory, and between steps. Frozen ones are left out.
    """
    if not isinstance(model, FSDPModule):
        return trained_parameters(model)
    if model.local_parameters is None:
        model.local_parameters = {
            name: nn.Parameter(local_part(p)) if isinstance(p, DTensor) else p
            for name, p in trained_parameters(model).items()
        }
    return model.local_parameters


def trained_parameters(model: Transformer) -> dict[str, nn.Parameter]:
    """Return the parameters that are not frozen, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


@torch.no_grad()
def assign(parameter: torch.Tensor, values: torch.Tensor) -> None:
    """Copy `values` (of all ranks that share the parameter by FSDP) into what this rank holds."""
    if isinstance(parameter, DTensor):
        parts = values.chunk(num_shards(parameter))  # fewer than ranks where there are few rows
        index = cast(Any, parameter.device_mesh).get_local_rank(_shard_dimension(parameter))
        values = parts[index] if index < len(parts) else values[:0]
        parameter = parameter.to_local()
    parameter.copy_(values)
