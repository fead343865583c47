"""Bounds of documents, or left padding, in; what attention and positions need to know of them out.

Without `Places` a row is one text from its first token on. With them its tokens have positions of
their own, and see only what belongs to them:

    bounds 0 3 8     positions 0 1 2 0 1 2 3 4     token 3 sees itself only, token 4 sees 3 and 4

On GPUs with half precision, documents go to flash attention as sequences of different lengths;
everywhere else a mask says which token sees which.

Legend: B rows, T positions, H query heads, K key/value heads, E width of a head, C positions in
the cache, N bounds.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from .products import can_multiply


class Places(NamedTuple):
    """Where the tokens of a batch stand in their documents."""

    positions_BT: torch.Tensor
    """int64[B, T], place of each token in its document."""
    mask_B1TC: torch.Tensor | None = None
    """bool[B, 1, T, C], which tokens see which; None: `bounds` say it."""
    bounds_N: torch.Tensor | None = None
    """int32[N], bounds of the documents of all rows, one row after the other (cu_seqlens); the
    last one repeats, so that few lengths N occur."""
    longest: int = 0
    """Tokens of the longest document, rounded up to a power of two."""
    window: tuple[int, int] = (-1, 0)
    """With `bounds`: how many tokens before and after itself a token sees; -1: all."""


def document_places(
    bounds_BN: torch.Tensor | None,
    device: torch.device,
    dtype: torch.dtype,
    causal: bool = True,
) -> Places | None:
    """Return places that keep attention inside of each document; None for joined documents.

    Args:
        bounds_BN: int32[B, T + 1] on the CPU, each row from 0 to T, filled up with T.
        dtype: of the activations.
        causal: whether a token sees only what is before it.
    """
    if bounds_BN is None:
        return None
    rows, length = bounds_BN.shape[0], bounds_BN.shape[1] - 1
    starts_BT = _starts(bounds_BN)
    places_BT = torch.arange(length).expand(rows, length)
    positions_BT = (places_BT - starts_BT).to(device, non_blocking=True)
    if takes_bounds(device, dtype):
        bounds_N, longest = flat_bounds(bounds_BN)
        bounds_N = bounds_N.to(device, non_blocking=True)
        return Places(positions_BT, None, bounds_N, longest, (-1, 0 if causal else -1))
    starts_BT = starts_BT.to(device)
    same_BTT = starts_BT[:, :, None] == starts_BT[:, None, :]
    return Places(positions_BT, (same_BTT.tril() if causal else same_BTT)[:, None])


def takes_bounds(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention takes bounds of documents there, and needs no mask."""
    return device.type == "cuda" and dtype in (torch.bfloat16, torch.float16)


def nearby_places(
    places: Places | None, half: int, tokens_BT: torch.Tensor, dtype: torch.dtype
) -> Places:
    """Return places that see `half` tokens on either side, within what `places` let them see.

    Args:
        places: of an encoder; None: each row is one text.
        tokens_BT: for their shape and device.
        dtype: of the activations.
    """
    device, length = tokens_BT.device, tokens_BT.shape[1]
    if places is None and takes_bounds(device, dtype):
        row_N = torch.full((length + 1,), length, dtype=torch.int32)
        row_N[0] = 0
        places = document_places(row_N.expand(len(tokens_BT), -1), device, dtype, causal=False)
    if places is not None and places.bounds_N is not None:
        return places._replace(window=(half, half))
    place_T = torch.arange(length, device=device)
    near_TT = (place_T[:, None] - place_T).abs() <= half
    if places is None:
        return Places(place_T.expand(len(tokens_BT), -1), near_TT[None, None])
    assert places.mask_B1TC is not None
    return places._replace(mask_B1TC=places.mask_B1TC & near_TT)


def padding_places(padding_B: torch.Tensor, start: int, length: int) -> Places:
    """Return the places of rows that begin with padding, for generation.

    Args:
        padding_B: int64[B], tokens of padding before each row's first token.
        start: place in the cache of the first of the `length` new tokens.
    """
    device = padding_B.device
    rows_T = torch.arange(start, start + length, device=device)
    columns_C = torch.arange(start + length, device=device)
    positions_BT = (rows_T - padding_B[:, None]).clamp_min(0)
    causal_TC = columns_C <= rows_T[:, None]
    mask_BTC = causal_TC & (columns_C >= padding_B[:, None, None])
    # A token of padding sees itself: of nothing at all there would be no average.
    mask_BTC |= columns_C == rows_T[:, None]
    return Places(positions_BT, mask_BTC[:, None])


