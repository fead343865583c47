"""Language identification of short texts: decoder and encoders, pretrained alike, beside counts.

    python benchmarks/encoders.py --corpus ../shared/corpora/dev --data runs/one-hour/data \\
        --output runs/encoders --steps 300 [--decoder runs/one-hour/dense]

Pretrains a Llama-style decoder, a BERT-style and a ModernBERT-style encoder of the same width and
depth on the same samples in the same order, for the same number of steps; fine-tunes each on
pieces of text with the name of their language (documents are either in training or in the test);
and trains a linear model on hashed byte n-grams of the same pieces. `--decoder` adds a run that was
trained for longer. What is done is not done again.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import torch
import zstandard

from gristmill.trainer import PretrainConfig, pretrain
from gristmill.trainer.classifier import FACTS
from gristmill.trainer.classifying import ClassifierSettings, train_classifier
from gristmill.trainer.config import (
    CheckpointConfig,
    DataConfig,
    EvaluateConfig,
    GenerateConfig,
    LogConfig,
    OptimizerConfig,
    ParallelConfig,
    ScheduleConfig,
    TrainingConfig,
)
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.report import read_report

MODELS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "bert": {
        "causal": False,
        "norm": "layer",
        "norm_position": "after",
        "embedding_norm": True,
        "token_types": 2,
        "positions": "learned",
        "activation": "gelu_exact",
        "biases": True,
    },
    "modernbert": {
        "causal": False,
        "norm": "layer_without_bias",
        "embedding_norm": True,
        "activation": "geglu",
        "local_window": 64,
        "rope_theta": 160_000.0,
    },
}
FEATURE_BITS, LONGEST_NGRAM = 18, 4
NORMS_AFTER_RATE = 0.25
"""Share of the learning rate for norms after: at all of it BERT's loss jumps after 60 steps."""


