"""Floating-point operations a second in, the share of what the device could do (MFU) out.

    MFU = FLOP of the model per token * tokens/s of one device / dense peak of the device

The model's operations are counted by `flops_per_token`, with the causal half of the
attention; what is computed again for memory's sake does not count (Chowdhery et al. 2022,
arXiv:2204.02311, appendix B). Peaks are dense ones of the vendors' data sheets, without sparsity.
A device that is not in the table has no MFU: a wrong one is worse than none.
"""

from __future__ import annotations

import torch

from .config import PretrainConfig
from .model import count_product_parameters, pad_vocabulary

_BFLOAT16_TFLOPS = (
    # Longer names first: "H100 PCIe" is not an "H100 SXM".
    ("H200 NVL", 835.0),
    ("H200", 989.0),
    ("H100 NVL", 835.0),
    ("H100 PCIe", 756.0),
    ("H100", 989.0),
    ("A100", 312.0),
    ("A800", 312.0),
    ("H800", 989.0),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("A10G", 70.0),
    ("RTX 4090", 165.0),
    ("V100", 0.0),  # no bfloat16
)


def flops_per_token(config: PretrainConfig, vocab_size: int) -> float:
    """Return the floating-point operations of one token, forward and backward.

    6 for each parameter of a matrix product (the embedding lookup is none, the output layer is
    one), and 6 * layers * width * sequence_length for causal attention, width being num_heads *
    head_size: half of the 12 * layers * width * sequence_length of full attention (Chowdhery et
    al. 2022, arXiv:2204.02311, appendix B). An encoder has full attention, of its window only
    where that is local; its output layer sees the masked tokens alone.
    """
    model, length = config.model, config.data.sequence_length
    width = model.num_heads * model.head_size
    products = 6 * count_product_parameters(model, vocab_size)
    if model.causal:
        return products + 6 * model.num_layers * width * length
    num_global = model.num_layers
    if model.local_window:
        num_global = -(-model.num_layers // model.global_every)
    near = min(length, model.local_window + 1)
    seen = num_global * length + (model.num_layers - num_global) * near
    head = pad_vocabulary(vocab_size, model.vocab_multiple) + model.hidden_size
    spared = 6 * (1 - config.masking.share) * model.hidden_size * head
    return products - spared + 12 * width * seen


def peak_flops(name: str, dtype: torch.dtype) -> float | None:
    """Return the dense FLOP/s that the data sheet of a device gives; None where it is not known.

    Args:
        name: what torch.cuda.get_device_name returns.
    """
    if dtype not in (torch.bfloat16, torch.float16):
        return None  # float32 may or may not use TF32 here: no fair denominator
    words = name.replace("-", " ").split()
    for known, teraflops in _BFLOAT16_TFLOPS:
        if all(part in words for part in known.split()):
            return teraflops * 1e12 or None
    return None


def model_flops_utilization(
    flops_per_second: float, device: torch.device, dtype: torch.dtype
) -> float | None:
    """Return the MFU of one device, 0..1; None on CPUs and devices that are not in the table."""
    if device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(device), dtype)
    return None if peak is None else flops_per_second / peak
