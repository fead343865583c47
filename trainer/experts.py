"""Tokens in, weighted sums of their experts' results out: a mixture of experts, no token dropped.

    x ── enter ──► router: K experts and gates for each token
          └─► K copies of each token, sorted by expert ──► experts (one grouped product a matrix)
                ──► unsorted ──► sum of the K results by gates, + shared experts ── leave ──► y

(Shazeer et al. 2017, arXiv:1701.06538; drop-free as in Gale et al. 2022, arXiv:2211.15841.) With
expert parallelism the sorted copies travel to the rank that holds their expert, and their results
back, by an all-to-all each. Sorting is a permutation, so nothing is added up in memory by several
threads at once, in either direction: results repeat bit for bit.

Legend: B sequences, T positions, N = B * T tokens, D hidden size, E experts (of this rank, inside
`Experts`), K experts per token, M = N * K rows, F inner width of an expert on this rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed._functional_collectives as funcol
import torch.nn.functional as F
from torch import nn

from .config_model import ModelConfig
from .grid import Ranks
from .layers import FeedForward, activate, is_gated
from .parallel import check_experts, enter, leave
from .router import Router

_ALIGNED_BYTES = 16


class Experts(nn.Module):
    """The feed-forward layers that this rank holds, one after the other in each tensor."""

    def __init__(self, config: ModelConfig, tensor: Ranks, expert: Ranks) -> None:
        super().__init__()
        check_experts(config, expert.size)
        count, width = config.num_experts // expert.size, config.hidden_size
        inner = config.expert_ffn_size // tensor.size
        self.activation = config.activation
        gated = is_gated(config)
        self.gate = nn.Parameter(torch.empty(count, inner, width)) if gated else None
        self.up = nn.Parameter(torch.empty(count, inner, width))
        self.down = nn.Parameter(torch.empty(count, width, inner))

    def forward(self, x_MD: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        """Return each row's result, [M, D]: this rank's part of the sum over the inner width.

        Args:
            x_MD: rows sorted by expert.
            ends_E: int32[E], the row after the last one of each expert.
        """
        gate_MF = None if self.gate is None else grouped_linear(x_MD, self.gate, ends_E)
        inner_MF = activate(self.activation, gate_MF, grouped_linear(x_MD, self.up, ends_E))
        return grouped_linear(inner_MF, self.down, ends_E)


class MixtureOfExperts(nn.Module):
    """A router, its experts and the shared ones, in place of one feed-forward layer."""

    def __init__(
        self,
        config: ModelConfig,
        tensor: Ranks,
        expert: Ranks,
        sequence_parallel: bool = False,
    ) -> None:
        super().__init__()
        self.tensor = tensor
        self.expert = expert
        self.sequence_parallel = sequence_parallel
        self.router = Router(config, tensor)
        self.experts = Experts(config, tensor, expert)
        self.shared: FeedForward | None = None
        if config.num_shared_experts:
            width = config.num_shared_experts * config.expert_ffn_size
            self.shared = FeedForward(config, width, tensor)

    def forward(self, x_BTD: torch.Tensor, num_valid_B: torch.Tensor | None = None) -> torch.Tensor:
        """Return what the layer adds to the residual stream.

        Args:
            num_valid_B: tokens of each sequence that have a loss; see `Router`.
        """
        x_BTD = enter(x_BTD, self.tensor, self.sequence_parallel)
        gates_NK, experts_NK = self.router(x_BTD, num_valid_B)
        out_BTD = self._routed(x_BTD.flatten(0, 1), gates_NK, experts_NK).view_as(x_BTD)
        if self.shared is not None:
            out_BTD = out_BTD + self.shared.partial(x_BTD)
        return leave(out_BTD, self.tensor, self.sequence_parallel)

    def _routed(
        self, x_ND: torch.Tensor, gates_NK: torch.Tensor, experts_NK: torch.Tensor
    ) -> torch.Tensor:
        expert_M = experts_NK.flatten()
        order_M = expert_M.argsort(stable=True)
        place_M = order_M.argsort()
        names_E = torch.arange(self.router.weight.shape[0], device=x_ND.device)
        ends_E = torch.searchsorted(expert_M[order_M], names_E, right=True)
        copies_MD = _Copy.apply(x_ND, order_M, place_M)  # type: ignore[no-untyped-call]
        if self.expert.group is None:
            results_MD = self.experts(copies_MD, ends_E.int())
        else:
            results_MD = self._exchanged(copies_MD, ends_E)
        results_NKD = _permute(results_MD, place_M, order_M).view(*gates_NK.shape, -1)
        return (results_NKD * gates_NK[..., None]).sum(dim=1).to(x_ND.dtype)

    def _exchanged(self, copies_MD: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        """Send each row to the rank of its expert, and return the results in the same order."""
        ranks = self.expert
        counts_E = torch.diff(ends_E, prepend=ends_E.new_zeros(1))
        counts_RE = counts_E.view(ranks.size, -1)  # R: rank that holds the expert
        arriving_RE = _all_to_all(counts_RE, None, None, ranks)  # R: rank that sends
        sent, received = torch.stack([counts_RE.sum(dim=1), arriving_RE.sum(dim=1)]).tolist()
        rows_MD = _exchange(copies_MD, received, sent, ranks)
        # They arrive by rank and expert, and are wanted by expert and rank.
        names_RE = torch.arange(arriving_RE.shape[1], device=ends_E.device).expand_as(arriving_RE)
        expert_M = names_RE.flatten().repeat_interleave(
            arriving_RE.flatten(), output_size=rows_MD.shape[0]
        )
        order_M = expert_M.argsort(stable=True)
        place_M = order_M.argsort()
        ends_here_E = arriving_RE.sum(dim=0).cumsum(dim=0).int()
        results_MD = self.experts(_permute(rows_MD, order_M, place_M), ends_here_E)
        return _exchange(_permute(results_MD, place_M, order_M), sent, received, ranks)


def grouped_linear(
    x_MI: torch.Tensor, weight_EOI: torch.Tensor, ends_E: torch.Tensor
) -> torch.Tensor:
    """Return x Wᵀ, [M, O], where the rows up to ends_E[e] from the end before have matrix e."""
    weight_EOI = weight_EOI.to(x_MI.dtype)
    if _has_grouped_product(x_MI, weight_EOI):
        return F.grouped_mm(x_MI, weight_EOI.transpose(1, 2), offs=ends_E)
    return looped_linear(x_MI, weight_EOI, ends_E)


def looped_linear(
    x_MI: torch.Tensor, weight_EOI: torch.Tensor, ends_E: torch.Tensor
) -> torch.Tensor:
    """Return the same as `grouped_linear` by one product for each expert, in any number format."""
    ends = ends_E.tolist()
    starts = [0, *ends[:-1]]
    products = [
        F.linear(x_MI[start:end], weight)
        for start, end, weight in zip(starts, ends, weight_EOI.unbind(0), strict=True)
    ]
    return torch.cat(products)


def _has_grouped_product(x_MI: torch.Tensor, weight_EOI: torch.Tensor) -> bool:
    """Whether torch's grouped product serves: its number formats, aligned rows, at least one."""
    narrow = x_MI.dtype in (torch.bfloat16, torch.float16)
    if x_MI.dtype != torch.float32 and not narrow:
        return False
    if torch.compiler.is_compiling() and x_MI.dtype != torch.bfloat16:  # what its tracing knows
        return False
    widths = weight_EOI.shape[1:]
    return x_MI.shape[0] > 0 and all(w * x_MI.itemsize % _ALIGNED_BYTES == 0 for w in widths)


