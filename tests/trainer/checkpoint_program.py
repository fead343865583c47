"""A short training that is killed in a named phase of its second checkpoint; run as a script.

Usage: checkpoint_program.py DATA OUTPUT PHASE; PHASE `none` trains to the end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.trainer import checkpoint_writer, pretrain
from gristmill.trainer.config import (
    CheckpointConfig,
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    LogConfig,
    ParallelConfig,
    PretrainConfig,
    ScheduleConfig,
    TrainingConfig,
)
from gristmill.trainer.config_model import ModelConfig

PHASES = ("copied", "half_written", "written", "named", "pruned")
STEPS, EVERY = 6, 2


def config(data: str) -> PretrainConfig:
    return PretrainConfig(
        model=ModelConfig(num_layers=1, hidden_size=16, num_heads=2, ffn_size=32),
        data=DataConfig(path=data, sequence_length=16),
        schedule=ScheduleConfig(warmup_steps=2),
        training=TrainingConfig(
            num_steps=STEPS, global_batch_size=4, micro_batch_size=4, device="cpu"
        ),
        parallel=ParallelConfig(threads_per_rank=1),
        checkpoint=CheckpointConfig(every_steps=EVERY, keep_last=1),
        evaluate=EvaluateConfig(enabled=False),
        log=LogConfig(tensorboard=False),
        generate=GenerateConfig(max_tokens=0),
    )


def die_at(phase: str) -> None:
    """Kill this process, for good, in the given phase of the second checkpoint."""
    counts: dict[str, int] = {}

    def on_second_call(name: str, before: bool) -> None:
        real: Callable[..., Any] = getattr(checkpoint_writer, name)

        def called(*arguments: Any, **named: Any) -> Any:
            counts[name] = counts.get(name, 0) + 1
            if before and counts[name] == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **named)
            if counts[name] == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(checkpoint_writer, name, called)

    if phase == "copied":
        on_second_call("FileSystemWriter", before=True)
    elif phase == "half_written":
        on_second_call("FileSystemWriter", before=False)
    elif phase == "written":
        on_second_call("save", before=False)
    elif phase == "named":
        on_second_call("_finish", before=False)
    elif phase == "pruned":
        on_second_call("_prune", before=False)


if __name__ == "__main__":
    die_at(sys.argv[3])
    pretrain(config(sys.argv[1]), output=Path(sys.argv[2]))
