"""Text to ids on one core: our engine beside `tokenizers` 0.23.3, 1.0.0rc3 and gigatoken.

Usage: python benchmarks/tokenizers.py [--corpus FOLDER] [--tokenizers FOLDER] [--names a,b]
           [--megabytes 100] [--repeats 3]

Documents of about 4 KB, mixed by language, and languages by themselves; a first pass with an empty
memory and a later one. Libraries take turns, each in a process of its own on one pinned core, and
CPU time counts. The peers come from `make peers`. The same hash of all ids is asked of all of them,
and a difference is printed. `tokenizers` 0.23.3 is slow, so it sees a part of the mix only.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import zstandard

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
WORKER = Path(__file__).parent / "peers" / "tokenizer_passes.py"
LIBRARIES = {
    "gristmill": Path(sys.executable),
    "gigatoken": ROOT / ".venv-peers-next" / "bin" / "python",
    "tokenizers 1.0.0rc3": ROOT / ".venv-peers-next" / "bin" / "python",
    "tokenizers 0.23.3": Path(sys.executable),
}
SCRIPTS = ("en", "fr", "ru", "ar", "hi", "ko", "zh", "ja", "th")
DOCUMENT_BYTES = 4000
SCRIPT_BYTES = 5_000_000
SLOW_BYTES = 4_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, default=SHARED / "corpora" / "dev")
    parser.add_argument("--tokenizers", type=Path, default=SHARED / "tokenizers")
    parser.add_argument("--names", default="gpt2,llama3,qwen3,gptoss,deepseek_v3")
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--groups", default=",".join(("mix", *SCRIPTS)))
    parser.add_argument("--libraries", default=",".join(LIBRARIES))
    arguments = parser.parse_args()
    if not arguments.corpus.is_dir() or not arguments.tokenizers.is_dir():
        print(f"needs {arguments.corpus} and {arguments.tokenizers}: name others with --corpus")
        return
    chosen = {name: LIBRARIES[name] for name in arguments.libraries.split(",")}
    for name in [name for name, python in chosen.items() if not python.exists()]:
        print(f"{name} is not installed: make peers")
        del chosen[name]
    groups = arguments.groups.split(",")
    with tempfile.TemporaryDirectory() as folder:
        documents = Path(folder) / "documents.npz"
        sizes = write_documents(arguments.corpus, int(arguments.megabytes * 1e6), groups, documents)
        for name in arguments.names.split(","):
            path = Path(folder) / f"{name}.json"
            packed = (arguments.tokenizers / f"{name}.json.zst").read_bytes()
            path.write_bytes(zstandard.ZstdDecompressor().stream_reader(packed).read())
            runs: dict[str, list[dict]] = {library: [] for library in chosen}
            for _ in range(arguments.repeats):  # in turn, so that all see the same machine
                for library, python in chosen.items():
                    slow = library.endswith("0.23.3")
                    if slow and runs[library]:
                        continue
                    asked = ["slow"] if slow else [*groups, "slow"]
                    run = time_library(python, library, path, documents, asked)
                    if run:
                        runs[library].append(run)
            report(name, runs, sizes)


def write_documents(corpus: Path, mix_bytes: int, groups: list[str], path: Path) -> dict[str, int]:
    """Write groups of documents as arrays; return the bytes of each group."""
    by_language: dict[str, list[bytes]] = {}
    for file in sorted(corpus.glob("*.jsonl.zst")):
        pieces = by_language.setdefault(file.name.split(".")[0], [])
        with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            for line in io.TextIOWrapper(stream, "utf-8"):
                text = json.loads(line)["text"].encode()
                while text:
                    end = min(DOCUMENT_BYTES, len(text))
                    while end < len(text) and text[end] & 0xC0 == 0x80:
                        end -= 1
                    pieces.append(text[:end])
                    text = text[end:]
    arrays, sizes = {}, {}
    everything = [piece for pieces in by_language.values() for piece in pieces]
    random.Random(1).shuffle(everything)
    wanted = {"mix": (everything, mix_bytes), "slow": (everything, SLOW_BYTES)}
    wanted |= {script: (by_language.get(script, []), SCRIPT_BYTES) for script in SCRIPTS}
    for group in [*groups, "slow"]:
        pieces, limit = wanted[group]
        taken, size = [], 0
        for piece in pieces:
            if size >= limit:
                break
            taken.append(piece)
            size += len(piece)
        arrays[f"{group}.data"] = np.frombuffer(b"".join(taken), np.uint8)
        arrays[f"{group}.offsets"] = np.cumsum([0, *map(len, taken)], dtype=np.int64)
        sizes[group] = size
    np.savez(path, **arrays)
    return sizes


def time_library(
    python: Path, library: str, path: Path, documents: Path, groups: list[str]
) -> dict[str, list]:
    environment = os.environ | {
        "PYTHONSAFEPATH": "1",  # this file is called like the library
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": "1",
    }
    command = [str(python), str(WORKER), library, str(path), str(documents), ",".join(groups)]
    if hasattr(os, "sched_getaffinity"):
        command = ["taskset", "-c", str(min(os.sched_getaffinity(0))), *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{library}: {done.stderr.strip().splitlines()[-1] if done.stderr else 'failed'}")
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def report(name: str, runs: dict[str, list[dict]], sizes: dict[str, int]) -> None:
    """Print MB/s of each library, first / later pass, and ours against each (median of pairs)."""
    print(f"\n{name}: MB/s, first pass / later pass (ratio of ours to it)")
    ours = runs["gristmill"]
    groups = list(sizes)
    for group in groups:
        digests = {library: run[0][group][3] for library, run in runs.items() if run and group in run[0]}
        cells = []
        for library, results in runs.items():
            results = [run for run in results if group in run]
            if not results:
                continue
            speeds = [sizes[group] / 1e6 / statistics.median(r[group][i] for r in results) for i in (0, 1)]
            cell = f"{library} {speeds[0]:.1f} / {speeds[1]:.1f}"
            if library != "gristmill" and ours:
                ratios = [
                    statistics.median(r[group][i] / o[group][i] for r, o in zip(results, ours, strict=False))
                    for i in (0, 1)
                ]
                same = "" if digests[library] == digests["gristmill"] else ", OTHER IDS"
                cell += f" ({ratios[0]:.2f} / {ratios[1]:.2f}{same})"
            cells.append(cell)
        print(f"  {group:5} {sizes[group] / 1e6:6.1f} MB  " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()
