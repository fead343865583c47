"""Training speed on one GPU: GPT-2 124M and Llama 1.2B in bfloat16, ours beside nanoGPT.

One command for a machine that has a GPU: python benchmarks/gpu_trainer.py
It writes random tokens, trains GPT-2 124M (T = 1,024) here and in nanoGPT (`make nanogpt`), each
compiled, in turn; then a Llama of 1.2 billion parameters (T = 4,096) through `gristmill pretrain`
itself, and prints tokens per second, MFU and peak memory, and last the goals for one H100.
`--smoke` runs all of it on a CPU with tiny models, to see that it works.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH keeps it out

import trainer as comparison

GOALS = {"GPT-2 124M": 462_000, "Llama 1.2B": 46_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--gpt2-batch", type=int, default=64)
    parser.add_argument("--llama-batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    if not arguments.smoke and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --smoke tries the script on the CPU")
    device = "cpu" if arguments.smoke else torch.cuda.get_device_name()
    print(f"device: {device}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        gpt2(Path(folder) / "gpt2", arguments)
        llama(Path(folder) / "llama", arguments)
    for name, goal in GOALS.items():
        print(f"goal on one H100: {name} {goal:,} tokens/s")


def gpt2(folder: Path, arguments: argparse.Namespace) -> None:
    sizes = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50_304, "length": 1024}
    settings: dict[str, Any] = {
        "precision": "bfloat16",
        "threads": 8,
        "rounds": 5,
        "steps": arguments.steps // 4,
        "device": "cuda",
        "clock": "wall",
        "only": "ours_compiled,nanogpt",
        "batch": arguments.gpt2_batch,
        "folder": str(folder),
    } | sizes
    if arguments.smoke:
        tiny = {"layers": 2, "width": 64, "heads": 2, "vocabulary": 512, "length": 64, "batch": 2}
        settings |= tiny | {"device": "cpu", "threads": 1, "rounds": 1, "steps": 1, "only": "ours"}
    print("GPT-2 124M, T = 1,024, bfloat16", flush=True)
    comparison.write_data(folder, settings["vocabulary"])
    comparison.compare(settings)


def llama(folder: Path, arguments: argparse.Namespace) -> None:
    from gristmill.trainer import PretrainConfig, pretrain
    from gristmill.trainer.config_model import ModelConfig
    from gristmill.trainer.metrics import read_metrics

    vocabulary = 512 if arguments.smoke else 32_000
    comparison.write_data(folder, vocabulary)
    model = ModelConfig(
        num_layers=16, hidden_size=2048, num_heads=32, num_kv_heads=8, ffn_size=8192
    )
    length, batch, steps, device = 4096, arguments.llama_batch, arguments.steps, "cuda"
    if arguments.smoke:
        model = ModelConfig(num_layers=2, hidden_size=64, num_heads=2, num_kv_heads=1, ffn_size=128)
        length, batch, steps, device = 64, 2, 4, "cpu"
    config = PretrainConfig(model=model)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, path=str(folder / "data"), sequence_length=length),
        training=dataclasses.replace(
            config.training,
            num_steps=steps,
            global_batch_size=batch,
            micro_batch_size=batch,
            precision="bfloat16",
            device=device,
            deterministic=False,
        ),
        schedule=dataclasses.replace(config.schedule, warmup_steps=2),
        checkpoint=dataclasses.replace(config.checkpoint, every_steps=0),
        evaluate=dataclasses.replace(config.evaluate, enabled=False),
        generate=dataclasses.replace(config.generate, max_tokens=0),
        log=dataclasses.replace(config.log, tensorboard=False),
    )
    print("Llama 1.2B, T = 4,096, bfloat16", flush=True)
    pretrain(config, output=folder / "run")
    records = read_metrics(folder / "run")[steps // 2 :]  # compiled and warm
    speed = statistics.median(record["tokens_per_second"] for record in records)
    mfu = statistics.median(record.get("mfu", 0.0) for record in records)
    memory = max(record["peak_memory_bytes"] for record in records)
    print(
        f"ours            {speed:>9,.0f} tokens/s   "
        + (f"MFU {100 * mfu:.1f} %   " if mfu else "")
        + f"{memory / 1e9:.1f} GB"
    )


if __name__ == "__main__":
    main()
