"""Every rank gets its piece of a function of whole matrices, and all do their share of the work."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.trainer.grid import Grid, Ranks
from gristmill.trainer.parallel import Cut, Placement
from gristmill.trainer.whole_matrices import HeldMatrix, WholeMatrices


class Mail:
    """An all-to-all among threads."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size)
        self.sent: dict[int, list[torch.Tensor | None]] = {}

    def exchange(
        self,
        rank: int,
        sent: list[torch.Tensor | None],
        expected: Mapping[int, int],
        like: torch.Tensor,
    ) -> dict[int, torch.Tensor]:
        self.sent[rank] = sent
        self.barrier.wait(timeout=60)
        arrived = {}
        for source, parts in self.sent.items():
            part = parts[rank]
            found = like.new_empty(0) if part is None else part.flatten()
            assert len(found) == expected.get(source, 0)
            arrived[source] = found
        self.barrier.wait(timeout=60)
        return arrived


def grid(rank: int, tensor: int, copies: int, experts: int, shards: int) -> Grid:
    copy, tensor_rank = divmod(rank, tensor)
    return Grid(
        tensor=Ranks(tensor_rank, tensor),
        data=Ranks(copy, copies),
        expert=Ranks(copy % experts, experts),
        shard=Ranks(copy % shards, shards),
        world=Ranks(rank, tensor * copies),
    )


def held(shape: tuple[int, ...], dimension: int | None, where: Grid) -> HeldMatrix:
    """Return how a rank holds a matrix that tensor parallelism cuts along `dimension`."""
    cut = None
    if dimension is not None and where.tensor.size > 1:
        cut = Cut(dimension, where.tensor.rank, where.tensor.size)
    if len(shape) == 2:
        return HeldMatrix(shape, Placement(cut), where.shard.size)
    experts = where.expert
    expert = Cut(0, experts.rank, experts.size) if experts.size > 1 else None
    shards = where.data.size // experts.size if where.shard.size > 1 else 1
    return HeldMatrix(shape, Placement(cut, expert, is_expert=True), shards)


def piece(whole: torch.Tensor, how: HeldMatrix, where: Grid) -> torch.Tensor:
    """Return what a rank holds, as `sharding.assign` cuts it."""
    part = how.place.slice(whole)
    if how.num_shards > 1:
        copy = where.data.rank
        index = copy // where.expert.size if how.place.is_expert else where.shard.rank
        chunks = part.chunk(how.num_shards)
        part = chunks[index] if index < len(chunks) else part[:0]
    return part.clone()


LAYOUTS = st.sampled_from(
    # tensor-parallel ranks, copies, ranks that share experts, ranks that share a copy
    (
        *((1, 1, 1, 1), (2, 1, 1, 1), (1, 3, 1, 1), (1, 3, 1, 3), (2, 2, 1, 2), (2, 2, 2, 2)),
        *((1, 4, 2, 2), (1, 4, 2, 4), (1, 4, 4, 1), (2, 4, 2, 1), (4, 2, 1, 1)),
    )
)
DENSE = st.tuples(st.sampled_from([(8, 4), (4, 8), (12, 4), (4, 4)]), st.sampled_from([0, 1, None]))
STACKS = st.tuples(st.sampled_from([(4, 8, 4), (8, 4, 4), (4, 4, 12)]), st.sampled_from([1, 2]))


@settings(max_examples=60, deadline=None)
@given(LAYOUTS, st.lists(st.one_of(DENSE, STACKS), min_size=1, max_size=7))
def test_every_rank_gets_its_piece_of_the_function_of_the_whole(
    layout: tuple[int, int, int, int], kinds: list[Any]
) -> None:
    generator = torch.Generator().manual_seed(1)
    wholes = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape, _ in kinds]
    size = layout[0] * layout[1]
    mail = Mail(size)
    work: dict[int, list[tuple[int, ...]]] = {rank: [] for rank in range(size)}
    failures: list[BaseException] = []

    def function(matrix: torch.Tensor) -> torch.Tensor:
        norm: torch.Tensor = matrix.norm(dim=(-2, -1), keepdim=True)
        return matrix.cumsum(dim=-2) / norm

    def run(rank: int) -> None:
        where = grid(rank, *layout)
        how = [held(shape, dimension, where) for shape, dimension in kinds]
        matrices = WholeMatrices(how, where)
        matrices._all_to_all = lambda *a: mail.exchange(rank, *a)  # type: ignore[method-assign]

        def counted(matrix: torch.Tensor) -> torch.Tensor:
            work[rank].append(tuple(matrix.shape))
            return function(matrix)

        def piece_of(number: int) -> torch.Tensor:
            return piece(wholes[number], how[number], where)

        try:
            found = dict(matrices.map(counted, piece_of))
            assert found.keys() == set(range(len(kinds)))
            for number, whole in enumerate(wholes):
                expected = piece(function(whole), how[number], where)
                torch.testing.assert_close(found[number], expected, rtol=1e-14, atol=1e-14)
        except BaseException as error:
            failures.append(error)
            mail.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    # Nothing is computed twice, and no rank has two matrices more than another.
    simple = [shape for shapes in work.values() for shape in shapes if len(shape) == 2]
    assert sorted(simple) == sorted(shape for shape, _ in kinds if len(shape) == 2)
    counts = [sum(len(shape) == 2 for shape in shapes) for shapes in work.values()]
    assert max(counts) - min(counts) <= 1
    stacked = sum(shape[0] for shapes in work.values() for shape in shapes if len(shape) == 3)
    assert stacked == sum(shape[0] for shape, _ in kinds if len(shape) == 3)


def test_experts_stay_with_the_ranks_that_hold_them() -> None:
    where = grid(1, tensor=1, copies=4, experts=2, shards=4)
    matrices = WholeMatrices([held((4, 8, 8), 1, where)], where)
    matrices._all_to_all = lambda *_: pytest.fail("sent")  # type: ignore[assignment, method-assign]

    ((number, found),) = matrices.map(lambda stack: 2 * stack, lambda _: torch.ones(1, 8, 8))

    assert number == 0
    assert found.shape == (1, 8, 8)
