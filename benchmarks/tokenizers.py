"""Text to ids on one core: our engine beside `tokenizers` 0.23.3, 1.0.0rc3 and gigatoken.

Usage: python benchmarks/tokenizers.py [--corpus FOLDER] [--tokenizers FOLDER] [--names a,b]
           [--megabytes 100] [--repeats 2] [--groups mix,en,...] [--portable]

Documents of about 4 KB, mixed by language, and languages by themselves; a first pass with an empty
memory and a later one. Libraries take turns, each in a process of its own on one pinned core, and
CPU time counts. The peers come from `make peers`. The same hash of all ids is asked of all of them,
and a difference is said in the table that is printed last (Markdown).

`tokenizers` 0.23.3 is slow, and as slow in a long text as in a short one, so it is timed once, on a
part of the mix, and its MB/s there stand for the mix; ids are compared on that part. Languages are
timed in the first repeat only. Of the tokenizers, `unigram` is trained here, on the mix.
`--portable` adds our engine as it is compiled for any x86-64 (no AVX, no crc32).
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
import time
from pathlib import Path

import numpy as np
import zstandard

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
WORKER = Path(__file__).parent / "peers" / "tokenizer_passes.py"
OURS, PORTABLE, OLD = "gristmill", "gristmill portable", "tokenizers 0.23.3"
LIBRARIES = {
    OURS: Path(sys.executable),
    PORTABLE: Path(sys.executable),
    "gigatoken": ROOT / ".venv-peers-next" / "bin" / "python",
    "tokenizers 1.0.0rc3": ROOT / ".venv-peers-next" / "bin" / "python",
    OLD: Path(sys.executable),
}
NAMES = "gpt2,llama3,qwen3,gptoss,deepseek_v3,llama2,gemma3,bert_minilm,unigram"
SCRIPTS = ("en", "fr", "ru", "ar", "hi", "ko", "zh", "ja", "th")
DOCUMENT_BYTES = 4000
SCRIPT_BYTES = 5_000_000
SLOW_BYTES = 4_000_000
UNIGRAM_BYTES, UNIGRAM_SIZE = 2_000_000, 16_000

Runs = dict[str, list[dict[str, list]]]
"""Library -> what the worker printed, of each repeat."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, default=SHARED / "corpora" / "dev")
    parser.add_argument("--tokenizers", type=Path, default=SHARED / "tokenizers")
    parser.add_argument("--peers", type=Path, help="the peers' environment, if it is elsewhere")
    parser.add_argument("--names", default=NAMES)
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--groups", default=",".join(("mix", *SCRIPTS)))
    parser.add_argument("--libraries", default=",".join(set(LIBRARIES) - {PORTABLE}))
    parser.add_argument("--portable", action="store_true")
    arguments = parser.parse_args()
    if not arguments.corpus.is_dir() or not arguments.tokenizers.is_dir():
        print(f"needs {arguments.corpus} and {arguments.tokenizers}: name others with --corpus")
        return
    asked = {OURS, *arguments.libraries.split(","), *([PORTABLE] if arguments.portable else [])}
    chosen = {name: python for name, python in LIBRARIES.items() if name in asked}
    if arguments.peers:
        peers = arguments.peers / "bin" / "python"
        chosen |= {name: peers for name in chosen if ".venv-peers" in str(chosen[name])}
    for name in [name for name, python in chosen.items() if not python.exists()]:
        print(f"{name} is not installed: make peers")
        del chosen[name]
    groups = arguments.groups.split(",")
    rows: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        documents = Path(folder) / "documents.npz"
        sizes = write_documents(arguments.corpus, int(arguments.megabytes * 1e6), groups, documents)
        for name in arguments.names.split(","):
            path = Path(folder) / f"{name}.json"
            if name == "unigram":
                train_unigram(documents, path)
            else:
                packed = (arguments.tokenizers / f"{name}.json.zst").read_bytes()
                path.write_bytes(zstandard.ZstdDecompressor().stream_reader(packed).read())
            runs: Runs = {library: [] for library in chosen}
            refused: dict[str, str] = {}
            for repeat in range(arguments.repeats):  # in turn, so that all see the same machine
                for library, python in chosen.items():
                    if library in refused or (library == OLD and repeat):
                        continue
                    again = [group for group in groups if group == "mix"]
                    wanted = (
                        ["slow"] if library == OLD else (again if repeat else [*groups, "slow"])
                    )
                    start = time.monotonic()
                    run, error = time_library(python, library, path, documents, wanted)
                    print(
                        f"{name}: {library}, {time.monotonic() - start:.0f} s {error}", flush=True
                    )
                    if error:
                        refused[library] = error
                    else:
                        runs[library].append(run)
            rows += table_rows(name, runs, refused, sizes)
    print("\nFirst / later pass: ours in MB/s, then how many times the speed of each peer.\n")
    titles = ["tokenizer", "text", "MB", *chosen]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    print("\n".join(rows))


