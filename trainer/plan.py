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
from .memory import available_memory, estimate_memory, readable_bytes
from .model import count_parameters, count_product_parameters
from .resolved import check_run, resolve_config, settle_steps
from .schedule import num_samples
from .speed import flops_per_token, peak_flops

_PAGE_WIDTH = 80
_ASSUMED_MFU = 0.4
_PLANNED_GPUS = ("H100", "A100")
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
    config = settle_steps(config, data)
    ranks = count_ranks(config)
    check_run(config, data, ranks, start=False)
    require_samples(data.blend, num_samples(config))
    lines = [*_size(config, data, ranks), *_memory(config, data, ranks)]
    lines += [*_time(config, data, ranks), *_on_gpus(config, data)]
    wrapped = [
        part
        for line in lines
        for part in textwrap.wrap(
            line, _PAGE_WIDTH, subsequent_indent=13 * " ", break_on_hyphens=False
        )
    ]
    return "\n".join(wrapped + _epochs(config, data))


def _size(config: PretrainConfig, data: TrainingData, ranks: int) -> list[str]:
    training, tensor = config.training, config.parallel.tensor_parallel_size
    model = config.model
    step_tokens = training.global_batch_size * config.data.sequence_length
    return [
        f"model        {count_parameters(model, data.vocab_size):,} parameters: "
        f"{model.num_layers} layers, hidden size {model.hidden_size}, {model.num_heads} heads "
        f"({model.num_kv_heads} key/value), feed-forward {model.ffn_size}, "
        f"{data.vocab_size:,} ids"
        + (
            f", {model.experts_per_token} of {model.num_experts} experts of "
            f"{model.expert_ffn_size}: "
            f"{count_product_parameters(model, data.vocab_size):,} parameters multiply a token"
            if model.num_experts
            else ""
        ),
        f"layout       {tensor} tensor-parallel x {ranks // tensor} data-parallel ranks on "
        f"{choose_device(config).type}, {training.precision}",
        f"steps        {training.num_steps:,} of {training.global_batch_size} x "
        f"{config.data.sequence_length:,} = {step_tokens:,} tokens; in all "
        f"{_num_tokens(config, data):,} tokens",
    ]


def _memory(config: PretrainConfig, data: TrainingData, ranks: int) -> list[str]:
    parts = estimate_memory(config, data.vocab_size, ranks)
    listed = ", ".join(f"{name} {readable_bytes(size)}" for name, size in parts.items())
    there = available_memory(config, ranks)
    return [
        f"memory       about {readable_bytes(sum(parts.values()))} a rank: {listed}; there are "
        f"{readable_bytes(there)} for it"
    ]


def _on_gpus(config: PretrainConfig, data: TrainingData) -> list[str]:
    """Tell how long known GPUs would take, whatever this machine has."""
    flops = flops_per_token(config, data.vocab_size) * _num_tokens(config, data)
    peaks = {name: peak_flops(name, torch.bfloat16) or 0.0 for name in _PLANNED_GPUS}
    times = [
        f"{count} x {name} {_duration(flops / (peak * _ASSUMED_MFU * count))}"
        for name, peak in peaks.items()
        for count in (1, 8)
    ]
    listed = ", ".join(f"{name} {peak / 1e12:.0f}" for name, peak in peaks.items())
    return [
        f"on GPUs      {', '.join(times)}: at {_ASSUMED_MFU:.0%} MFU in bfloat16 ({listed} "
        "TFLOP/s; the FLOP above, so the causal half of attention)"
    ]


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


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 172_800:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"
