"""How many parameters lie on one rank, by layout."""

from __future__ import annotations

import pytest

from gristmill.trainer.config import ParallelConfig
from gristmill.trainer.config_lora import LoraConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.held import count_held
from gristmill.trainer.model import count_parameters, resolve

DENSE = resolve(ModelConfig(num_layers=3, hidden_size=32, num_heads=4, ffn_size=64))
MIXTURE = resolve(
    ModelConfig(num_layers=3, hidden_size=32, num_heads=4, ffn_size=64, num_experts=8)
)
NORMS = 7 * 32
ATTENTION, MATRIX = 4 * 32 * 32, 64 * 32
"""Of a layer; a feed-forward matrix."""


@pytest.mark.parametrize("config", [DENSE, MIXTURE])
def test_a_rank_of_unsharded_copies_holds_the_whole_model(config: ModelConfig) -> None:
    held = count_held(config, 250, ParallelConfig(), copies=4)

    assert (held.own, held.fetched) == (count_parameters(config, 250), 0)


def test_tensor_parallel_ranks_hold_slices_of_matrices_and_whole_norms() -> None:
    held = count_held(DENSE, 250, ParallelConfig(tensor_parallel_size=2), copies=1)

    assert held.own == (count_parameters(DENSE, 250) - NORMS) // 2 + NORMS


def test_shards_divide_everything_but_norms_and_fetch_two_blocks() -> None:
    held = count_held(DENSE, 250, ParallelConfig(shard="full"), copies=4)

    assert held.own == (count_parameters(DENSE, 250) - NORMS) // 4 + NORMS
    block = ATTENTION + 3 * MATRIX
    assert held.fetched == (256 * 32 + 2 * block) * 3 // 4


def test_hybrid_shards_divide_by_their_size_only() -> None:
    hybrid = ParallelConfig(shard="hybrid", shard_size=2)

    assert count_held(DENSE, 250, hybrid, 8) == count_held(
        DENSE, 250, ParallelConfig(shard="full"), 2
    )


@pytest.mark.parametrize(("shard", "parts"), [("none", 4), ("full", 8)])
def test_expert_parallel_ranks_hold_their_experts(shard: str, parts: int) -> None:
    parallel = ParallelConfig(expert_parallel_size=4, shard=shard)  # type: ignore[arg-type]

    held = count_held(MIXTURE, 250, parallel, copies=8)

    experts = 3 * 8 * 3 * MATRIX // parts
    matrices = (256 * 32 + 3 * ATTENTION) // (8 if shard == "full" else 1)
    routers = 3 * 8 * 32
    assert held.own == experts + matrices + routers + NORMS


def test_only_low_rank_matrices_have_gradients_and_they_are_cut_as_their_matrices_are() -> None:
    lora = LoraConfig(rank=2, targets=("query", "output"))
    held = count_held(DENSE, 250, ParallelConfig(tensor_parallel_size=2), copies=1, lora=lora)

    # Of each pair one is whole and the other half.
    assert held.trained == 3 * 2 * (2 * 32 + 2 * 32 // 2)
    assert held.own == (count_parameters(DENSE, 250) - NORMS) // 2 + NORMS + held.trained
