"""A few million parameters, trained for an hour on two cores, beside n-grams of the same text.

    python benchmarks/one_hour.py --corpus ../shared/corpora/dev --output runs/one-hour
    python benchmarks/one_hour.py --corpus texts --output runs/try --minutes 3     # a short one

Preprocesses the corpus, measures this machine's tokens a second, trains for so many minutes, and
counts interpolated Kneser-Ney 2-, 3- and 4-grams of exactly the tokens that the training consumed.
All are scored on the same validation tokens, in bits per byte of each language.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

from gristmill.trainer import pretrain
from gristmill.trainer.config import (
    CheckpointConfig,
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    LogConfig,
    OptimizerConfig,
    ParallelConfig,
    PretrainConfig,
    ScheduleConfig,
    TrainingConfig,
)
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.data import open_data
from gristmill.trainer.metrics import read_metrics
from gristmill.trainer.ngrams import NgramModels, consumed_rows, score_ngrams
from gristmill.trainer.resolved import resolve_config

PROBE_STEPS = 8
ORDERS = (2, 3, 4)


def settings(arguments: argparse.Namespace, num_steps: int) -> PretrainConfig:
    return PretrainConfig(
        model=ModelConfig(
            preset=arguments.preset,
            num_experts=arguments.experts,
            experts_per_token=arguments.experts_per_token,
            expert_ffn_size=arguments.expert_ffn_size,
        ),
        data=DataConfig(
            path=str(Path(arguments.output) / "data"), sequence_length=arguments.sequence_length
        ),
        optimizer=OptimizerConfig(learning_rate=arguments.learning_rate),
        schedule=ScheduleConfig(kind="wsd", warmup_steps=min(100, num_steps // 10)),
        training=TrainingConfig(
            num_steps=num_steps,
            global_batch_size=arguments.batch_size,
            micro_batch_size=arguments.batch_size // 2,
            device="cpu",
        ),
        parallel=ParallelConfig(threads_per_rank=arguments.threads),
        checkpoint=CheckpointConfig(every_steps=max(50, num_steps // 10)),
        evaluate=EvaluateConfig(final_max_windows=arguments.max_windows),
        log=LogConfig(tensorboard=False),
        generate=GenerateConfig(max_tokens=0),
    )


def preprocess(arguments: argparse.Namespace) -> None:
    words = [sys.executable, "-P", "-m", "gristmill.cli", "preprocess"]
    words += [str(path) for path in sorted(Path(arguments.corpus).glob("*.jsonl*"))]
    words += ["--output", arguments.output]
    words += ["--tokenizer.vocab-size", str(arguments.vocab_size)]
    subprocess.run(words, check=True)


def measured_steps(arguments: argparse.Namespace) -> int:
    """Return the steps that fit into the minutes, by a short training of the same shape."""
    probe = settings(arguments, PROBE_STEPS)
    probe = dataclasses.replace(probe, evaluate=dataclasses.replace(probe.evaluate, enabled=False))
    folder = Path(arguments.output) / f"probe-{arguments.name}"
    pretrain(probe, output=folder)
    speeds = sorted(record["tokens_per_second"] for record in read_metrics(folder))
    per_step = arguments.batch_size * arguments.sequence_length
    return max(20, int(60 * arguments.minutes * speeds[len(speeds) // 2] / per_step))


def table(arguments: argparse.Namespace, config: PretrainConfig, report: dict) -> str:  # type: ignore[type-arg]
    config = resolve_config(config)
    data = open_data(config, Path(arguments.output))
    samples = config.training.num_steps * config.training.global_batch_size
    models = NgramModels(consumed_rows(data.blend, samples), data.vocab_size, max(ORDERS))
    wins = dict.fromkeys(ORDERS, 0)
    lines = [
        f"bits per byte on validation; every model has seen the same {report['consumed_tokens']:,} "
        "tokens",
        f"{'group':<14}{'model':>8}" + "".join(f"{f'{n}-gram':>9}" for n in ORDERS),
    ]
    for name, score in report["languages"].items():
        bits = [
            score_ngrams(models, data.validation[name], order)[0]
            / math.log(2)
            / score["text_bytes"]
            for order in ORDERS
        ]
        for order, value in zip(ORDERS, bits, strict=True):
            wins[order] += score["bits_per_byte"] < value
        lines.append(
            f"{name:<14}{score['bits_per_byte']:8.3f}" + "".join(f"{value:9.3f}" for value in bits)
        )
    count = len(report["languages"])
    lines.append(
        "the model is better than the "
        + ", ".join(f"{n}-gram in {won} of {count}" for n, won in wins.items())
    )
    return "\n".join(lines)


def main(words: list[str] | None = None) -> str:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", required=True, help="folder of .jsonl files")
    parser.add_argument("--output", required=True)
    parser.add_argument("--name", default="dense", help="folder of this training in the output")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--steps", type=int, default=0, help="instead of --minutes")
    parser.add_argument("--preset", default="llama-3m")
    parser.add_argument("--experts", type=int, default=0)
    parser.add_argument("--experts-per-token", type=int, default=2)
    parser.add_argument("--expert-ffn-size", type=int, default=0)
    parser.add_argument("--vocab-size", type=int, default=16_384)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--max-windows", type=int, default=0,
        help="of each validation group, scored at the end; 0: all, and n-gram models beside",
    )  # fmt: skip
    arguments = parser.parse_args(words)
    preprocess(arguments)  # what is done is not done again
    steps = arguments.steps or measured_steps(arguments)
    config = settings(arguments, steps)
    folder = Path(arguments.output) / arguments.name
    report = dict(pretrain(config, output=folder).report)
    (folder / "one_hour.json").write_text(json.dumps({"steps": steps}), encoding="utf-8")
    if arguments.max_windows:
        return f"{report['total']['bits_per_byte']:.3f} bits per byte"
    text = table(arguments, config, report)
    (folder / "ngrams.txt").write_text(text + "\n", encoding="utf-8")
    return text


if __name__ == "__main__":
    sys.stdout.write(main() + "\n")
