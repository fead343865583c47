"""Ranks in, a grid of process groups out: who shares a matrix, who shares a batch.

Ranks are numbered with tensor parallelism innermost (neighbours share a machine, and matrices
need the faster wires): rank = data_rank * tensor_size + tensor_rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as funcol


@dataclass(frozen=True, slots=True)
class Ranks:
    """One axis of the grid as this process sees it; with size 1 there is no process group."""

    rank: int = 0
    """Place of this process on the axis."""
    size: int = 1
    """Number of processes on the axis."""
    group: dist.ProcessGroup | None = None
    """They talk through this group."""

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sum of `x` over the axis, the same bits on every rank; no gradient."""
        return self._reduce(x, "sum")

    def max(self, x: torch.Tensor) -> torch.Tensor:
        """Return the elementwise maximum of `x` over the axis; no gradient."""
        return self._reduce(x, "max")

    def _reduce(self, x: torch.Tensor, operation: str) -> torch.Tensor:
        if self.group is None:
            return x
        # Waited for at once: a result that nobody waits for warns, or aborts at exit on gloo.
        waiting = funcol.all_reduce(x, operation, self.group)
        total: torch.Tensor = funcol.wait_tensor(waiting)  # type: ignore[no-untyped-call]
        return total


@dataclass(frozen=True, slots=True)
class Grid:
    """The layout of all ranks: copies of the model, and shards of each copy."""

    tensor: Ranks = field(default_factory=Ranks)
    """Ranks that share every matrix with this one."""
    data: Ranks = field(default_factory=Ranks)
    """Ranks that hold the same shard in other copies of the model."""
    world: Ranks = field(default_factory=Ranks)
    """All ranks."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and reports."""
        return self.world.rank == 0


def make_grid(tensor_parallel_size: int, data_parallel_size: int) -> Grid:
    """Arrange the ranks of the default process group; a single process needs none.

    Args:
        data_parallel_size: 0 takes the ranks that are left.

    Raises:
        ValueError: the two sizes do not multiply to the number of ranks.
    """
    size = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    copies = data_parallel_size or max(1, size // tensor_parallel_size)
    if copies * tensor_parallel_size != size:
        raise ValueError(
            f"{size} ranks were started, but parallel.tensor_parallel_size = "
            f"{tensor_parallel_size} times parallel.data_parallel_size = {copies} is "
            f"{tensor_parallel_size * copies}: start that many ranks, or change the layout"
        )
    if size == 1:
        return Grid()
    rows = [
        list(range(start, start + tensor_parallel_size))
        for start in range(0, size, tensor_parallel_size)
    ]
    columns = [list(range(start, size, tensor_parallel_size)) for start in range(rows[0][-1] + 1)]
    return Grid(
        tensor=_axis(rows, rank), data=_axis(columns, rank), world=_axis([list(range(size))], rank)
    )


def _axis(groups: list[list[int]], rank: int) -> Ranks:
    """Return the axis of this rank; every rank has to create every group, in the same order."""
    mine = Ranks()
    for members in groups:
        if len(members) == 1:
            continue
        group = dist.new_group(members) if len(groups) > 1 else dist.group.WORLD
        if rank in members:
            mine = Ranks(rank=members.index(rank), size=len(members), group=group)
    return mine
