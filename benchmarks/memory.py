"""Peak memory of a training step beside `gristmill pretrain --plan`'s estimate of it.

Each shape and mode of activation checkpointing trains a few steps in a process of its own, whose
largest resident memory is measured. Linux only.

Usage: python benchmarks/memory.py [--only llama,mixture] [--steps 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODES = ("none", "selective", "full")
GPT2: dict[str, Any] = {
    "norm": "layer",
    "positions": "learned",
    "activation": "gelu",
    "biases": True,
}
SHAPES: dict[str, dict[str, Any]] = {
    # name -> model, vocabulary, samples of a micro-batch, their length, number format, optimizer
    "gpt2": {
        "model": {"num_layers": 6, "hidden_size": 384, "num_heads": 6, **GPT2},
        "vocabulary": 8192,
        "batch": 8,
        "length": 256,
    },
    "llama": {
        "model": {"num_layers": 8, "hidden_size": 512, "num_heads": 8, "num_kv_heads": 2},
        "vocabulary": 16384,
        "batch": 4,
        "length": 512,
    },
    "large_vocabulary": {
        "model": {"num_layers": 4, "hidden_size": 256, "num_heads": 4, "tied_embeddings": False},
        "vocabulary": 65536,
        "batch": 4,
        "length": 512,
    },
    "many_layers": {
        "model": {"num_layers": 24, "hidden_size": 192, "num_heads": 6},
        "vocabulary": 4096,
        "batch": 8,
        "length": 128,
    },
    "mixture": {
        "model": {
            "num_layers": 4,
            "hidden_size": 256,
            "num_heads": 4,
            "num_experts": 8,
            "experts_per_token": 2,
            "expert_ffn_size": 384,
        },
        "vocabulary": 8192,
        "batch": 8,
        "length": 256,
    },
    "bfloat16": {
        "model": {"num_layers": 6, "hidden_size": 384, "num_heads": 6},
        "vocabulary": 8192,
        "batch": 8,
        "length": 256,
        "precision": "bfloat16",
    },
    "muon": {
        "model": {"num_layers": 6, "hidden_size": 384, "num_heads": 6},
        "vocabulary": 8192,
        "batch": 4,
        "length": 256,
        "optimizer": "muon",
    },
}


def measure(case: dict[str, Any]) -> dict[str, float]:
    """Return the estimated parts and the measured peak of a case, in a process of its own."""
    words = [sys.executable, "-P", __file__, "--case", json.dumps(case)]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(found.stderr[-2000:])
    answer: dict[str, float] = json.loads(found.stdout.splitlines()[-1])
    return answer


def take_steps(case: dict[str, Any]) -> dict[str, float]:
    """Train in this process."""
    import numpy as np

    from gristmill.indexed_dataset import IndexedDatasetBuilder
    from gristmill.trainer.config import (
        DataConfig,
        EvaluateConfig,
        LogConfig,
        OptimizerConfig,
        ParallelConfig,
        PretrainConfig,
        TrainingConfig,
    )
    from gristmill.trainer.config_model import ModelConfig
    from gristmill.trainer.data import Batches
    from gristmill.trainer.launch import rank
    from gristmill.trainer.memory import estimate_memory
    from gristmill.trainer.recipe import _set_up
    from gristmill.trainer.resolved import resolve_config
    from gristmill.trainer.step import start_step

    vocabulary, batch, length = case["vocabulary"], case["batch"], case["length"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        builder = IndexedDatasetBuilder(folder / "data/train/all", vocab_size=vocabulary)
        random = np.random.default_rng(0)
        for _ in range(20):
            builder.add_document(random.integers(0, vocabulary, 5000))
        builder.finalize(eod_id=0, document_order="shuffled", split="train", group="all")
        config = resolve_config(
            PretrainConfig(
                model=ModelConfig(**case["model"]),
                data=DataConfig(path=str(folder / "data"), sequence_length=length),
                optimizer=OptimizerConfig(kind=case.get("optimizer", "adamw")),
                training=TrainingConfig(
                    num_steps=100,
                    global_batch_size=2 * batch,
                    micro_batch_size=batch,
                    precision=case.get("precision", "float32"),
                    device="cpu",
                    activation_checkpointing=case["mode"],
                    check_memory=False,
                ),
                parallel=ParallelConfig(threads_per_rank=case["threads"]),
                evaluate=EvaluateConfig(enabled=False),
                log=LogConfig(tensorboard=False),
            )
        )
        with rank(config) as device:
            run = _set_up(config, folder / "run", device)
            batches = Batches(run.data, run.sizes, run.grid.data, 0, 100)
            for _ in range(case["steps"]):
                start_step(
                    run.model,
                    run.optimizer,
                    batches.next(),
                    run.grid,
                    run.guard,
                    micro_batch_size=batch,
                    learning_rate=1e-3,
                    clip_norm=1.0,
                ).read()
            batches.close()
    return {**estimate_memory(config, vocabulary, 1), "measured": float(_largest_resident())}


def _largest_resident() -> int:
    # Not getrusage: what it tells begins with the size of the process that started this one.
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise LookupError("VmHWM")


def compare(only: list[str], steps: int, threads: int) -> str:
    """Return the table of the shapes in `only`, or of all."""
    lines = [f"{'':<18}{'mode':<11}{'estimate':>10}{'measured':>10}{'ratio':>7}"]
    for name, shape in SHAPES.items():
        for mode in MODES if not only or name in only else ():
            found = measure({**shape, "mode": mode, "steps": steps, "threads": threads})
            measured = found.pop("measured")
            estimate = sum(found.values())
            lines.append(
                f"{name:<18}{mode:<11}{estimate / 1e6:>7,.0f} MB{measured / 1e6:>7,.0f} MB"
                f"{estimate / measured:>7.2f}"
            )
            sys.stderr.write(
                lines[-1] + f"   { ({k: round(v / 1e6) for k, v in found.items()}) }\n"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="names of shapes, by commas")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        sys.stdout.write(json.dumps(take_steps(json.loads(arguments.case))) + "\n")
        return
    only = arguments.only.split(",") if arguments.only else []
    sys.stdout.write(compare(only, arguments.steps, arguments.threads) + "\n")


if __name__ == "__main__":
    main()
