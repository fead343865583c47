"""A mixture of experts: what it computes, that nothing is dropped, and that balance works."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from gristmill.trainer.config_model import ModelConfig, check_model
from gristmill.trainer.experts import MixtureOfExperts, grouped_linear, looped_linear
from gristmill.trainer.grid import Ranks
from gristmill.trainer.model import (
    Transformer,
    count_parameters,
    count_product_parameters,
    initialize,
    resolve,
)
from gristmill.trainer.router import (
    Routing,
    balance_experts,
    collect_routing,
    routers_of,
    routing_metrics,
)

CONFIG = resolve(
    ModelConfig(
        num_layers=2,
        hidden_size=16,
        num_heads=2,
        ffn_size=32,
        num_experts=4,
        expert_ffn_size=24,
        balance="none",
        init_std=0.3,
    )
)


def make(dtype: torch.dtype = torch.float64, **changes: Any) -> Transformer:
    model = Transformer(resolve(dataclasses.replace(CONFIG, **changes)), 60, compute_dtype=dtype)
    initialize(model, seed=1)
    return model


def layer_of(model: Transformer) -> MixtureOfExperts:
    layer = model.blocks[0].feed_forward
    assert isinstance(layer, MixtureOfExperts)
    return layer


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=dtype)


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 60, shape, generator=torch.Generator().manual_seed(2))


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=5), bits=st.sampled_from([16, 32]))
def test_a_grouped_product_equals_a_product_for_each_expert_bit_for_bit(
    counts: list[int], bits: int
) -> None:
    dtype = torch.bfloat16 if bits == 16 else torch.float32
    ends = torch.tensor(counts).cumsum(0).int()
    found = []
    for function in (grouped_linear, looped_linear):
        x = draw(sum(counts), 8, dtype=dtype).requires_grad_()
        weight = draw(len(counts), 16, 8, dtype=dtype).requires_grad_()
        y = function(x, weight, ends)
        (y * draw(*y.shape, dtype=dtype)).sum().backward()
        found.append((y, x.grad, weight.grad))

    for one, other in zip(*found, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("width", [8, 10])
def test_widths_and_formats_without_a_grouped_product_are_computed_all_the_same(width: int) -> None:
    ends = torch.tensor([2, 2, 7], dtype=torch.int32)
    for dtype in (torch.float64, torch.float32):
        x, weight = draw(7, width, dtype=dtype), draw(3, 6, width, dtype=dtype)
        expected = torch.cat([x[:2] @ weight[0].T, x[2:] @ weight[2].T])

        torch.testing.assert_close(grouped_linear(x, weight, ends), expected)


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
@pytest.mark.parametrize("shared", [0, 2])
def test_the_layer_is_the_sum_of_each_tokens_experts_by_their_gates(
    activation: str, shared: int
) -> None:
    layer = layer_of(make(activation=activation, num_shared_experts=shared))
    x = draw(3, 5, 16)

    found = layer(x)

    def expert(x: torch.Tensor, gate: Any, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        inner = F.gelu(up @ x, approximate="tanh") if gate is None else F.silu(gate @ x) * (up @ x)
        return down @ inner

    own = layer.experts
    for token, y in zip(x.flatten(0, 1), found.flatten(0, 1), strict=True):
        scores = (layer.router.weight @ token).softmax(dim=0)
        chosen = scores.argsort(descending=True)[:2]
        expected = torch.zeros_like(token)
        for number in chosen.tolist():
            gate = None if own.gate is None else own.gate[number]
            share = scores[number] / scores[chosen].sum()
            expected = expected + share * expert(token, gate, own.up[number], own.down[number])
        if layer.shared is not None:
            wide = layer.shared
            gate = None if wide.gate is None else wide.gate.weight
            expected = expected + expert(token, gate, wide.up.weight, wide.down.weight)
        torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)


def test_no_token_is_dropped_when_all_choose_the_same_experts() -> None:
    layer = layer_of(make())
    layer.router.bias[1:3] = 100.0
    x = draw(4, 9, 16)

    gates, experts = layer.router(x)

    assert set(experts.flatten().tolist()) == {1, 2}
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(36, dtype=torch.float64))
    one_by_one = torch.stack([layer(token[None, None])[0, 0] for token in x.flatten(0, 1)])
    torch.testing.assert_close(layer(x).flatten(0, 1), one_by_one, rtol=1e-10, atol=1e-12)


def test_a_step_repeats_bit_for_bit() -> None:
    found = []
    for _ in range(2):
        model = make(torch.float32, balance="loss")
        model(tokens(4, 12))[..., :60].sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])

    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))  # type: ignore[arg-type]


def test_the_bias_chooses_but_does_not_weigh() -> None:
    router = layer_of(make(normalize_gates=False)).router
    x = draw(1, 6, 16)
    before, _ = router(x)
    router.bias[3] = 5.0

    gates, experts = router(x)

    scores = (x[0] @ router.weight.T).softmax(dim=1)
    assert (experts == 3).any(dim=1).all()
    torch.testing.assert_close(gates, scores.gather(1, experts))
    assert not torch.equal(gates, before)


@pytest.mark.parametrize("score", ["softmax", "sigmoid"])
def test_the_terms_of_the_loss_have_the_gradient_of_their_formulas(score: str) -> None:
    weights = {"balance_loss_weight": 0.7, "router_z_loss_weight": 0.2}
    x, valid = draw(3, 8, 16), torch.tensor([8, 3, 0])
    gradients = []
    for balance in ("loss", "none"):
        own = weights if balance == "loss" else {}
        router = layer_of(make(router_score=score, balance=balance, **own)).router
        gates, experts = router(x, valid)
        (gates * draw(*gates.shape)).sum().backward()
        gradients.append(router.weight.grad)

    weight = router.weight.detach().clone().requires_grad_()
    logits = x @ weight.T
    scores = logits.softmax(dim=2) if score == "softmax" else logits.sigmoid()
    chances = scores / scores.sum(dim=2, keepdim=True)
    share = F.one_hot(experts.view(3, 8, 2), 4).sum(dim=2).double().mean(dim=1) / 2
    balance_B = 4 * (share * chances.mean(dim=1)).sum(dim=1)
    z_B = logits.logsumexp(dim=2).square().mean(dim=1)
    (valid * (0.7 * balance_B + 0.2 * z_B)).sum().backward()

    assert weight.grad is not None
    assert weight.grad.abs().max() > 0.01
    torch.testing.assert_close(gradients[0] - gradients[1], weight.grad, rtol=1e-9, atol=1e-11)


def train_router(steps: int, **changes: Any) -> tuple[Routing, Routing]:
    """Return what a router that prefers two experts did in the first and the last step."""
    model = make(**changes)
    layer_of(model).router.weight.data[:2] += 0.2 * draw(3, 7, 16).mean(dim=(0, 1))
    optimizer = torch.optim.SGD(routers_of(model)[0].parameters(), lr=0.005)
    found = []
    for _ in range(steps):
        x = draw(3, 7, 16) + 1
        (0 * layer_of(model)(x)).sum().backward()  # the terms alone
        routing = collect_routing(model, Ranks())
        assert routing is not None
        balance_experts(model, routing)
        if changes.get("balance") == "loss":
            optimizer.step()
        optimizer.zero_grad()
        found.append(routing)
    return found[0], found[-1]


@pytest.mark.parametrize(
    "changes",
    [
        {"balance": "bias", "balance_bias_rate": 0.02},
        {"balance": "loss", "balance_loss_weight": 3.0},
    ],
)
def test_balance_spreads_the_load(changes: dict[str, Any]) -> None:
    first, last = train_router(60, **changes)

    def entropy(routing: Routing) -> float:
        return routing_metrics(routing._replace(counts_LE=routing.counts_LE[:1]), 21)[
            "expert_load_entropy"
        ]

    assert entropy(last) > entropy(first) + 0.05
    assert entropy(last) > 0.95


def test_without_balance_nothing_moves_the_bias() -> None:
    model = make(balance="none")
    model(tokens(2, 6))[..., :60].sum().backward()
    routing = collect_routing(model, Ranks())
    assert routing is not None

    balance_experts(model, routing)

    assert all(router.bias.abs().sum() == 0 for router in routers_of(model))


def test_a_step_that_was_not_taken_leaves_the_bias() -> None:
    model = make(balance="bias")
    model(tokens(2, 6))[..., :60].sum().backward()
    routing = collect_routing(model, Ranks())
    assert routing is not None

    balance_experts(model, routing, torch.tensor(False))
    still = [router.bias.clone() for router in routers_of(model)]
    balance_experts(model, routing, torch.tensor(True))

    assert all(bias.abs().sum() == 0 for bias in still)
    assert all(router.bias.abs().sum() > 0 for router in routers_of(model))


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations_count_no_choice_twice(reentrant: bool) -> None:
    model = make(balance="bias")
    layer, x = layer_of(model), draw(2, 7, 16).requires_grad_()

    for _ in range(2):  # micro-batches add up
        checkpoint(layer, x, use_reentrant=reentrant).sum().backward()
    routing = collect_routing(model, Ranks())

    assert routing is not None
    assert routing.counts_LE[0].sum() == 2 * 14 * 2
    assert routing.counts_LE[1].sum() == 0
    again = collect_routing(model, Ranks())
    assert again is not None
    assert again.counts_LE.sum() == 0


def test_an_evaluation_counts_nothing() -> None:
    model = make(balance="bias")

    with torch.no_grad():
        model(tokens(2, 7))
    routing = collect_routing(model, Ranks())

    assert routing is not None
    assert routing.counts_LE.sum() == 0


def test_the_router_computes_in_float32_where_the_rest_is_in_bfloat16() -> None:
    layer = layer_of(make(torch.bfloat16))
    x = draw(2, 6, 16, dtype=torch.bfloat16)

    gates, experts = layer.router(x)

    scores = (x.float().flatten(0, 1) @ layer.router.weight.T).softmax(dim=1).gather(1, experts)
    assert gates.dtype == torch.float32
    torch.testing.assert_close(gates, scores / scores.sum(dim=1, keepdim=True))
    assert layer(x).dtype == torch.bfloat16


def test_loads_are_shares_of_an_even_one() -> None:
    counts = torch.tensor([[10.0, 10.0, 10.0, 10.0], [40.0, 0.0, 0.0, 0.0]])

    metrics = routing_metrics(Routing(counts, torch.tensor([20.0, 60.0]), torch.zeros(2)), 20)

    assert metrics == {
        "expert_load_min": 0.0,
        "expert_load_max": 4.0,
        "expert_load_entropy": pytest.approx(0.5),
        "balance_loss": 2.0,
        "router_z_loss": 0.0,
    }


def test_a_token_passes_through_the_experts_it_takes_only() -> None:
    config = dataclasses.replace(CONFIG, num_shared_experts=1, tied_embeddings=True)
    expert, attention, router = 3 * 16 * 24, 4 * 16 * 16, 4 * 16

    total = count_parameters(config, 64)
    active = count_product_parameters(config, 64)

    assert active == 2 * (attention + router + 3 * expert) + 64 * 16
    assert total == active + 2 * 2 * expert + 5 * 16


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"experts_per_token": 5}, "experts_per_token = 5 must lie between 1 and"),
        ({"experts_per_token": 1}, "normalize_gates = false"),
        ({"biases": True}, "experts have no biases"),
    ],
)
def test_mixtures_that_cannot_work_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_model(dataclasses.replace(CONFIG, **changes))
