"""What one rank works with while it trains, in one place, and how that is saved and scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .checkpoint import Facts
from .checkpoint_writer import Checkpointer
from .config import PretrainConfig
from .data import TrainingData
from .evaluate import Evaluation, evaluate, load_token_bytes
from .grid import Grid
from .guard import Guard
from .metrics import MetricsLog
from .model import Transformer
from .optimizer import Optimizers
from .schedule import BatchSizes


@dataclass(slots=True)
class Training:
    """One rank's model and data, and how far the training has come."""

    config: PretrainConfig
    output: Path
    device: torch.device
    grid: Grid
    data: TrainingData
    model: Transformer
    optimizer: Optimizers
    guard: Guard
    checkpointer: Checkpointer
    log: MetricsLog | None
    sizes: BatchSizes
    step: int
    skipped_steps: int

    @property
    def consumed_samples(self) -> int:
        """Samples of the blend that the steps so far have taken."""
        return self.sizes.first_sample(self.step)

    def save(self, *, wait: bool = True) -> Path:
        """Write a checkpoint of this moment.

        Args:
            wait: until it is on disk; else it is written while the training goes on, if the
                config says so.
        """
        facts = Facts(
            step=self.step,
            consumed_samples=self.consumed_samples,
            config=self.config,
            vocab_size=self.data.vocab_size,
            data=self.data.state(self.consumed_samples),
            skipped_steps=self.skipped_steps,
            guard=self.guard.state(),
            layout={
                "tensor": self.grid.tensor.size,
                "data": self.grid.data.size,
                "expert": self.grid.expert.size,
                "shard": self.grid.shard.size,
            },
        )
        settings = self.config.checkpoint
        folder = self.checkpointer.save(facts, self.data.tokenizer_folder, settings.keep_last)
        if wait or not settings.asynchronous:
            self.checkpointer.wait()
        return folder

    def evaluate(self, max_windows: int, unigram: Any = None) -> Evaluation:
        """Score the validation sets and log it."""
        settings, data = self.config.evaluate, self.data
        token_bytes = load_token_bytes(data.tokenizer_folder, data.vocab_size - data.num_added_ids)
        # Other shapes than those of a step are not worth a compilation.
        with torch.compiler.set_stance("eager_on_recompile"):
            evaluation = evaluate(
                self.model,
                data.validation,
                self.grid,
                batch_size=settings.batch_size or self.config.training.micro_batch_size,
                max_windows=max_windows,
                token_bytes=token_bytes,
                unigram_nll=unigram,
                masking=data.masking,
            )
        if self.log is not None:
            values = {"loss": evaluation.total.loss}
            values |= {f"loss/{name}": score.loss for name, score in evaluation.groups.items()}
            for name, score in {"total": evaluation.total, **evaluation.groups}.items():
                if score.bits_per_byte is not None:
                    values[f"bits_per_byte/{name}"] = score.bits_per_byte
            self.log.log_evaluation(self.step, values)
        return evaluation
