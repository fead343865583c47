"""What makes a training faster or smaller changes none of its numbers."""

from __future__ import annotations

import copy
import itertools
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from gristmill.trainer import compiling, products
from gristmill.trainer.activations import checkpoint_activations
from gristmill.trainer.compiling import compile_blocks
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.schedule import BatchSizes
from gristmill.trainer.speed import model_flops_utilization, peak_flops

SIZES: dict[str, Any] = {"num_layers": 2, "hidden_size": 32, "num_heads": 2, "ffn_size": 64}


def build(dtype: torch.dtype = torch.float32, **changes: Any) -> Transformer:
    model = Transformer(resolve(ModelConfig(**SIZES, **changes)), 64, compute_dtype=dtype)
    initialize(model, 1)
    return model


def losses_and_gradients(model: Transformer) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 64, (2, 17), generator=generator)
    mask = torch.rand(2, 16, generator=generator) < 0.8
    loss = model.loss(ids[:, :-1], ids[:, 1:], mask)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return {"loss": loss.detach(), **found}


@pytest.mark.parametrize("mode", ["selective", "full"])
@pytest.mark.parametrize("num_experts", [0, 4])
def test_activation_checkpointing_changes_no_bit(mode: Any, num_experts: int) -> None:
    plain, checkpointed = build(num_experts=num_experts), build(num_experts=num_experts)
    checkpoint_activations(checkpointed, mode)

    one, other = losses_and_gradients(plain), losses_and_gradients(checkpointed)

    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def kept_bytes(mode: Any) -> int:
    """Return the bytes that a forward pass keeps for the backward pass."""
    model = build(norm="layer", activation="gelu")
    checkpoint_activations(model, mode)
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, torch.nn.Parameter):
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        x = torch.randn(4, 64, 32, requires_grad=True)
        for block in model.blocks:
            x = block(x, None)
        kept = sum(seen.values())
    x.sum().backward()
    return kept


def test_full_activation_checkpointing_keeps_the_inputs_of_blocks_only() -> None:
    assert kept_bytes("full") < kept_bytes("none") / 4


def test_a_missing_compiler_is_told_in_one_line_and_the_blocks_stay(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/g++")
    compiling.why_not.cache_clear()
    model = build()

    with caplog.at_level(logging.WARNING):
        compiled = compile_blocks(model, "on")

    compiling.why_not.cache_clear()
    assert not compiled
    assert len(caplog.records) == 1
    assert "training.compile is skipped: no C++ compiler" in caplog.text
    assert losses_and_gradients(model)["loss"] > 0


def test_compilation_is_skipped_where_torch_lies_in_a_folder_with_a_space(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiling.torch, "__file__", "/my texts/site-packages/torch/__init__.py")
    compiling.why_not.cache_clear()

    with caplog.at_level(logging.WARNING):
        compiled = compile_blocks(build(), "on")

    compiling.why_not.cache_clear()
    assert not compiled
    assert "space" in caplog.text or "no C++ compiler" in caplog.text


def test_on_a_cpu_blocks_are_compiled_only_when_asked_for() -> None:
    assert not compile_blocks(build(), "auto")
    assert not compile_blocks(build(), "off")


@pytest.mark.slow
@pytest.mark.skipif(compiling.why_not("cpu") is not None, reason=str(compiling.why_not("cpu")))
def test_compiled_blocks_compute_what_eager_ones_do() -> None:
    plain, compiled = build(), build()
    assert compile_blocks(compiled, "on")

    one, other = losses_and_gradients(plain), losses_and_gradients(compiled)

    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-5, atol=1e-5)


def test_products_in_a_format_that_the_cpu_lacks_round_like_those_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(products, "_cpu_has_narrow", lambda: False)
    x = torch.randn(3, 5, 8).bfloat16().requires_grad_()
    weight, bias = torch.randn(6, 8, requires_grad=True), torch.randn(6, requires_grad=True)
    exact = [t.detach().bfloat16().double().requires_grad_() for t in (x, weight, bias)]
    expected = F.linear(*exact)

    found = products.product(x, weight, bias)
    d_y = torch.randn_like(found)
    found.backward(d_y)
    expected.backward(d_y.double())

    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=1e-2)
    for mine, oracle in zip((x, weight, bias), exact, strict=True):
        assert mine.grad is not None
        assert mine.grad.dtype == mine.dtype
        torch.testing.assert_close(mine.grad.double(), oracle.grad, rtol=2**-7, atol=2e-2)


def test_bfloat16_training_is_near_to_float32() -> None:
    one, other = losses_and_gradients(build()), losses_and_gradients(build(torch.bfloat16))

    assert one["loss"].item() == pytest.approx(other["loss"].item(), rel=1e-3)
    for name in one:
        assert (one[name] - other[name]).norm() < 0.05 * one[name].norm() + 1e-6


def test_batches_grow_to_their_size_without_a_gap_in_the_samples() -> None:
    sizes = BatchSizes(32, initial=8, warmup_samples=200)

    steps = [(sizes.first_sample(step), sizes.size(step)) for step in range(40)]

    assert steps[0] == (0, 8)
    assert all(a + b == c for (a, b), (c, _) in itertools.pairwise(steps))
    assert steps[-1][1] == 32
    assert all(size % 8 == 0 for _, size in steps)
    # Phases of the blend begin at multiples of the final size: no step lies on both sides.
    assert all(first // 32 == (first + size - 1) // 32 for first, size in steps)
    grown = [size for first, size in steps if first >= 200 and first % 32 == 0]
    assert set(grown) == {32}


def test_without_a_warm_up_all_batches_are_alike() -> None:
    sizes = BatchSizes(6)

    assert [sizes.first_sample(step) for step in (0, 1, 7)] == [0, 6, 42]
    assert sizes.size(5) == 6


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H200", 989),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA B300", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_only_known_devices_have_a_peak(name: str, teraflops: int | None) -> None:
    found = peak_flops(name, torch.bfloat16)

    assert found == (None if teraflops is None else teraflops * 1e12)
    assert peak_flops(name, torch.float32) is None


def test_a_cpu_has_no_mfu() -> None:
    assert model_flops_utilization(1e12, torch.device("cpu"), torch.bfloat16) is None


def test_without_gradients_nothing_is_checkpointed() -> None:
    model = build()
    before = copy.deepcopy(model)(torch.zeros(1, 4, dtype=torch.int64))
    checkpoint_activations(model, "full")

    with torch.no_grad():
        assert torch.equal(model(torch.zeros(1, 4, dtype=torch.int64)), before)
