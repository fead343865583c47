"""Names of number formats in, torch dtypes out."""

from __future__ import annotations

import torch


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype that `training.precision` means on `device`.

    Raises:
        ValueError: bfloat16 on a GPU that has none.
    """
    has_bfloat16 = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and has_bfloat16 else torch.float32
    if precision == "bfloat16" and not has_bfloat16:
        raise ValueError(
            'training.precision = "bfloat16", but this GPU has no bfloat16 arithmetic: set it to '
            '"auto" or "float32"'
        )
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}[
        precision
    ]


def precision_name(dtype: torch.dtype) -> str:
    """Return what the config calls `dtype`, e.g. float32."""
    return str(dtype).removeprefix("torch.")
