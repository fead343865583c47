"""What every rank of the parallel tests does; run as a script, one process a rank.

For each case it builds its part of the model, computes loss and gradients, takes steps, and saves
what it has. The tests compare that with the same computation in one process.

Usage: parallel_program.py OUTPUT LAYOUT:MODEL,MODEL,...  ...
       parallel_program.py OUTPUT LAYOUT:resumeSTEPS ...
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from gristmill.trainer.checkpoint_state import CheckpointState
from gristmill.trainer.chunked_loss import summed_nll, token_nll
from gristmill.trainer.config import OptimizerConfig, ParallelConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.data import Batch
from gristmill.trainer.gradients import (
    clear_gradients,
    gradient_norm,
    gradients_of,
    scale_gradients,
    sum_gradients,
)
from gristmill.trainer.grid import Grid, Ranks, make_grid
from gristmill.trainer.guard import Guard
from gristmill.trainer.model import Transformer, initialize, resolve
from gristmill.trainer.optimizer import make_optimizer
from gristmill.trainer.router import collect_routing
from gristmill.trainer.sharding import local_part, shard_model
from gristmill.trainer.step import accumulate, start_step

SMALL: dict[str, Any] = {
    "num_layers": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "ffn_size": 64,
    "vocab_multiple": 64,
}
EXPERTS: dict[str, Any] = SMALL | {"num_kv_heads": 2, "num_experts": 4, "expert_ffn_size": 32}
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
    "bert": (
        ModelConfig(
            **SMALL,
            causal=False,
            norm="layer",
            norm_position="after",
            embedding_norm=True,
            token_types=2,
            positions="learned",
            max_positions=20,
            activation="gelu_exact",
            biases=True,
        ),
        250,
    ),
    "modernbert": (
        ModelConfig(
            **SMALL,
            causal=False,
            norm="layer_without_bias",
            embedding_norm=True,
            activation="geglu",
            local_window=4,
            rope_theta=1000.0,
        ),
        250,
    ),
    "qwen3": (
        ModelConfig(**SMALL, num_kv_heads=2, head_size=12, query_key_norm=True, biases=True),
        250,
    ),
    "experts": (ModelConfig(**EXPERTS, balance_bias_rate=0.05, init_std=0.2), 128),
    "experts_loss": (
        ModelConfig(
            **EXPERTS,
            num_shared_experts=2,
            router_score="sigmoid",
            balance="loss",
            balance_loss_weight=0.3,
            router_z_loss_weight=0.1,
            init_std=0.1,
        ),
        128,
    ),
}
SAMPLES, LENGTH = 8, 16
DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def layout(name: str) -> tuple[ParallelConfig, str]:
    """Return the layout that e.g. `tp2-sp-full` or `tp1-ep2-hybrid2-float32` names, and a dtype."""
    config, dtype = ParallelConfig(), "float64"
    for word in name.split("-"):
        digits = word.lstrip("abcdefghijklmnopqrstuvwxyz")
        kind = word.removesuffix(digits)
        changes: dict[str, dict[str, Any]] = {
            "tp": {"tensor_parallel_size": int(digits or 1)},
            "ep": {"expert_parallel_size": int(digits or 1)},
            "sp": {"sequence_parallel": True},
            "full": {"shard": "full"},
            "muon": {},  # see `main`
            "hybrid": {"shard": "hybrid", "shard_size": int(digits or 1)},
        }
        if word in DTYPES:
            dtype = word
        else:
            config = dataclasses.replace(config, **changes[kind])
    return config, dtype


def batch(vocab_size: int, rank: int = 0, copies: int = 1) -> Batch:
    """Return one copy's share of a batch with masked labels, one sample masked whole."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(0, vocab_size, (SAMPLES, LENGTH + 1), generator=generator)
    mask = torch.rand(SAMPLES, LENGTH, generator=generator) < 0.7
    mask[2] = False
    share = slice(rank * SAMPLES // copies, (rank + 1) * SAMPLES // copies)
    mask = mask[share]
    return Batch(ids[share, :-1], ids[share, 1:], mask, int(mask.sum()))


def build(
    name: str, grid: Grid, dtype: torch.dtype = torch.float64, sequence_parallel: bool = False
) -> Transformer:
    config, vocab_size = MODELS[name]
    with torch.device("meta"):
        model = Transformer(
            resolve(config),
            vocab_size,
            grid.tensor,
            dtype,
            expert=grid.expert,
            sequence_parallel=sequence_parallel,
        )
    shard_model(model, grid, torch.device("cpu"))
    initialize(model, seed=3)
    return model


Part = tuple[tuple[int, ...], torch.Tensor]


def parts(state: CheckpointState, prefix: str) -> dict[str, Part]:
    """Return by name what this rank holds of the tensors of a kind, after where it begins."""
    found = {}
    for key, value in state.tensors(0).items():
        if key.startswith(prefix):
            start: tuple[int, ...] = (0,) * value.dim()
            if isinstance(value, DTensor):
                mesh, cuts = value.device_mesh, value.placements
                _, start = compute_local_shape_and_global_offset(value.shape, mesh, cuts)
                value = value.to_local()
            found[key.removeprefix(prefix)] = (start, value.detach().clone())
    return found


def step(model: Transformer, optimizer: Any, data: Batch, grid: Grid, micro_batch_size: int) -> Any:
    return start_step(
        model,
        optimizer,
        data,
        grid,
        Guard(OptimizerConfig(spike_factor=0), torch.device("cpu")),
        micro_batch_size=micro_batch_size,
        learning_rate=1e-2,
        clip_norm=0.5,
    ).read()


def compute(
    name: str,
    grid: Grid,
    micro_batch_size: int = 2,
    dtype: str = "float64",
    sequence_parallel: bool = False,
    kind: Literal["adamw", "muon"] = "adamw",
) -> dict[str, Any]:
    """Return loss, norm and gradients of one batch, and weights before and after two steps.

    Of all tensors: what this rank holds, and where it begins in the whole.
    """
    device = torch.device("cpu")
    model = build(name, grid, DTYPES[dtype], sequence_parallel)
    data = batch(model.vocab_size, grid.data.rank, grid.data.size)
    optimizer = make_optimizer(model, OptimizerConfig(), grid)
    state = CheckpointState(model, optimizer, grid)
    initial = parts(state, "weight.")
    accumulate(model, data, micro_batch_size, device)
    gradients = gradients_of(model)
    sum_gradients(model, gradients, grid)
    norm = gradient_norm(model, gradients, grid)
    num_tokens = grid.data.sum(torch.tensor(float(data.num_valid), dtype=torch.float64))
    scale_gradients(list(gradients.values()), norm, num_tokens, clip_norm=0)
    # Moments lie as gradients do: in their place it is known where the gradients lie.
    for key, moment in state.tensors(0).items():
        if key.startswith("mean."):
            local_part(moment).copy_(gradients[key.removeprefix("mean.")])
    found = parts(state, "mean.")
    optimizer = make_optimizer(model, OptimizerConfig(kind=kind), grid)
    state = CheckpointState(model, optimizer, grid)
    clear_gradients(model)
    collect_routing(model, grid.data)
    steps = [step(model, optimizer, data, grid, micro_batch_size) for _ in range(2)]
    routing = steps[0].routing
    return {
        "loss": [step.loss for step in steps],
        "norm": [step.gradient_norm for step in steps],
        "tokens": steps[0].num_tokens,
        "routing": None if routing is None else torch.cat([r.flatten() for r in routing]),
        "initial": initial,
        "gradients": found,
        "weights": parts(state, "weight."),
    }


def resume(name: str, grid: Grid, folder: Path, steps: int, **kind: Any) -> dict[str, Any]:
    """Load a checkpoint after `steps` steps, if there are any, take another, save in `folder`.

    Returns the step's loss and this rank's part of everything that was saved.
    """
    model = build(name, grid, **kind)
    data = batch(model.vocab_size, grid.data.rank, grid.data.size)
    optimizer = make_optimizer(model, OptimizerConfig(), grid)
    state = CheckpointState(model, optimizer, grid)
    if steps:
        before = FileSystemReader(folder / str(steps))
        load(state.tensors(steps), storage_reader=before, no_dist=state.in_one_process)
    loss = step(model, optimizer, data, grid, 2).loss
    after = FileSystemWriter(folder / str(steps + 1))
    save(state.tensors(steps + 1), storage_writer=after, no_dist=state.in_one_process)
    return {"loss": loss, "state": parts(state, "")}


def losses(tensor: Ranks) -> dict[str, Any]:
    """Return nll and gradient of cross-entropies; the logits are the hidden states themselves."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 64, (12,), generator=generator)
    columns = 64 // tensor.size
    first = tensor.rank * columns
    weight = torch.eye(64, dtype=torch.float64)[first : first + columns]
    results: dict[str, Any] = {}
    for case in ("ordinary", "extreme", "all_masked", "foreign_labels"):
        logits = torch.randn(12, 64, generator=generator, dtype=torch.float64)
        mask = torch.arange(12) % 3 != 0
        if case == "extreme":
            logits = logits * 1e4
        if case == "all_masked":
            mask = torch.zeros(12, dtype=torch.bool)
        here = labels.masked_fill(~mask, 9999) if case == "foreign_labels" else labels
        logits.requires_grad_()
        total = summed_nll(logits, weight, here, mask, tensor, first, chunk_tokens=5)
        (3 * total).backward()
        assert logits.grad is not None
        results[case] = {
            "nll": token_nll(logits, weight, here, mask, tensor, first, chunk_tokens=5),
            "total": total.detach(),
            "gradient": tensor.sum(logits.grad),
            "logits": logits.detach(),
            "labels": labels,
            "mask": mask,
        }
    return results


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    for word in sys.argv[2:]:
        name, _, models = word.partition(":")
        if models.startswith("resume"):
            steps = int(models.removeprefix("resume"))
            parallel, _ = layout(name)
            kind = {"sequence_parallel": parallel.sequence_parallel}
            chain = Path(sys.argv[1]) / "chain"
            found = resume("experts", make_grid(parallel), chain, steps, **kind)
            torch.save(found, chain / f"{name}-rank{dist.get_rank()}.pt")
            continue
        parallel, dtype = layout(name)
        grid = make_grid(parallel)
        results: dict[str, Any] = {
            model: compute(
                model,
                grid,
                2,
                dtype,
                parallel.sequence_parallel,
                "muon" if name.endswith("muon") else "adamw",
            )
            for model in models.split(",")
        }
        results["losses"] = losses(grid.tensor)
        torch.save(results, Path(sys.argv[1]) / f"{name}-rank{dist.get_rank()}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
