"""Exact and near dedup on one core, from Parquet to a verdict for each document, beside datatrove.

Usage: python benchmarks/dedup.py FILE.jsonl[.zst] ... (default: the English part of the demo
corpus), up to 24 MB of text. A tenth of the documents is added once more, half of them with a few
words exchanged. datatrove (of `make peers`) reads the same Parquet file and runs its four stages:
signatures, buckets, clusters, filter. CPU seconds are compared, of one process each; start-up and
compilation are not counted. Ours is given twice: dedup alone, from the documents that cleaning
wrote, and the command `gristmill dedup` as a whole, cleaning and writing kept documents included.
"""

from __future__ import annotations

import io
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from gristmill.pipeline import PreprocessConfig, dedup, dedup_files
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.formats import compression_of
from gristmill.pipeline.lines import read_lines
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.stage import read_markers

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ROOT / "runs" / "demo-corpus"
PEER = ROOT / ".venv-peers" / "bin" / "python"
NUM_BYTES = 24_000_000
REPEATS = 3


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted(DEFAULT.glob("*wiki*/*eng*.jsonl"))
    rng = random.Random(0)
    texts = read_texts(paths)
    copies = [rng.choice(texts) for _ in range(len(texts) // 10)]
    texts += [text if rng.random() < 0.5 else exchange(rng, text) for text in copies]
    rng.shuffle(texts)
    num_bytes = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {num_bytes / 1e6:.1f} MB of text")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "in" / "corpus.parquet"
        path.parent.mkdir()
        rows = {"text": texts, "id": [str(number) for number in range(len(texts))]}
        pq.write_table(pa.table(rows), path, row_group_size=5000)
        whole, alone = [], []
        for repeat in range(REPEATS + 1):
            times = time_ours(path, folder / f"out{repeat}")
            if repeat:  # the first run loads and compiles
                whole.append(times[0])
                alone.append(times[1])
        print(f"gristmill, dedup alone    {num_bytes / statistics.median(alone) / 1e6:8.2f} MB/s")
        print(f"gristmill dedup, whole    {num_bytes / statistics.median(whole) / 1e6:8.2f} MB/s")
        if not PEER.exists():
            print("datatrove is not installed: make peers")
            return
        script = Path(__file__).parent / "peers" / "datatrove_clusters.py"
        command = [str(PEER), str(script), str(path), str(folder / "peer")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        stages = json.loads(done.stdout.splitlines()[-1])
        seconds = sum(stages.values())
        print(f"datatrove, four stages    {num_bytes / seconds / 1e6:8.2f} MB/s  {stages}")
        print(f"ratio, dedup alone        {seconds / statistics.median(alone):8.1f}")
        print(f"ratio, whole command      {seconds / statistics.median(whole):8.1f}")


def read_texts(paths: list[Path]) -> list[str]:
    """Return texts of the files, up to NUM_BYTES bytes."""
    texts, num_bytes = [], 0
    for path in paths:
        for block in read_lines(path, compression_of(str(path))):
            for line in filter(None, block.data.split(b"\n")):
                texts.append(json.loads(line)["text"])
                num_bytes += len(texts[-1].encode())
                if num_bytes >= NUM_BYTES:
                    return texts
    return texts


def exchange(rng: random.Random, text: str) -> str:
    """Exchange one word in two hundred."""
    words = text.split(" ")
    for place in rng.sample(range(len(words)), len(words) // 200):
        words[place] = f"word{rng.randrange(10**6)}"
    return " ".join(words)


def time_ours(path: Path, output: Path) -> tuple[float, float]:
    """Return CPU seconds of the whole command, and of dedup alone."""
    started = time.process_time()
    dedup_files([str(path)], output, workers=1, console=Console(file=io.StringIO()))
    whole = time.process_time() - started
    clean = read_markers(output / "work" / "clean")
    for name in ("keys", "exact", "components", "verify", "verdicts"):
        for marker in (output / "work" / name).glob("*.json"):
            marker.unlink()  # so that every stage of dedup runs again
    with LocalExecutor(1) as executor:
        started = time.process_time()
        dedup.run(PreprocessConfig(), output, clean, executor, Progress(quiet=True))
        return whole, time.process_time() - started


if __name__ == "__main__":
    main()
