"""The loss by chunks is the plain loss, its gradients are the plain gradients, and it is small."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gristmill.trainer.chunked_loss import summed_nll, token_nll
from gristmill.trainer.grid import Ranks

TOKENS, WIDTH, VOCABULARY = 37, 8, 23


def case(kind: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(5)
    hidden = torch.randn(TOKENS, WIDTH, generator=generator, dtype=dtype)
    weight = torch.randn(VOCABULARY, WIDTH, generator=generator, dtype=dtype)
    labels = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
    mask = torch.rand(TOKENS, generator=generator) < 0.7
    if kind == "extreme":
        hidden = hidden * 1e4
    if kind == "all_masked":
        mask = torch.zeros_like(mask)
    if kind == "foreign_labels":
        labels = labels.masked_fill(~mask, 10**9)
    return hidden.requires_grad_(), weight.requires_grad_(), labels, mask


def plain_nll(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """PyTorch's own cross-entropy of whole logits."""
    labels = labels.masked_fill(~mask, -1)
    return F.cross_entropy(hidden @ weight.T, labels, ignore_index=-1, reduction="none")


@pytest.mark.parametrize("chunk_tokens", [1, 5, 37, 1000])
@pytest.mark.parametrize("kind", ["ordinary", "extreme", "all_masked", "foreign_labels"])
def test_chunks_give_the_plain_loss_and_gradients(kind: str, chunk_tokens: int) -> None:
    hidden, weight, labels, mask = case(kind, torch.float64)
    expected = plain_nll(hidden, weight, labels, mask).sum()
    gradients = torch.autograd.grad(3 * expected, (hidden, weight))

    found = summed_nll(hidden, weight, labels, mask, Ranks(), chunk_tokens=chunk_tokens)

    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(torch.autograd.grad(3 * found, (hidden, weight)), gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-10)
        assert one[~mask].abs().sum() == 0 if len(one) == TOKENS else True


@pytest.mark.parametrize("kind", ["ordinary", "extreme", "all_masked", "foreign_labels"])
def test_every_token_has_the_plain_loss(kind: str) -> None:
    hidden, weight, labels, mask = case(kind, torch.float64)

    found = token_nll(hidden, weight, labels, mask, Ranks(), chunk_tokens=5)

    expected = plain_nll(hidden, weight, labels, mask)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found[~mask].abs().sum() == 0
    assert not found.requires_grad


def test_padded_rows_are_no_part_of_the_loss_and_get_no_gradient() -> None:
    hidden, weight, labels, mask = case("ordinary", torch.float64)
    padded = torch.cat([weight.detach(), torch.full((9, WIDTH), 50.0)]).requires_grad_()

    found = summed_nll(hidden, padded, labels, mask, Ranks(), num_columns=VOCABULARY)
    found.backward()

    expected = summed_nll(hidden, weight, labels, mask, Ranks())
    assert torch.equal(found, expected)
    assert padded.grad is not None
    assert padded.grad[VOCABULARY:].abs().sum() == 0
    assert padded.grad[:VOCABULARY].abs().sum() > 0


def test_a_rank_of_padding_only_has_no_columns() -> None:
    hidden, weight, labels, mask = case("all_masked", torch.float32)

    found = summed_nll(hidden, weight, labels, mask, Ranks(), num_columns=0)

    assert found == 0


def test_bfloat16_is_summed_in_float32() -> None:
    hidden, weight, labels, mask = case("ordinary", torch.float32)
    narrow = hidden.detach().bfloat16().requires_grad_()
    expected = plain_nll(narrow.double(), weight.bfloat16().double(), labels, mask).sum()

    found = summed_nll(narrow, weight, labels, mask, Ranks())
    found.backward()

    assert found.dtype == torch.float32
    assert narrow.grad is not None
    assert narrow.grad.dtype == torch.bfloat16
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=3e-3)


def test_no_tensor_is_larger_than_a_chunk_of_logits_or_the_matrix() -> None:
    tokens, vocabulary, chunk = 4096, 512, 64
    hidden = torch.randn(tokens, WIDTH, requires_grad=True)
    weight = torch.randn(vocabulary, WIDTH, requires_grad=True)
    labels, mask = torch.zeros(tokens, dtype=torch.int64), torch.ones(tokens, dtype=torch.bool)

    with torch.profiler.profile(profile_memory=True) as profile:
        summed_nll(hidden, weight, labels, mask, Ranks(), chunk_tokens=chunk).backward()

    largest = max(
        event.cpu_memory_usage for event in profile.events() if event.cpu_memory_usage is not None
    )
    logits = 4 * tokens * vocabulary
    assert 0 < largest < logits / 8
