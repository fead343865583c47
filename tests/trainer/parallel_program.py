"""What every rank of the parallel tests does; run as a script, one process a rank.

For each case it builds its slice of the model, computes loss and gradients, takes one step, and
saves what it has. The tests compare that with the same computation in one process.

Usage: parallel_program.py OUTPUT TENSOR_PARALLEL_SIZE...
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gristmill.trainer.config import OptimizerConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.data import Batch
from gristmill.trainer.grid import Grid, Ranks, make_grid
from gristmill.trainer.loss import token_nll
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.optimizer import (
    gradient_norm,
    gradients_of,
    make_optimizer,
    scale_gradients,
    sum_gradients,
)
from gristmill.trainer.step import accumulate, take_step

SMALL: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "ffn_size": 64,
    "vocab_multiple": 64,
}
MODELS: dict[str, tuple[ModelConfig, int]] = {
    # name -> (config, vocabulary): 250 is padded to 256, 128 not at all, 65 leaves ranks of 4 with
    # columns that are all padding
    "gqa_tied": (ModelConfig(**SMALL, num_kv_heads=4), 250),
    "untied": (ModelConfig(**SMALL, num_kv_heads=2, tied_embeddings=False), 128),
    "one_kv_head": (ModelConfig(**SMALL, num_kv_heads=1), 65),
    "two_kv_heads": (ModelConfig(**SMALL, num_kv_heads=2, init_std=0.2), 250),
    "gpt2": (
        ModelConfig(
            **SMALL,
            norm="layer",
            positions="learned",
            max_positions=20,
            activation="gelu",
            biases=True,
        ),
        250,
    ),
    "qwen3": (
        ModelConfig(**SMALL, num_kv_heads=2, head_size=12, query_key_norm=True, biases=True),
        250,
    ),
}
SAMPLES, LENGTH = 8, 16


def batch(vocab_size: int, rank: int = 0, copies: int = 1) -> Batch:
    """Return one copy's share of a batch with masked labels, one sample masked whole."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(0, vocab_size, (SAMPLES, LENGTH + 1), generator=generator)
    mask = torch.rand(SAMPLES, LENGTH, generator=generator) < 0.7
    mask[2] = False
    share = slice(rank * SAMPLES // copies, (rank + 1) * SAMPLES // copies)
    mask = mask[share]
    return Batch(ids[share, :-1], ids[share, 1:], mask, int(mask.sum()))


def build(name: str, tensor: Ranks, dtype: torch.dtype = torch.float64) -> Transformer:
    config, vocab_size = MODELS[name]
    model = Transformer(resolve(config), vocab_size, tensor, dtype)
    initialize(model, seed=3)
    return model


def compute(name: str, grid: Grid, micro_batch_size: int = 4) -> dict[str, Any]:
    """Return loss, norm and gradients of one batch, and weights before and after one step."""
    device = torch.device("cpu")
    model = build(name, grid.tensor)
    data = batch(model.vocab_size, grid.data.rank, grid.data.size)
    initial = {key: value.detach().clone() for key, value in model.named_parameters()}
    accumulate(model, data, micro_batch_size, device)
    gradients = gradients_of(model.parameters())
    sum_gradients(gradients, grid.data)
    norm = gradient_norm(model, gradients, grid)
    num_tokens = grid.data.sum(torch.tensor(float(data.num_valid), dtype=torch.float64))
    scale_gradients(gradients, norm, num_tokens, clip_norm=0)
    found = {key: value.grad.clone() for key, value in model.named_parameters()}
    model.zero_grad()
    optimizer = make_optimizer(model, OptimizerConfig())
    steps = [
        take_step(
            model,
            optimizer,
            data,
            grid,
            micro_batch_size=micro_batch_size,
            learning_rate=1e-2,
            clip_norm=0.5,
        )
        for _ in range(2)
    ]
    return {
        "loss": [step.loss for step in steps],
        "norm": [step.gradient_norm for step in steps],
        "tokens": steps[0].num_tokens,
        "initial": initial,
        "gradients": found,
        "weights": {key: value.detach() for key, value in model.named_parameters()},
    }


def losses(tensor: Ranks) -> dict[str, Any]:
    """Return nll and gradient of cross-entropies on this rank's columns."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 64, (12,), generator=generator)
    results: dict[str, Any] = {}
    for case in ("ordinary", "extreme", "all_masked", "foreign_labels"):
        logits = torch.randn(12, 64, generator=generator, dtype=torch.float64)
        mask = torch.arange(12) % 3 != 0
        if case == "extreme":
            logits = logits * 1e4
        if case == "all_masked":
            mask = torch.zeros(12, dtype=torch.bool)
        here = labels.masked_fill(~mask, 9999) if case == "foreign_labels" else labels
        columns = 64 // tensor.size
        part = logits[:, tensor.rank * columns : (tensor.rank + 1) * columns]
        part = part.clone().requires_grad_()
        nll = token_nll(part, here, mask, tensor)
        (nll * torch.arange(1.0, 13.0, dtype=torch.float64)).sum().backward()
        results[case] = {"nll": nll.detach(), "gradient": part.grad}
    return results


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for layout in sys.argv[2:]:
        grid = make_grid(int(layout), 0)
        results = {name: compute(name, grid) for name in MODELS}
        results["losses"] = losses(grid.tensor)
        torch.save(results, Path(sys.argv[1]) / f"layout{layout}-rank{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
