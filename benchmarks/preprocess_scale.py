"""Preprocess by size of the input: generated text in 30 languages, two cores, time and memory.

Usage: python benchmarks/preprocess_scale.py [GB ...] [--folder FOLDER] (default: 1 2 5 10)

Documents are put together at random, by a fixed seed, from pieces of 8 to 24 words of real text
(`--pieces`, corpora/dev by default: one .jsonl.zst a language); one in twenty is a copy of one
written before it, one in twenty a near copy (three pieces of 30 differ). Each size is a folder of
JSON lines, a file a language, and a run of the command with default settings in a new folder.
Columns:

- seconds, CPU: wall time of the run, CPU time of all its processes; both a GB of text too: the
  same for all sizes if time is linear;
- memory: largest resident set that any one of its processes had; disk: of the output folder at its
  largest, sampled.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import zstandard

SHARED = Path(__file__).parents[2] / "shared"
POOL_BYTES = 3_000_000
"""Real text of each language that pieces are cut from."""
PIECES = 30
KEPT_DOCUMENTS = 1000
"""Documents that a copy is made of: the last so many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", nargs="*", type=float, default=[1, 2, 5, 10], metavar="GB")
    parser.add_argument("--folder", default=None, help="where files are written, then removed")
    parser.add_argument("--pieces", default=str(SHARED / "corpora" / "dev"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stages", action="store_true", help="seconds of each stage too")
    options = parser.parse_args()
    pools = {
        path.name.split(".")[0]: pieces_of(path)
        for path in sorted(Path(options.pieces).glob("*.jsonl.zst"))
        if len(path.name.split(".")[0]) == 2
    }
    print(
        f"{'text GB':>8}{'documents':>12}{'seconds':>9}{'a GB':>7}{'CPU':>9}{'a GB':>7}"
        f"{'MB/s':>7}{'memory MB':>11}{'disk GB':>9}  kept"
    )
    for size in options.sizes:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            print(measure(pools, size, Path(name), options), flush=True)


def pieces_of(path: Path) -> list[str]:
    """Return pieces of a language's text, as they stand in JSON."""
    pieces: list[str] = []
    size, chance = 0, random.Random(path.name)
    with path.open("rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), "utf-8")
        for line in lines:
            words = json.loads(line)["text"].split()
            first = 0
            while first < len(words):
                last = first + chance.randint(8, 24)
                # Scripts without spaces have words as long as sentences.
                piece = " ".join(words[first:last])[:150]
                pieces.append(json.dumps(piece, ensure_ascii=False)[1:-1])
                size += len(pieces[-1])
                first = last
            if size > POOL_BYTES:
                break
    return pieces


def write_texts(pools: dict[str, list[str]], num_bytes: float, folder: Path) -> tuple[int, int]:
    """Write about so many bytes of text; return documents and bytes of text."""
    folder.mkdir()
    documents = total = 0
    for language, pool in pools.items():
        chance, last, written = random.Random(language), [], 0
        with (folder / f"{language}.jsonl").open("w", encoding="utf-8") as file:
            while written < num_bytes / len(pools):
                kind = chance.random()
                if kind < 0.1 and last:
                    pieces = list(last[chance.randrange(len(last))])
                    for _ in range(3 if kind < 0.05 else 0):
                        pieces[chance.randrange(len(pieces))] = chance.choice(pool)
                else:
                    pieces = chance.choices(pool, k=chance.randint(PIECES // 2, 2 * PIECES))
                if len(last) < KEPT_DOCUMENTS:
                    last.append(pieces)
                else:
                    last[chance.randrange(KEPT_DOCUMENTS)] = pieces
                text = " ".join(pieces)
                file.write(f'{{"text": "{text}", "language": "{language}"}}\n')
                written += len(text.encode())
                documents += 1
        total += written
    return documents, total


def measure(
    pools: dict[str, list[str]], size: float, folder: Path, options: argparse.Namespace
) -> str:
    """Write texts of a size and run the command; return the line of the table."""
    documents, text_bytes = write_texts(pools, size * 1e9, folder / "in")
    output = folder / "out"
    command = [
        str(Path(sys.executable).with_name("gristmill")), "preprocess", str(folder / "in"),
        "--output", str(output), "--workers", str(options.workers),
    ]  # fmt: skip
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (folder / "errors").open("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        with watch(process.pid, output) as peak:
            process.wait()
        seconds = time.perf_counter() - started
        if process.returncode:
            errors.seek(0)
            sys.exit(errors.read()[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report = json.loads((output / "report.json").read_text())["total"]
    if report["documents_in"] != documents:
        sys.exit(f"{documents} documents were written, {report['documents_in']} were read")
    if options.stages:
        for stage in json.loads((output / "work/log/status.json").read_text())["stages"]:
            print(f"  {stage['name']:<16}{stage['ended'] - stage['started']:>8.1f} s")
    gigabytes = text_bytes / 1e9
    return (
        f"{gigabytes:>8.2f}{documents:>12,}{seconds:>9.1f}{seconds / gigabytes:>7.1f}{cpu:>9.1f}"
        f"{cpu / gigabytes:>7.1f}{text_bytes / seconds / 1e6:>7.1f}{peak['memory'] / 1e6:>11,.0f}"
        f"{peak['disk'] / 1e9:>9.2f}  {report['kept'] / documents:.3f}"
    )


@contextlib.contextmanager
def watch(root: int, folder: Path) -> Iterator[dict[str, int]]:
    """Sample the memory of a process and of those below it, and a folder; yield the peaks."""
    peak, stop = {"memory": 0, "disk": 0}, threading.Event()

    def sample() -> None:
        while not stop.wait(0.5):
            for process in processes_below(root):
                with contextlib.suppress(OSError, IndexError):
                    status = Path(f"/proc/{process}/status").read_text()
                    highest = 1024 * int(status.split("VmHWM:")[1].split()[0])
                    peak["memory"] = max(peak["memory"], highest)
            with contextlib.suppress(OSError):
                peak["disk"] = max(peak["disk"], folder_bytes(folder))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def processes_below(root: int) -> list[int]:
    """Return a process and its descendants."""
    found, new = [root], [root]
    while new:
        process = new.pop()
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                children = [int(word) for word in (task / "children").read_text().split()]
                found += children
                new += children
    return found


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


if __name__ == "__main__":
    main()
