"""Ranks in, a grid of process groups out: who shares a matrix, who shares a batch.

Ranks are numbered with tensor parallelism innermost (neighbours share a machine, and matrices
need the faster wires): rank = data_rank * tensor_size + tensor_rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as funcol

from .config import ParallelConfig


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
    """The layout of all ranks: copies of the model, and shards of each copy.

    The data axis is divided twice, each time into two axes whose sizes multiply to its own:
    by who holds which experts, and by who holds which shard of the parameters.
    """

    tensor: Ranks = field(default_factory=Ranks)
    """Ranks that share every matrix with this one."""
    data: Ranks = field(default_factory=Ranks)
    """Ranks that compute other samples with the same slices of the matrices."""
    expert: Ranks = field(default_factory=Ranks)
    """Neighbours on the data axis that hold the other experts."""
    expert_data: Ranks = field(default_factory=Ranks)
    """Ranks of the data axis that hold the same experts."""
    shard: Ranks = field(default_factory=Ranks)
    """Neighbours on the data axis that hold the other shards of the parameters (FSDP)."""
    replica: Ranks = field(default_factory=Ranks)
    """Ranks of the data axis that hold the same shard."""
    world: Ranks = field(default_factory=Ranks)
    """All ranks."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes logs and reports."""
        return self.world.rank == 0

    def describe(self, sequence_parallel: bool) -> str:
        """Return the layout in words."""
        words = f"{self.tensor.size} tensor-parallel x {self.data.size} data-parallel ranks"
        if sequence_parallel and self.tensor.size > 1:
            words += ", sequences divided"
        if self.expert.size > 1:
            words += f", experts divided among {self.expert.size}"
        if self.shard.size > 1:
            words += f", parameters divided among {self.shard.size}"
        return words


def make_grid(parallel: ParallelConfig) -> Grid:
    """Arrange the ranks of the default process group; a single process needs none.

    Raises:
        ValueError: the sizes do not divide the number of ranks.
    """
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    tensor, experts = parallel.tensor_parallel_size, parallel.expert_parallel_size
    copies = parallel.data_parallel_size or max(1, world_size // tensor)
    if copies * tensor != world_size:
        raise ValueError(
            f"{world_size} ranks were started, but parallel.tensor_parallel_size = "
            f"{tensor} times parallel.data_parallel_size = {copies} is "
            f"{tensor * copies}: start that many ranks, or change the layout"
        )
    check_data_ranks(parallel, copies)
    if world_size == 1:
        return Grid()
    shards = shard_size(parallel, copies)
    rows = [list(range(start, start + tensor)) for start in range(0, world_size, tensor)]
    columns = [list(range(start, world_size, tensor)) for start in range(tensor)]
    data = _axis(columns, rank)

    def divided(size: int) -> tuple[Ranks, Ranks]:
        if size in (1, copies):  # one of the two is the whole data axis: no groups of its own
            return (Ranks(), data) if size == 1 else (data, Ranks())
        near = [column[i : i + size] for column in columns for i in range(0, copies, size)]
        far = [column[i::size] for column in columns for i in range(size)]
        return _axis(near, rank), _axis(far, rank)

    expert, expert_data = divided(experts)
    shard, replica = divided(shards)
    return Grid(
        tensor=_axis(rows, rank),
        data=data,
        expert=expert,
        expert_data=expert_data,
        shard=shard,
        replica=replica,
        world=_axis([list(range(world_size))], rank),
    )


def shard_size(parallel: ParallelConfig, copies: int) -> int:
    """Return how many of `copies` data-parallel ranks share the parameters of one copy."""
    return {"none": 1, "full": copies, "hybrid": parallel.shard_size}[parallel.shard]


def check_data_ranks(parallel: ParallelConfig, copies: int) -> None:
    """Refuse groups of experts or shards that do not divide the data-parallel ranks.

    Raises:
        ValueError: names the sizes and the values that would work.
    """
    hybrid = parallel.shard == "hybrid"
    if hybrid != (parallel.shard_size > 0):
        raise ValueError(
            f'parallel.shard = "{parallel.shard}" and parallel.shard_size = {parallel.shard_size}: '
            'the size belongs to "hybrid", which needs it. Set both or neither'
        )
    sizes = {"expert_parallel_size": parallel.expert_parallel_size}
    if hybrid:
        sizes["shard_size"] = parallel.shard_size
    for name, size in sizes.items():
        if copies % size:
            raise ValueError(
                f"parallel.{name} = {size} does not divide the {copies} data-parallel ranks, which "
                f"form groups of that size. Set it to one of {divisors(copies)}, or change "
                "parallel.data_parallel_size"
            )


def divisors(number: int, limit: int = 64) -> str:
    """Return the divisors of `number` up to `limit` as text."""
    return ", ".join(str(k) for k in range(1, min(number, limit) + 1) if number % k == 0)


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