def write_pieces(corpus: Path, output: Path, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Write pieces of the documents of each language, of disjoint documents for each side."""
    paths = output / "train.jsonl", output / "test.jsonl"
    wanted = arguments.train_pieces, arguments.test_pieces
    if all(path.is_file() for path in paths):
        return paths
    lines: tuple[list[str], list[str]] = [], []
    for file in sorted(corpus.glob("*.jsonl.zst")):
        chance = random.Random(zlib.crc32(file.name.encode()))
        documents: tuple[list[str], list[str]] = [], []
        with file.open("rb") as stream:
            reader = zstandard.ZstdDecompressor().stream_reader(stream)
            for line in io.TextIOWrapper(reader, encoding="utf-8"):
                text = " ".join(json.loads(line)["text"].split())
                if len(text) > 2 * arguments.characters:
                    documents[zlib.crc32(text.encode()) % 3 == 0].append(text)
        if min(map(len, documents)) < 5:
            continue
        label = file.name.removesuffix(".jsonl.zst")
        for side, count in enumerate(wanted):
            for _ in range(count):
                text = chance.choice(documents[side])
                start = chance.randrange(len(text) - arguments.characters)
                piece = text[start : start + arguments.characters]
                lines[side].append(json.dumps({"text": piece, "label": label}))
    for path, some in zip(paths, lines, strict=True):
        path.write_text("\n".join(some) + "\n", encoding="utf-8")
    return paths


def pretrained(name: str, arguments: argparse.Namespace) -> tuple[Path, float]:
    """Return the run of a model, and the minutes that it took."""
    run = Path(arguments.output) / name
    note = run / "minutes.json"
    if not note.is_file():
        sizes: dict[str, Any] = {
            "num_layers": arguments.layers,
            "hidden_size": arguments.width,
            "num_heads": arguments.width // 32,
        }
        rate = arguments.pretrain_rate * (NORMS_AFTER_RATE if name == "bert" else 1.0)
        config = PretrainConfig(
            model=ModelConfig(**sizes, **MODELS[name]),
            data=DataConfig(path=arguments.data, sequence_length=arguments.sequence_length),
            optimizer=OptimizerConfig(learning_rate=rate),
            schedule=ScheduleConfig(warmup_steps=arguments.steps // 10),
            training=TrainingConfig(
                num_steps=arguments.steps,
                global_batch_size=16,
                micro_batch_size=8,
                device="cpu",
                precision="float32",
            ),
            parallel=ParallelConfig(threads_per_rank=1),  # CPU minutes without waiting
            checkpoint=CheckpointConfig(every_steps=50),
            evaluate=EvaluateConfig(final_max_windows=4),
            log=LogConfig(tensorboard=False, every_steps=25),
            generate=GenerateConfig(max_tokens=0),
        )
        start = time.process_time()
        if not pretrain(config, output=run).finished:
            sys.exit("stopped; the same command goes on")
        note.write_text(json.dumps((time.process_time() - start) / 60))
    return run, float(json.loads(note.read_text()))


def fine_tuned(
    name: str, run: Path, sides: tuple[Path, Path], arguments: argparse.Namespace
) -> Any:
    folder = Path(arguments.output) / f"classifier-{name}"
    if not folder.is_dir():
        settings = ClassifierSettings(
            epochs=arguments.epochs, learning_rate=arguments.learning_rate, max_tokens=96
        )
        train_classifier(
            run,
            [sides[0]],
            folder,
            validation=[sides[1]],
            settings=settings,
            device=torch.device("cpu"),
        )
    return json.loads((folder / FACTS).read_bytes())


def features(text: str) -> list[int]:
    """Return hashed byte n-grams of 1 to 4 bytes, each as often as it occurs."""
    data = text.encode()
    return [
        zlib.crc32(data[i : i + n]) & ((1 << FEATURE_BITS) - 1)
        for n in range(1, LONGEST_NGRAM + 1)
        for i in range(len(data) - n + 1)
    ]


def linear(sides: tuple[Path, Path], epochs: int = 20) -> tuple[float, float]:
    """Return accuracy and macro accuracy of logistic regression on means of byte n-grams."""
    read = [[json.loads(line) for line in p.read_text("utf-8").splitlines()] for p in sides]
    labels = sorted({row["label"] for row in read[0]})
    bags = [[torch.tensor(features(row["text"])) for row in side] for side in read]
    targets = [torch.tensor([labels.index(row["label"]) for row in side]) for side in read]
    torch.manual_seed(0)
    weights = torch.nn.EmbeddingBag(1 << FEATURE_BITS, len(labels), mode="mean", sparse=True)
    torch.nn.init.zeros_(weights.weight)
    optimizer = torch.optim.SparseAdam(weights.parameters(), lr=0.1)

    def scores(side: int, rows: list[int]) -> torch.Tensor:
        some = [bags[side][row] for row in rows]
        offsets = torch.tensor([0, *(len(bag) for bag in some[:-1])]).cumsum(0)
        found: torch.Tensor = weights(torch.cat(some), offsets)
        return found

    chance = random.Random(0)
    for _ in range(epochs):
        order = list(range(len(bags[0])))
        chance.shuffle(order)
        for first in range(0, len(order), 64):
            rows = order[first : first + 64]
            loss = torch.nn.functional.cross_entropy(scores(0, rows), targets[0][rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        found = scores(1, list(range(len(bags[1])))).argmax(dim=1)
    right = (found == targets[1]).double()
    by_label = [right[targets[1] == n].mean() for n in range(len(labels))]
    return float(right.mean()), float(torch.stack(by_label).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="folder of LANGUAGE.jsonl.zst")
    parser.add_argument("--data", required=True, help="folder of train/ and validation/ prefixes")
    parser.add_argument("--output", required=True)
    parser.add_argument("--decoder", default="", help="a run of a decoder that was trained longer")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--steps", type=int, default=300, help="of 16 samples")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--train-pieces", type=int, default=60, help="of each language")
    parser.add_argument("--test-pieces", type=int, default=40)
    parser.add_argument("--characters", type=int, default=60, help="of a piece")
    parser.add_argument("--epochs", type=float, default=4)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--pretrain-rate", type=float, default=2e-3)
    arguments = parser.parse_args()
    output = Path(arguments.output)
    output.mkdir(parents=True, exist_ok=True)
    sides = write_pieces(Path(arguments.corpus), output, arguments)
    rows: list[tuple[str, str, str, str, str]] = []
    note = output / "linear.json"
    if not note.is_file():
        note.write_text(json.dumps(linear(sides)))
    share, macro = json.loads(note.read_text())
    name = f"linear, hashed n-grams of 1 to {LONGEST_NGRAM} bytes"
    rows.append((name, "", "", f"{100 * share:.1f} %", f"{100 * macro:.1f} %"))
    runs = {name: pretrained(name, arguments) for name in arguments.models}
    for name, (run, minutes) in runs.items():
        total = (read_report(run) or {})["total"]
        against = f"{total['bits_per_byte']:.2f} ({total['unigram_bits_per_byte']:.2f})"
        facts = fine_tuned(name, run, sides, arguments)
        shares = (f"{100 * facts[key]:.1f} %" for key in ("accuracy", "macro_accuracy"))
        rows.append((name, f"{minutes:.1f}", against, *shares))
    if arguments.decoder:
        facts = fine_tuned("longer", Path(arguments.decoder), sides, arguments)
        shares = (f"{100 * facts[key]:.1f} %" for key in ("accuracy", "macro_accuracy"))
        rows.append((f"decoder, {facts['model_from']}", "", "", *shares))
    print("| model | CPU minutes of pretraining | bits a byte (unigram) | accuracy | by language |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
