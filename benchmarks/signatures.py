"""Text to MinHash signatures on one core: ours beside the peers, in turn, on the same documents.

Usage: python benchmarks/signatures.py FILE.jsonl[.zst] (default: the English part of the demo
corpus). datatrove and rensa come from `make peers`; without them only our figure is printed.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.kernels import band_keys
from gristmill.pipeline.formats import compression_of
from gristmill.pipeline.lines import read_lines
from gristmill.pipeline.text_column import text_arrays

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "runs" / "demo-corpus"
PEER = ROOT / ".venv-peers" / "bin" / "python"
PEERS = ("datatrove", "rensa")
NUM_BYTES = 1_000_000
REPEATS = 5


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else next(DEFAULT.glob("*wiki*/*eng*.jsonl"))
    texts = read_texts(path)
    num_bytes = sum(len(text.encode()) for text in texts)
    print(f"{path.name}: {len(texts)} documents, {num_bytes / 1e6:.2f} MB, one core")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    data, offsets = text_arrays(pa.array(texts, pa.large_string()))
    band_keys(data, offsets)

    ours: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in PEERS}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        file.flush()
        for _ in range(REPEATS):  # in turn, so that both see the same machine
            ours.append(time_ours(data, offsets))
            if PEER.exists():
                for name in PEERS:
                    theirs[name].append(time_peer(name, file.name))
    seconds = statistics.median(ours)
    print(f"gristmill  {num_bytes / seconds / 1e6:8.2f} MB/s")
    if not PEER.exists():
        print("the peers are not installed: make peers")
        return
    for name, times in theirs.items():
        ratios = [their / our for our, their in zip(ours, times, strict=True)]
        speed = num_bytes / statistics.median(times) / 1e6
        ratio = statistics.median(ratios)
        print(f"{name:<10} {speed:8.2f} MB/s, ratio {ratio:.1f} (median of {REPEATS} pairs)")


def read_texts(path: Path) -> list[str]:
    """Return texts of the file, up to NUM_BYTES bytes."""
    texts, num_bytes = [], 0
    for block in read_lines(path, compression_of(str(path))):
        for line in block.data.split(b"\n"):
            texts.append(json.loads(line)["text"])
            num_bytes += len(texts[-1].encode())
            if num_bytes >= NUM_BYTES:
                return texts
    return texts


def time_ours(data: np.ndarray, offsets: np.ndarray) -> float:
    """Return seconds of one pass: the median of ten."""
    times = []
    for _ in range(10):
        started = time.perf_counter()
        band_keys(data, offsets)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def time_peer(name: str, path: str) -> float:
    """Return seconds of one pass of a peer, in its own process on the same core."""
    script = Path(__file__).parent / "peers" / f"{name}_signatures.py"
    done = subprocess.run(
        [str(PEER), str(script), path, "1"], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
