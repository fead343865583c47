"""Tokens per second of training: ours, nanoGPT with torch.compile, the Hugging Face Trainer.

All train the same GPT-2 on the same tokens with the same threads and number format, one process
each (`ours_tp2`, `ours_dp2`: two tensor-parallel or data-parallel ranks with half of the threads
each), in turn, round after round; what is printed are medians of the rounds and of each round's
ratio. Loading the data, clipping and the optimizer are inside the measured time; compilation and
the first steps are not.

nanoGPT is one file, which `make nanogpt` fetches, or GRISTMILL_NANOGPT names its folder. The
Hugging Face Trainer comes with the extra `test`.
Usage: python benchmarks/trainer.py [--precision bfloat16] [--threads 2] [--only ours,nanogpt]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
CONTENDERS = ("ours", "ours_compiled", "ours_tp2", "ours_dp2", "nanogpt", "hugging_face")
NUM_TOKENS = 2_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="steps of a round")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only", default=",".join(CONTENDERS))
    sizes = {"layers": 6, "width": 384, "heads": 6, "vocabulary": 8192, "length": 256, "batch": 16}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_data(Path(folder), arguments.vocabulary)
        compare(vars(arguments) | {"folder": folder})


def write_data(folder: Path, vocabulary: int) -> None:
    """Write tokens with the frequencies of words (Zipf), as indexed dataset and as nanoGPT's."""
    from gristmill.indexed_dataset import IndexedDatasetBuilder

    random = np.random.default_rng(0)
    share = 1 / np.arange(1, vocabulary)
    tokens = 1 + random.choice(vocabulary - 1, NUM_TOKENS, p=share / share.sum())
    tokens[::1000] = 0
    builder = IndexedDatasetBuilder(folder / "data" / "train" / "all", vocab_size=vocabulary)
    for document in np.split(tokens, np.arange(1000, NUM_TOKENS, 1000)):
        builder.add_document(document)
    builder.finalize(eod_id=0, document_order="shuffled", split="train", group="all")
    tokens.astype(np.uint16).tofile(folder / "train.bin")


def compare(arguments: dict[str, object]) -> None:
    workers: dict[str, subprocess.Popen[str]] = {}
    for name in str(arguments["only"]).split(","):
        worker = subprocess.Popen(
            [sys.executable, str(HERE / "trainer_contenders.py"), name, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(arguments["threads"])},
        )
        ready = worker.stdout.readline()
        if ready.startswith("ready"):
            workers[name] = worker
            print(f"{name:<15} {ready.strip()}", flush=True)
        else:
            print(f"{name:<15} not measured: {ready.strip()}", flush=True)
    speeds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(int(arguments["rounds"])):
        for name, worker in workers.items():
            worker.stdin.write("go\n")
            worker.stdin.flush()
            speeds[name].append(float(worker.stdout.readline()))
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()
    first = next(iter(speeds))
    for name, found in speeds.items():
        ratios = [a / b for a, b in zip(speeds[first], found, strict=True)]
        print(
            f"{name:<15} {statistics.median(found):>9,.0f} tokens/s   "
            f"{first} is {statistics.median(ratios):.2f}x of it "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
