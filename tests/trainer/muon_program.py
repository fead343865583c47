"""Two steps of Muon on every rank; run as a script. Usage: muon_program.py OUTPUT TENSOR_SIZE."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from gristmill.trainer.config import OptimizerConfig, ParallelConfig
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.data import Batch
from gristmill.trainer.grid import make_grid
from gristmill.trainer.model import Transformer, initialize, placements, resolve
from gristmill.trainer.optimizer import make_optimizer
from gristmill.trainer.step import take_step


def train(tensor_parallel_size: int) -> dict[str, tuple[torch.Tensor, object]]:
    """Return this rank's weights after two steps, with their places."""
    torch.set_num_threads(1)
    grid = make_grid(ParallelConfig(tensor_parallel_size=tensor_parallel_size))
    config = ModelConfig(
        num_layers=1, hidden_size=16, num_heads=4, num_kv_heads=2, ffn_size=32, num_experts=2
    )
    model = Transformer(resolve(config), 60, grid.tensor, torch.float64)
    initialize(model, 3)
    optimizer = make_optimizer(model, OptimizerConfig(kind="muon"))
    ids = torch.randint(0, 60, (4, 9), generator=torch.Generator().manual_seed(1))
    batch = Batch(ids[:, :-1], ids[:, 1:], torch.ones(4, 8, dtype=torch.bool), 32)
    for _ in range(2):
        take_step(
            model, optimizer, batch, grid, micro_batch_size=2, learning_rate=0.02, clip_norm=1.0
        )
    where = placements(model)
    return {name: (p.detach(), where[name]) for name, p in model.named_parameters()}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    weights = train(int(sys.argv[2]))
    torch.save(weights, Path(sys.argv[1]) / f"rank{dist.get_rank()}.pt")
    dist.destroy_process_group()
