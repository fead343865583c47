"""A config and the data's manifests in; what a training would take, as text, out."""

from __future__ import annotations

import textwrap
import time
from pathlib import Path

import torch

from ..indexed_dataset import describe_phases
from .blend import require_samples
from .config import PretrainConfig
from .data import TrainingData, open_data
from .launch import choose_device, count_ranks, threads_per_rank
from .model import count_parameters, count_product_parameters, pad_vocabulary
from .resolved import check_run, resolve_config
from .schedule import num_samples

_PAGE_WIDTH = 80
_PROBE_SECONDS = 0.5
_SHARE_OF_PROBE = 0.5
"""Share of the probe's speed that a whole training step is taken to reach."""


def plan_pretrain(config: PretrainConfig, *, output: str | Path) -> str:
    """Return parameters, memory, tokens, time and epochs of a training, as lines of text.

    Raises:
        ValueError: what `pretrain` would refuse.
    """
    config = resolve_config(config)
    data = open_data(config, Path(output))
    ranks = count_ranks(config)
    check_run(config, data, ranks)
    require_samples(data.blend, num_samples(config))
    lines = [*_size(config, data, ranks), *_memory(config, data), *_time(config, data, ranks)]
    wrapped = [
        part
        for line in lines
        for part in textwrap.wrap(
            line, _PAGE_WIDTH, subsequent_indent=13 * " ", break_on_hyphens=False
        )
    ]
    return "\n".join(wrapped + _epochs(config, data))


def flops_per_token(config: PretrainConfig, vocab_size: int) -> float:
    """Return the floating-point operations of one token, forward and backward.

    6 for each parameter of a matrix product (the embedding lookup is none, the output layer is
    one), and 6 * layers * width * sequence_length for causal attention, width being num_heads *
    head_size: half of the 12 * layers * width * sequence_length of full attention (Chowdhery et
    al. 2022, arXiv:2204.02311, appendix B).
    """
    model = config.model
    width = model.num_heads * model.head_size
    attention = 6 * model.num_layers * width * config.data.sequence_length
    return 6 * count_product_parameters(model, vocab_size) + attention


def _size(config: PretrainConfig, data: TrainingData, ranks: int) -> list[str]:
    training, tensor = config.training, config.parallel.tensor_parallel_size
    model = config.model
    step_tokens = training.global_batch_size * config.data.sequence_length
    return [
        f"model        {count_parameters(model, data.vocab_size):,} parameters: "
        f"{model.num_layers} layers, hidden size {model.hidden_size}, {model.num_heads} heads "
        f"({model.num_kv_heads} key/value), feed-forward {model.ffn_size}, "
        f"{data.vocab_size:,} ids",
        f"layout       {tensor} tensor-parallel x {ranks // tensor} data-parallel ranks on "
        f"{choose_device(config).type}, {training.precision}",
        f"steps        {training.num_steps:,} of {training.global_batch_size} x "
        f"{config.data.sequence_length:,} = {step_tokens:,} tokens; in all "
        f"{_num_tokens(config, data):,} tokens",
    ]


def _memory(config: PretrainConfig, data: TrainingData) -> list[str]:
    model, tensor = config.model, config.parallel.tensor_parallel_size
    wide = config.training.precision == "float64"
    weight_bytes = 8 if wide else 4
    here = count_parameters(model, data.vocab_size) / tensor
    width = {"float64": 8, "float32": 4, "bfloat16": 2}[config.training.precision]
    longest = max(placed.blend.sequence_length for placed in data.blend.phases)
    tokens = config.training.micro_batch_size * longest
    # What backward needs again. Whole on every rank: two inputs of norms, their outputs, two sums.
    # Cut: queries, keys, values, attention's output; gate, up, silu(gate), their product.
    heads = (2 * model.num_heads + 2 * model.num_kv_heads) * model.head_size
    inner = (4 if model.activation == "swiglu" else 2) * model.ffn_size
    per_layer = 6 * model.hidden_size + (heads + inner) / tensor
    columns = pad_vocabulary(data.vocab_size, model.vocab_multiple) / tensor
    logits = columns * (2 * max(4, width) + (width if width < 4 else 0))
    activations = tokens * (model.num_layers * per_layer * width + logits)
    parts = {
        "weights": here * weight_bytes,
        "gradients": here * weight_bytes,
        "AdamW": here * 2 * weight_bytes,
        "activations": activations,
    }
    listed = ", ".join(f"{name} {_bytes(size)}" for name, size in parts.items())
    return [f"memory       about {_bytes(sum(parts.values()))} a rank: {listed}"]


def _time(config: PretrainConfig, data: TrainingData, ranks: int) -> list[str]:
    flops = flops_per_token(config, data.vocab_size)
    device = choose_device(config)
    speed = _probe(config, data, device, threads_per_rank(config, ranks))
    tokens = _num_tokens(config, data)
    seconds = flops * tokens / (speed * ranks * _SHARE_OF_PROBE)
    return [
        f"work         {flops / 1e6:,.1f} MFLOP a token (6 x parameters in matrix products + "
        f"6 x layers x hidden size x sequence length), {flops * tokens:.2e} FLOP in all",
        f"time         about {_duration(seconds)}, {tokens / seconds:,.0f} tokens/s: a matrix "
        f"product measured just now reaches {speed / 1e9:,.0f} GFLOP/s on one rank, "
        f"{_SHARE_OF_PROBE:.0%} of it is assumed",
    ]


def _probe(config: PretrainConfig, data: TrainingData, device: torch.device, threads: int) -> float:
    """Return the FLOP/s of one rank's feed-forward product."""
    dtype = getattr(torch, config.training.precision)
    rows = config.training.micro_batch_size * config.data.sequence_length
    columns = config.model.ffn_size // config.parallel.tensor_parallel_size
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    x = torch.ones(rows, config.model.hidden_size, dtype=dtype, device=device)
    w = torch.ones(config.model.hidden_size, columns, dtype=dtype, device=device)
    x @ w
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < _PROBE_SECONDS:
        x @ w
        if device.type == "cuda":
            torch.cuda.synchronize()
        count += 1
    seconds = time.perf_counter() - start
    torch.set_num_threads(before)
    return 2.0 * rows * columns * config.model.hidden_size * count / seconds


def _epochs(config: PretrainConfig, data: TrainingData) -> list[str]:
    """List how often each group is seen, and its share of the samples."""
    samples = num_samples(config)
    return ["", *describe_phases(data.blend, samples).splitlines()]


def _num_tokens(config: PretrainConfig, data: TrainingData) -> int:
    return data.blend.num_tokens(num_samples(config))


def _bytes(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:,.0f} {unit}" if unit == "B" else f"{number:,.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"
