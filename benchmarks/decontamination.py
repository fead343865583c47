"""Search for evaluation data on one core: ours beside datatrove, in turn, on the same documents.

Usage: python benchmarks/decontamination.py FILE.jsonl[.zst] [--peer-python PYTHON]

Passages of every tenth document are the evaluation data, and every fifth of the others gets one of
them: both must find these. Prints the speed of the search (index made before, matches written down;
process CPU time), with the evaluation data of the file and with a million windows more, the ratio,
and the documents about which the two differ. datatrove comes from `make peers`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill import kernels
from gristmill.pipeline.config import CleanConfig
from gristmill.pipeline.contamination_matches import match_rows
from gristmill.pipeline.decontamination_config import EvaluationConfig
from gristmill.pipeline.evaluation_files import find_evaluations
from gristmill.pipeline.evaluation_index import (
    EvaluationIndex,
    IndexArguments,
    window_weights,
    write_index,
)
from gristmill.pipeline.formats import compression_of
from gristmill.pipeline.lines import read_lines
from gristmill.pipeline.text_column import text_arrays

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv-peers" / "bin" / "python"
SCRIPT = Path(__file__).parent / "peers" / "datatrove_decontamination.py"
WORDS = 12  # datatrove's default
REPEATS = 3
TIMED_BYTES = 1_500_000
MANY_WINDOWS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--peer-python", type=Path, default=PEER)
    options = parser.parse_args()
    evaluation, texts = make_input(read_texts(options.file))
    num_bytes = sum(len(text.encode()) for text in texts)
    print(f"{len(texts)} documents, {num_bytes / 1e6:.2f} MB; {len(evaluation)} evaluation rows")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "evaluation.jsonl", evaluation)
        write(folder / "texts.jsonl", texts)
        small = make_index(folder, [])
        rng = np.random.default_rng(0)
        words = rng.integers(0, 30_000, (MANY_WINDOWS // 100, 111))
        large = make_index(folder, [" ".join(f"w{n}" for n in row) for row in words.tolist()])
        removed = search(texts, small)[1]
        ours, many, theirs, peer_removed = [], [], [], None
        for _ in range(REPEATS):
            ours.append(search(texts, small)[0])
            many.append(search(texts, large)[0])
            if options.peer_python.exists():
                found = run_peer(options.peer_python, folder)
                theirs.append(found["seconds"])
                peer_removed = found["removed"]
    for label, seconds in ((f"{len(small.windows):,}", ours), (f"{len(large.windows):,}", many)):
        rate = num_bytes / statistics.median(seconds) / 1e6
        print(f"gristmill, {label} windows  {rate:8.1f} MB/s")
    if peer_removed is None:
        print("datatrove is not installed: make peers")
        return
    ratio = statistics.median(their / our for our, their in zip(ours, theirs, strict=True))
    print(f"datatrove  {num_bytes / statistics.median(theirs) / 1e6:8.2f} MB/s")
    print(f"ratio      {ratio:8.1f} (median of {REPEATS} pairs)")
    print(f"found: {sum(removed)} and {sum(peer_removed)}; ", end="")
    differ = [n for n, (a, b) in enumerate(zip(removed, peer_removed, strict=True)) if a != b]
    print(f"they differ about {len(differ)} documents: {differ[:20]}")


def read_texts(path: Path) -> list[str]:
    texts = []
    for block in read_lines(path, compression_of(str(path))):
        texts += [json.loads(line)["text"] for line in block.data.split(b"\n") if line]
    return texts


def make_input(texts: list[str]) -> tuple[list[str], list[str]]:
    """Return evaluation rows, and documents of which some hold one: about TIMED_BYTES."""
    evaluation = [text[2_000:2_400] for text in texts[::10] if len(text) > 3_000]
    documents: list[str] = []
    size = 0
    for number, text in enumerate(text for n, text in enumerate(texts) if n % 10):
        text = text[:20_000]
        if number % 5 == 0:
            middle = len(text) // 2
            row = evaluation[number % len(evaluation)]
            text = f"{text[:middle]}\n{row}\n{text[middle:]}"
        documents.append(text)
        size += len(text)
        if size > TIMED_BYTES:
            break
    return evaluation, documents


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def make_index(folder: Path, more: list[str]) -> EvaluationIndex:
    write(folder / "more.jsonl", more or ["nothing more"])
    paths = (str(folder / "evaluation.jsonl"), str(folder / "more.jsonl"))
    files = tuple(find_evaluations([EvaluationConfig(path=paths, name="benchmark")]))
    index = folder / f"index-{len(more)}"
    arguments = IndexArguments(
        files=files, words=WORDS, short_words=8, clean=CleanConfig(), index=index
    )
    write_index(arguments)
    return EvaluationIndex.load(index)


def search(texts: list[str], index: EvaluationIndex) -> tuple[float, list[bool]]:
    data, offsets = text_arrays(pa.array(texts, pa.large_string()))
    lengths = index.shorts["length"].astype(np.int64)
    wanted = (index.windows, index.anchors, index.wholes, lengths)
    started = time.process_time()
    hits = kernels.find_windows(data, offsets, *window_weights(WORDS, 8), *wanted)
    matches = match_rows(hits, index)
    seconds = time.process_time() - started
    removed = np.zeros(len(texts), np.bool_)
    removed[matches.documents] = True
    return seconds, removed.tolist()


def run_peer(python: Path, folder: Path) -> dict[str, object]:
    names = (str(folder / name) for name in ("evaluation.jsonl", "texts.jsonl"))
    command = [str(python), str(SCRIPT), *names, str(WORDS)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