def train_unigram(documents: Path, path: Path) -> None:
    """Write a Unigram tokenizer of the mix; none is among those shared."""
    here = str(Path(__file__).parent)
    sys.path[:] = [place for place in sys.path if place != here]  # where this file has its name
    import tokenizers

    with np.load(documents) as arrays:
        data, offsets = arrays["slow.data"], arrays["slow.offsets"]
    last = int(np.searchsorted(offsets, UNIGRAM_BYTES))
    texts = [bytes(data[offsets[i] : offsets[i + 1]]).decode() for i in range(last)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=UNIGRAM_SIZE, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))


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
) -> tuple[dict[str, list], str]:
    """Return (what the worker printed, "" or why there is nothing)."""
    environment = os.environ | {
        "PYTHONSAFEPATH": "1",  # this file is called like the library
        "TOKENIZERS_PARALLELISM": "false",
        "RAYON_NUM_THREADS": "1",
    }
    if library == PORTABLE:
        environment |= {
            "NUMBA_CPU_NAME": "x86-64",
            "NUMBA_CPU_FEATURES": "",
            "GRISTMILL_CACHE_DIR": str(path.parent / "portable"),
        }
    asked = library.removesuffix(" portable")
    command = [str(python), str(WORKER), asked, str(path), str(documents), ",".join(groups)]
    if hasattr(os, "sched_getaffinity"):
        command = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        said = [line for line in lines if "rror" in line or "panic" in line] or lines
        return {}, f"does not read it: {said[-1][:120]}"
    return json.loads(done.stdout.splitlines()[-1]), ""


def table_rows(name: str, runs: Runs, refused: dict[str, str], sizes: dict[str, int]) -> list[str]:
    """Return a row for each group: our speed, and the ratio to each library (median of pairs)."""
    rows = []
    old = runs.get(OLD) or []
    for group, size in sizes.items():
        ours = [run[group] for run in runs[OURS] if group in run]
        if group == "slow" or not ours:
            continue
        speeds = [size / 1e6 / statistics.median(run[i] for run in ours) for i in (0, 1)]
        cells = [name, group, f"{size / 1e6:.0f}", f"{speeds[0]:.0f} / {speeds[1]:.0f}"]
        for library, results in runs.items():
            if library == OURS:
                continue
            found = [run[group] for run in results if group in run]
            if library in refused:
                cells.append(refused[library] if group == "mix" else "")
            elif library == OLD and group == "mix" and old:
                theirs = [sizes["slow"] / 1e6 / old[0]["slow"][i] for i in (0, 1)]
                same = old[0]["slow"][2:] == runs[OURS][0]["slow"][2:]
                cells.append(_ratios([speeds[i] / theirs[i] for i in (0, 1)], same))
            elif found:
                pairs = list(zip(found, ours, strict=False))
                same = found[0][2:] == ours[0][2:]
                ratios = [statistics.median(t[i] / o[i] for t, o in pairs) for i in (0, 1)]
                cells.append(_ratios(ratios, same))
            else:
                cells.append("")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _ratios(ratios: list[float], same: bool) -> str:
    return f"{ratios[0]:.2f} / {ratios[1]:.2f}" + ("" if same else ", OTHER IDS")


if __name__ == "__main__":
    main()