class _Copy(torch.autograd.Function):
    """Row m is token order_M[m] // K; backward sums the K copies of a token without scattering."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: torch.Tensor, order_M: torch.Tensor, place_M: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(place_M)
        ctx.num_tokens = x_ND.shape[0]
        return x_ND.index_select(0, order_M // (order_M.shape[0] // x_ND.shape[0]))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (place_M,) = ctx.saved_tensors
        copies_MD = gradients[0].index_select(0, place_M)
        copies_NKD = copies_MD.view(ctx.num_tokens, -1, copies_MD.shape[1])
        return copies_NKD.sum(dim=1), None, None


def _permute(x_MD: torch.Tensor, order_M: torch.Tensor, inverse_M: torch.Tensor) -> torch.Tensor:
    """Return the rows in another order; `inverse_M` undoes it."""
    permuted: torch.Tensor = _Permute.apply(x_MD, order_M, inverse_M)  # type: ignore[no-untyped-call]
    return permuted


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_MD: torch.Tensor, order_M: torch.Tensor, inverse_M: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(inverse_M)
        return x_MD.index_select(0, order_M)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (inverse_M,) = ctx.saved_tensors
        return gradients[0].index_select(0, inverse_M), None, None


def _exchange(
    x_MD: torch.Tensor, received: list[int], sent: list[int], ranks: Ranks
) -> torch.Tensor:
    """Send `sent[r]` rows to each rank r in turn, return those from each rank in turn."""
    rows: torch.Tensor = _Exchange.apply(x_MD, received, sent, ranks)  # type: ignore[no-untyped-call]
    return rows


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_MD: torch.Tensor, received: list[int], sent: list[int], ranks: Ranks
    ) -> torch.Tensor:
        ctx.way = (received, sent, ranks)
        return _all_to_all(x_MD, received, sent, ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        received, sent, ranks = ctx.way
        return _all_to_all(gradients[0], sent, received, ranks), None, None, None


def _all_to_all(
    x: torch.Tensor, received: list[int] | None, sent: list[int] | None, ranks: Ranks
) -> torch.Tensor:
    assert ranks.group is not None
    rows = funcol.all_to_all_single(x.contiguous(), received, sent, ranks.group)
    waited: torch.Tensor = funcol.wait_tensor(rows)  # type: ignore[no-untyped-call]
    return waited