def flat_bounds(bounds_BN: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return cu_seqlens of all rows as one sequence, and the longest document.

    Example: rows [0, 2, 4, 4, 4] and [0, 4, 4, 4, 4] give [0, 2, 4, 8, 8] and 2 -> 4.
    """
    rows, length = bounds_BN.shape[0], bounds_BN.shape[1] - 1
    shifted_BN = bounds_BN.long() + length * torch.arange(rows)[:, None]
    bounds_N = torch.unique(shifted_BN)
    longest = int(bounds_N.diff().max())
    count = _power_of_two(len(bounds_N) - 1) + 1
    filled_N = torch.full((count,), rows * length, dtype=torch.int32)
    filled_N[: len(bounds_N)] = bounds_N
    return filled_N, min(_power_of_two(longest), length)


def attend(
    q_BHTE: torch.Tensor,
    k_BKCE: torch.Tensor,
    v_BKCE: torch.Tensor,
    places: Places | None,
    start: int,
    causal: bool = True,
) -> torch.Tensor:
    """Return softmax(q kᵀ / sqrt(E)) v, [B, H, T, E], of what each token may see.

    Args:
        places: None: everything before it in its row.
        start: place of the first query among the keys.
        causal: false: without `places`, what is after it too.
    """
    shares = q_BHTE.shape[1] != k_BKCE.shape[1]
    if places is not None and places.bounds_N is not None:
        return _attend_in_bounds(q_BHTE, k_BKCE, v_BKCE, places, shares)
    dtype = q_BHTE.dtype
    if not can_multiply(dtype, q_BHTE.device):
        q_BHTE, k_BKCE, v_BKCE = q_BHTE.float(), k_BKCE.float(), v_BKCE.float()
    length, context = q_BHTE.shape[2], k_BKCE.shape[2]
    mask = None if places is None else places.mask_B1TC
    if mask is None and start > 0 and length > 1:
        device = q_BHTE.device
        mask = torch.ones(length, context, dtype=torch.bool, device=device).tril(context - length)
    return F.scaled_dot_product_attention(
        q_BHTE,
        k_BKCE,
        v_BKCE,
        attn_mask=mask,
        is_causal=causal and mask is None and start == 0,
        enable_gqa=shares,
    ).to(dtype)


def _attend_in_bounds(
    q_BHTE: torch.Tensor,
    k_BKTE: torch.Tensor,
    v_BKTE: torch.Tensor,
    places: Places,
    shares: bool,
) -> torch.Tensor:
    """Let flash attention take all documents as sequences of different lengths."""
    from torch.nn.attention.varlen import varlen_attn

    batch, _, length, _ = q_BHTE.shape
    q_NHE, k_NKE, v_NKE = (x.transpose(1, 2).flatten(0, 1) for x in (q_BHTE, k_BKTE, v_BKTE))
    bounds_N = places.bounds_N
    assert bounds_N is not None
    grouped: dict[str, Any] = {}
    if "enable_gqa" in inspect.signature(varlen_attn).parameters:
        grouped["enable_gqa"] = shares
    elif shares:  # torch 2.11 wants a key and a value for each query head
        k_NKE, v_NKE = (
            x.repeat_interleave(q_NHE.shape[1] // x.shape[1], dim=1) for x in (k_NKE, v_NKE)
        )
    y_NHE = varlen_attn(
        q_NHE,
        k_NKE,
        v_NKE,
        bounds_N,
        bounds_N,
        places.longest,
        places.longest,
        window_size=places.window,
        **grouped,
    )
    assert isinstance(y_NHE, torch.Tensor)
    return y_NHE.view(batch, length, *y_NHE.shape[1:]).transpose(1, 2)


def _starts(bounds_BN: torch.Tensor) -> torch.Tensor:
    """Return int64[B, T], the place at which each token's document begins."""
    rows, length = bounds_BN.shape[0], bounds_BN.shape[1] - 1
    places_BT = torch.arange(length, dtype=bounds_BN.dtype).expand(rows, length).contiguous()
    after_BT = torch.searchsorted(bounds_BN.contiguous(), places_BT, right=True)
    return bounds_BN.long().gather(1, after_BT - 1)


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
