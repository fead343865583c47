"""Merging prefixes beside copying their bytes: wall clock and memory, ours and `cp` in turns.

    .venv/bin/python benchmarks/merge.py --gigabytes 10 --folder /a/disk/with/room

Each round writes the same bytes twice, both times with everything that has to reach the disk:
`cp --reflink=never` of all .bin files, followed by `sync -f`; and `merge` into one prefix. Whatever
runs first in one round runs second in the next. Prints medians, their ratio, and the largest memory
that the merging process held.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gristmill.indexed_dataset import IndexedDatasetBuilder, merge

MERGE = "--merge-only"


def write_inputs(folder: Path, num_bytes: int, num_prefixes: int) -> list[Path]:
    """Write prefixes of random ids in documents of about 1,000 tokens, none a whole block long."""
    random = np.random.default_rng(0)
    prefixes = []
    for number in range(num_prefixes):
        prefix = folder / f"part{number:02d}"
        left = num_bytes // 2 // num_prefixes + 12_345 * number
        with IndexedDatasetBuilder(prefix, vocab_size=50_000) as builder:
            while left:
                lengths = random.integers(1, 2000, size=20_000)
                lengths = lengths[np.cumsum(lengths) <= left]
                lengths = lengths if len(lengths) else np.array([left])
                tokens = random.integers(0, 50_000, size=int(lengths.sum()), dtype=np.uint16)
                builder.add_documents(tokens, lengths)
                left -= len(tokens)
            builder.finalize(eod_id=0)
        prefixes.append(prefix)
    return prefixes


def copy(prefixes: list[Path], folder: Path) -> float:
    started = time.perf_counter()
    subprocess.run(
        ["cp", "--reflink=never", *(f"{prefix}.bin" for prefix in prefixes), str(folder)],
        check=True,
    )
    subprocess.run(["sync", "-f", str(folder)], check=True)
    return time.perf_counter() - started


def merge_in_a_process(prefixes: list[Path], folder: Path) -> tuple[float, float]:
    """Return seconds and the most memory held, in MB; the process reports both."""
    command = [sys.executable, __file__, MERGE, str(folder / "merged"), *map(str, prefixes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--prefixes", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=None, help="default: the system's temporary folder")
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"cp": [], "merge": []}
    memory = 0.0
    with tempfile.TemporaryDirectory(prefix="gristmill-merge-", dir=arguments.folder) as name:
        root = Path(name)
        prefixes = write_inputs(root, int(arguments.gigabytes * 1e9), arguments.prefixes)
        size = sum(Path(f"{prefix}.bin").stat().st_size for prefix in prefixes) / 1e9
        for number in range(arguments.rounds):
            for which in ("cp", "merge") if number % 2 == 0 else ("merge", "cp"):
                output = root / "output"
                output.mkdir()
                subprocess.run(["sync", "-f", str(root)], check=True)
                if which == "cp":
                    times[which].append(copy(prefixes, output))
                else:
                    seconds, megabytes = merge_in_a_process(prefixes, output)
                    times[which].append(seconds)
                    memory = max(memory, megabytes)
                shutil.rmtree(output)
    for which, seconds_of in times.items():
        rows = ", ".join(f"{seconds:.2f}" for seconds in seconds_of)
        print(f"{which:6} {statistics.median(seconds_of):7.2f} s of {size:.2f} GB ({rows})")
    ratio = statistics.median(times["merge"]) / statistics.median(times["cp"])
    print(f"merge / (cp --reflink=never; sync -f) = {ratio:.2f}, memory {memory:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == [MERGE]:
        begun = time.perf_counter()
        merge(sys.argv[3:], sys.argv[2])
        spent = time.perf_counter() - begun
        print(spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    else:
        main()
