"""Pieces of many matrices in, the same pieces of a function of the whole matrices out.

Some functions of a matrix are none of its pieces. Here every matrix is put together on one rank,
which computes the function and sends everybody's piece back. The matrices go round, so that each of
the ranks that hold a part of one, or a copy, does its share of the work: of tensor-parallel slices,
FSDP's shards and data-parallel copies alike. Stacks of matrices (experts) are divided among the
ranks that hold them, and no matrix leaves those.

A round is one matrix a rank: two all-to-alls, and never more memory than the pieces of as many
matrices. With one process there are no rounds, only matrices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.distributed._functional_collectives as funcol

from .grid import Grid
from .parallel import Placement

Bounds = tuple[tuple[int, int], ...]
"""First and last + 1 of each dimension."""


class HeldMatrix(NamedTuple):
    """How one parameter is divided among all ranks."""

    shape: tuple[int, ...]
    """Of the whole: [rows, columns], or [experts, rows, columns]."""
    place: Placement
    """The slices of tensor and expert parallelism."""
    num_shards: int
    """Ranks among which FSDP divides the first dimension of a slice."""


class _Job(NamedTuple):
    """A matrix, or some of a stack, that one rank puts together."""

    number: int
    """Of the parameter."""
    bounds: Bounds
    """In the whole parameter."""
    owner: int
    pieces: dict[int, Bounds]
    """Rank that holds a part -> where that lies in the whole parameter."""
    sources: frozenset[int]
    """Ranks that send their part: one of those that hold the same."""


class WholeMatrices:
    """The matrices of all ranks, and who works on which."""

    def __init__(self, matrices: Sequence[HeldMatrix], grid: Grid) -> None:
        self._grid = grid
        self._matrices = list(matrices)
        self._rounds = list(self._plan())

    def map(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        piece_of: Callable[[int], torch.Tensor],
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (number, this rank's piece of function(whole)) of every matrix; all ranks call it.

        Args:
            function: of [..., rows, columns]; keeps shape and number format.
            piece_of: number of a matrix -> what this rank holds of it; asked for once a matrix,
                when its turn has come.
        """
        for jobs in self._rounds:
            pieces = {number: piece_of(number) for number in sorted({job.number for job in jobs})}
            if all(job.pieces.keys() == {job.owner} for job in jobs):
                yield from ((number, function(piece)) for number, piece in pieces.items())
            else:
                yield from self._exchange(jobs, function, pieces).items()

    def _plan(self) -> Iterator[list[_Job]]:
        """Yield rounds of jobs; every rank makes the same plan."""
        ranks = range(self._grid.world.size)
        simple = [n for n, matrix in enumerate(self._matrices) if len(matrix.shape) == 2]
        # The largest first, and equal ones together: ranks of a round wait for each other.
        simple.sort(key=lambda number: (-math.prod(self._matrices[number].shape), number))
        for start in range(0, len(simple), len(ranks)):
            yield [
                self._job(number, tuple((0, size) for size in self._matrices[number].shape), owner)
                for owner, number in enumerate(simple[start : start + len(ranks)])
            ]
        for number in sorted(set(range(len(self._matrices))) - set(simple)):
            yield self._stack(number)

    def _stack(self, number: int) -> list[_Job]:
        """Divide a stack: each rank works on some of the matrices that it holds parts of."""
        holders: dict[tuple[int, int], list[int]] = {}
        for rank in range(self._grid.world.size):
            holders.setdefault(self._bounds(number, rank)[0], []).append(rank)
        whole = tuple((0, size) for size in self._matrices[number].shape[1:])
        jobs = []
        for (first, stop), ranks in holders.items():
            share = -(-(stop - first) // len(ranks))
            for place, owner in enumerate(ranks):
                low, high = (min(first + k * share, stop) for k in (place, place + 1))
                if low < high:
                    jobs.append(self._job(number, ((low, high), *whole), owner))
        return sorted(jobs, key=lambda job: job.owner)

    def _job(self, number: int, bounds: Bounds, owner: int) -> _Job:
        pieces = {}
        nearest: dict[Bounds, int] = {}
        for rank in range(self._grid.world.size):
            piece = _common(self._bounds(number, rank), bounds)
            if piece is None:
                continue
            pieces[rank] = piece
            other = nearest.setdefault(piece, rank)
            if abs(rank - owner) < abs(other - owner):
                nearest[piece] = rank
        return _Job(number, bounds, owner, pieces, frozenset(nearest.values()))

    def _bounds(self, number: int, rank: int) -> Bounds:
        """Return which part of a parameter a rank holds."""
        grid, (shape, place, num_shards) = self._grid, self._matrices[number]
        copy, tensor_rank = divmod(rank, grid.tensor.size)
        bounds = [(0, size) for size in shape]
        for cut, index in ((place.expert, copy % grid.expert.size), (place.tensor, tensor_rank)):
            if cut is not None:
                first, stop = bounds[cut.dimension]
                size = (stop - first) // cut.num_slices
                bounds[cut.dimension] = (first + index * size, first + (index + 1) * size)
        if num_shards > 1:
            shard = copy // grid.expert.size if place.is_expert else copy % grid.shard.size
            first, stop = bounds[0]
            size = -(-(stop - first) // num_shards)  # as torch.chunk: the last ones may be empty
            bounds[0] = (min(first + shard * size, stop), min(first + (shard + 1) * size, stop))
        return tuple(bounds)

    def _exchange(
        self,
        jobs: list[_Job],
        function: Callable[[torch.Tensor], torch.Tensor],
        pieces: Mapping[int, torch.Tensor],
    ) -> dict[int, torch.Tensor]:
        me, size = self._grid.world.rank, self._grid.world.size
        like = next(iter(pieces.values()))
        by_owner = {job.owner: job for job in jobs}
        mine = by_owner.get(me)

        def held(job: _Job) -> tuple[slice, ...]:
            return _inside(job.pieces[me], self._bounds(job.number, me))

        sent = [
            pieces[job.number][held(job)] if job and me in job.sources else None
            for job in (by_owner.get(rank) for rank in range(size))
        ]
        sources = sorted(mine.sources) if mine else []
        arrived = self._all_to_all(
            sent, {r: _volume(mine.pieces[r]) for r in sources} if mine else {}, like
        )
        results: dict[int, torch.Tensor] = {}
        if mine:
            whole = like.new_empty([stop - first for first, stop in mine.bounds])
            for rank in sources:
                place = _inside(mine.pieces[rank], mine.bounds)
                whole[place] = arrived[rank].view_as(whole[place])
            whole = function(whole)
            results = {r: whole[_inside(p, mine.bounds)] for r, p in mine.pieces.items()}
        returned = self._all_to_all(
            [results.get(rank) for rank in range(size)],
            {job.owner: _volume(job.pieces[me]) for job in jobs if me in job.pieces},
            like,
        )
        found = {number: torch.empty_like(piece) for number, piece in pieces.items()}
        for job in jobs:
            if me in job.pieces:
                part = found[job.number][held(job)]
                part.copy_(returned[job.owner].view_as(part))
        return found

    def _all_to_all(
        self, sent: list[torch.Tensor | None], expected: Mapping[int, int], like: torch.Tensor
    ) -> dict[int, torch.Tensor]:
        """Send one tensor to each rank, or none; return what arrives, flat, by rank."""
        group = self._grid.world.group
        assert group is not None
        flat = [like.new_empty(0) if part is None else part.flatten() for part in sent]
        sizes = [expected.get(rank, 0) for rank in range(len(sent))]
        row = funcol.all_to_all_single(torch.cat(flat), sizes, [len(part) for part in flat], group)
        arrived: torch.Tensor = funcol.wait_tensor(row)  # type: ignore[no-untyped-call]
        return dict(enumerate(torch.split(arrived, sizes)))


def _common(one: Bounds, other: Bounds) -> Bounds | None:
    """Return what lies in both; None if nothing does."""
    both = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return both if all(first < stop for first, stop in both) else None


def _inside(piece: Bounds, around: Bounds) -> tuple[slice, ...]:
    """Return where a piece lies in a tensor that begins and ends at `around`."""
    return tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(piece, around, strict=True))


def _volume(bounds: Bounds) -> int:
    return math.prod(stop - first for first, stop in bounds)
