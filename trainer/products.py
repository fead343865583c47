"""Matrix products in a number format that the machine may not have.

A CPU without bfloat16 instructions still multiplies such matrices, one number at a time: 2 to 24
GFLOP/s where float32 reaches 80 (measured on AVX2, two cores). There `product` widens what was
rounded to bfloat16, multiplies in float32 and rounds the result: the same rounding as everywhere
at the places where it matters, at the speed of float32, and sums that are no less exact.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F


def can_multiply(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the device multiplies matrices of this number format itself."""
    return dtype not in (torch.bfloat16, torch.float16) or device.type != "cpu" or _cpu_has_narrow()


@functools.cache
def _cpu_has_narrow() -> bool:
    """Whether this CPU has bfloat16 dot products (AVX-512 BF16, AMX, or those of ARM)."""
    try:
        flags = open("/proc/cpuinfo", encoding="utf-8").read()  # noqa: SIM115
    except OSError:
        return True  # not Linux: trust torch
    return any(f" {flag}" in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x Wᵀ + b in the number format of x; the weight rests in its own.

    Args:
        x: [..., num_inputs].
        weight: [num_outputs, num_inputs].
        bias: [num_outputs].
    """
    if can_multiply(x.dtype, x.device):
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    y: torch.Tensor = _WideProduct.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return y


class _WideProduct(torch.autograd.Function):
    """Inputs rounded to x's format, products and sums in float32, the result rounded."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        wide_bias = None if bias is None else bias.float()
        return F.linear(x.float(), weight.to(x.dtype).float(), wide_bias).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[Any, ...]:
        x, weight = ctx.saved_tensors
        d_y = gradients[0].float()
        d_x = d_weight = d_bias = None
        if ctx.needs_input_grad[0]:
            d_x = (d_y @ weight.to(x.dtype).float()).to(x.dtype)
        rows = d_y.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            d_weight = (rows.T @ x.flatten(0, -2).float()).to(weight.dtype)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            d_bias = rows.sum(dim=0).to(weight.dtype)
        return d_x, d_weight, d_bias
