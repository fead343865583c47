"""A config in, the memory that one rank will take out; or a refusal where there is less.

An estimate of what is held at the peak of a step, part by part:

    weights, gradients    4 bytes a parameter (8 in float64), this rank's slices and shards
    optimizer             AdamW twice, Muon once that size
    copies                weights in the number format of the computation, kept for backward
    gathered              shard: what other ranks hold of two blocks and of the embedding
    activations           what backward needs again, by `training.activation_checkpointing`
    logits                of one chunk
    process               on a CPU: interpreter, libraries, buffers of the products

`benchmarks/memory.py` holds it against what processes take.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from .blend import documents_of
from .chunked_loss import default_chunk
from .config import PretrainConfig, longest_sequence
from .held import count_held
from .launch import choose_device
from .layers import is_gated
from .model import pad_vocabulary

_WIDTHS = {"float64": 8, "float32": 4, "bfloat16": 2}
_PROCESS_BYTES = 300e6
"""Interpreter, torch and its buffers, measured on a CPU; a GPU's free memory is without them."""


class NotEnoughMemoryError(ValueError):
    """A training needs more memory than there is."""


def estimate_memory(config: PretrainConfig, vocab_size: int, num_ranks: int) -> dict[str, float]:
    """Return the bytes of each part on one rank, at the peak of a step.

    Args:
        config: resolved.
        num_ranks: all ranks of the training.
    """
    parallel, training, model = config.parallel, config.training, config.model
    tensor = parallel.tensor_parallel_size
    copies = parallel.data_parallel_size or max(1, num_ranks // tensor)
    held = count_held(model, vocab_size, parallel, copies, config.lora)
    rest = 8 if training.precision == "float64" else 4
    width = _WIDTHS[training.precision]
    states = 2 * held.trained - (held.own_in_blocks if config.optimizer.kind == "muon" else 0)
    parts = {
        "weights": float(held.own * rest),
        "gradients": float(held.trained * rest),
        "optimizer": float(states * rest),
    }
    if width < rest:
        parts["copies"] = held.own * width
    if held.fetched:
        parts["gathered"] = held.fetched * width
    tokens = training.micro_batch_size * longest_sequence(config.data)
    parts["activations"] = tokens * _activation_bytes(config, width, tensor)
    has_mask = documents_of(config.data) == "separate" or model.local_window
    if has_mask and choose_device(config).type == "cpu":
        parts["activations"] += tokens * longest_sequence(config.data)  # the mask
    columns = pad_vocabulary(vocab_size, model.vocab_multiple) // tensor
    chunk = training.loss_chunk_tokens or default_chunk(columns, choose_device(config))
    parts["logits"] = 2 * min(tokens, chunk) * columns * max(4, width)
    if choose_device(config).type == "cpu":
        parts["process"] = _PROCESS_BYTES
    return parts


def _activation_bytes(config: PretrainConfig, width: int, tensor: int) -> float:
    """Return the bytes of one token that backward needs again, of all layers."""
    model, kept = config.model, config.training.activation_checkpointing
    stream = model.hidden_size / (tensor if config.parallel.sequence_parallel else 1)
    # Divided by tensor parallelism: queries, keys, values and attention's output, all turned too.
    heads = (3 * model.num_heads + 3 * model.num_kv_heads) * model.head_size / tensor
    inner_size, entered = model.ffn_size, 1
    if model.num_experts:
        taken = model.experts_per_token + model.num_shared_experts
        inner_size, entered = taken * model.expert_ffn_size, 1 + 2 * model.experts_per_token
    matrices = 4 if is_gated(model) else 2
    if kept == "selective":
        layer = 3 * stream + entered * model.hidden_size + heads + inner_size * 2 / tensor
    else:
        # Two inputs of norms and their normalized forms (in float32 where activations are less),
        # what the matrices are given, two sums; gate, up, their activation and product.
        norms = 4 * stream * (max(4, width) / width)
        layer = norms + (2 + entered) * model.hidden_size + heads + matrices * inner_size / tensor
    if kept == "full":
        return width * (model.num_layers * stream + layer)
    return width * model.num_layers * layer


def available_memory(config: PretrainConfig, num_ranks: int) -> float:
    """Return the bytes that one rank may take: its GPU's, or its share of this machine's."""
    device = choose_device(config)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return float(free)
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", num_ranks))
    return _machine_memory() / max(1, ranks_here)


def require_memory(config: PretrainConfig, vocab_size: int, num_ranks: int) -> None:
    """Refuse a training that needs more memory than there is, before anything is allocated.

    Raises:
        NotEnoughMemoryError: names both numbers, the largest part, and what would help.
    """
    if not config.training.check_memory:
        return
    parts = estimate_memory(config, vocab_size, num_ranks)
    needed, there = sum(parts.values()), available_memory(config, num_ranks)
    if needed <= there:
        return
    listed = ", ".join(f"{name} {readable_bytes(size)}" for name, size in parts.items())
    state = parts["weights"] + parts["gradients"] + parts["optimizer"]
    remedy = (
        'set parallel.shard = "full" or a larger parallel.tensor_parallel_size over more ranks, or '
        "choose a smaller model"
        if state > there / 2
        else "lower training.micro_batch_size (gradients are accumulated, nothing else changes), "
        'or set training.activation_checkpointing = "full"'
    )
    raise NotEnoughMemoryError(
        f"a rank would need about {readable_bytes(needed)} of memory, and there are "
        f"{readable_bytes(there)} for it ({listed}): it would be killed in its first steps. To "
        f"fit, {remedy}; training.check_memory = false starts anyway"
    )


def readable_bytes(number: float) -> str:
    """Return a number of bytes as people read it, e.g. 1.5 GB."""
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def _machine_memory() -> float:
    """Return what this machine, or the cgroup that this process lives in, has left."""
    found = []
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * float(line.split()[1]))
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(float(limit))
    except (OSError, ValueError):
        pass
    return min(found, default=float("inf"))
