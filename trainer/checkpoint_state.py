"""A model and its optimizer in, tensors as a checkpoint knows them out: whole, whatever the layout.

Every rank hands over what it holds and says where in the whole it lies, as a DTensor over the
memory of the model and optimizer themselves, which loading writes into, or a copy of it. So tensor,
expert and data parallelism and shards may all be others when the checkpoint is read.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement as DTensorPlacement

from .grid import Grid
from .model import Transformer, placements
from .optimizer import Optimizers
from .parallel import Placement
from .sharding import local_part, num_shards


class CheckpointState:
    """What of a model and its optimizer is saved, on this rank."""

    def __init__(self, model: Transformer, optimizer: Optimizers, grid: Grid) -> None:
        self._model = model
        self._optimizer = optimizer
        self._grid = grid
        self._meshes: dict[bool, DeviceMesh] = {}
        self._host_meshes: dict[bool, DeviceMesh] = {}
        self._host: dict[str, torch.Tensor] = {}
        if grid.world.size > 1:
            kind = model.device.type
            copies, ranks = grid.data.size, torch.arange(grid.world.size)
            # Data-parallel ranks come as [replica, shard] and as [copy of the experts, expert].
            dense = ranks.view(copies // grid.shard.size, grid.shard.size, grid.tensor.size)
            self._meshes[False] = DeviceMesh(kind, dense.permute(2, 0, 1))
            if model.config.num_experts:
                experts = ranks.view(copies // grid.expert.size, grid.expert.size, grid.tensor.size)
                self._meshes[True] = DeviceMesh(kind, experts.permute(2, 1, 0))
            self._host_meshes = self._meshes
            if kind != "cpu":  # of places only: what lies there is written, never sent
                self._host_meshes = {
                    key: DeviceMesh("cpu", mesh.mesh, _init_backend=False)
                    for key, mesh in self._meshes.items()
                }

    @property
    def in_one_process(self) -> bool:
        """Whether there are no other ranks."""
        return not self._meshes

    def tensors(self, steps: int) -> dict[str, Any]:
        """Return `weight.NAME` of each parameter and buffer, and the optimizer's states by kind.

        Args:
            steps: how many the optimizer has taken.
        """
        return self._all_placed(self._local(steps), self._meshes)

    def copied(self, steps: int) -> dict[str, Any]:
        """Return copies of `tensors` in the host's memory, the same memory every time."""
        for key, tensor in self._local(steps).items():
            if key not in self._host:
                self._host[key] = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
            self._host[key].copy_(tensor, non_blocking=True)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        return self._all_placed(self._host, self._host_meshes)

    def _local(self, steps: int) -> dict[str, torch.Tensor]:
        state = {f"weight.{name}": tensor for name, tensor in weights_of(self._model).items()}
        for kind, moments in self._optimizer.state(self._model, steps).items():
            state |= {f"{kind}.{name}": moment for name, moment in moments.items()}
        return state

    def _all_placed(
        self, state: dict[str, torch.Tensor], meshes: dict[bool, DeviceMesh]
    ) -> dict[str, Any]:
        if self.in_one_process:
            return dict(state)
        model = self._model
        where = placements(model)
        held = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        return {
            key: self._placed(local, where[name], held[name], meshes)
            for key, local in state.items()
            for name in [key.split(".", 1)[1]]
        }

    def _placed(
        self,
        local: torch.Tensor,
        where: Placement,
        held: torch.Tensor,
        meshes: dict[bool, DeviceMesh],
    ) -> DTensor:
        """Return `local` as a part of the whole; `held` is the parameter, which FSDP may divide."""
        mesh = meshes[where.is_expert]
        tensor = Replicate() if where.tensor is None else Shard(where.tensor.dimension)
        is_divided = num_shards(held) > 1
        # From the outermost cut in: the slice of the matrix, the experts, the shard.
        cuts: list[DTensorPlacement] = [tensor]
        if where.is_expert:
            cuts += [Replicate() if where.expert is None else Shard(where.expert.dimension)]
            cuts += [Shard(0) if is_divided else Replicate()]
        else:
            cuts += [Replicate(), Shard(0) if is_divided else Replicate()]
        shape = torch.Size(where.full_shape(held.shape))
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(local, mesh, cuts, run_check=False, shape=shape, stride=stride)


def weights_of(model: Transformer) -> dict[str, torch.Tensor]:
    """Return what this rank holds of each parameter and buffer, in the model's memory.

    Where only some parameters are trained (lora.py), these alone: the others do not change.
    """
    named = (*model.named_parameters(), *model.named_buffers())
    if not all(parameter.requires_grad for parameter in model.parameters()):
        named = tuple((name, tensor) for name, tensor in named if tensor.requires_grad)
    return {name: local_part(tensor) for name, tensor in named}
