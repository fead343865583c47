"""The whole of `gristmill preprocess`, JSONL.zst to token files, stage by stage, as a user runs it.

Usage: python benchmarks/preprocess.py [--input FOLDER] [--tokenizer tokenizer.json[.zst]]

Language identification of every document, the Gopher, C4 and FineWeb filters, exact and near dedup,
a given tokenizer (Llama-3's of the shared files by default), two workers. The command runs
`--repeats` times in folders of its own (the first run may compile: it is shown, and left out of
the median). Of each stage: wall seconds, CPU seconds of all processes, how many cores that is, and
MB/s of input text. Stages run one after the other, so the column of wall seconds is the critical
path; `start` is everything before the first stage, `between` what happens between two stages in
the main process, `end` what comes after the last. Stages shorter than a tenth of a second are added
up as `others`. `--no-filters` leaves out identification and filters.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARED = Path(__file__).parents[2] / "shared"
TICK = os.sysconf("SC_CLK_TCK")
SHORT_SECONDS = 0.1

FILTERS = """
[preprocess.clean.language]
documents = "all"

[preprocess.filters.gopher_quality]
enabled = true

[preprocess.filters.gopher_repetition]
enabled = true

[preprocess.filters.c4]
enabled = true

[preprocess.filters.fineweb]
enabled = true
"""


def main() -> None:
    """Run the command, print a table of the median run's stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", default=str(SHARED / "corpora" / "dev"))
    parser.add_argument("--tokenizer", default=str(SHARED / "tokenizers" / "llama3.json.zst"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-filters", action="store_true")
    parser.add_argument("--keep", default="", help="folder for the output, kept afterwards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.keep or name)
        folder.mkdir(parents=True, exist_ok=True)
        config = write_config(options, folder)
        runs = []
        for number in range(options.repeats + 1):
            output = folder / f"run{number}"
            stages = run(config, output)
            seconds = sum(wall for wall, _ in stages.values())
            size = text_bytes(output)
            print(f"run {number}: {seconds:.1f} s, {size / seconds / 1e6:.1f} MB/s", flush=True)
            runs.append((seconds, stages))
        counted = sorted(runs[1:] or runs, key=lambda one: one[0])
        show(counted[(len(counted) - 1) // 2][1], size)
        median = statistics.median(seconds for seconds, _ in counted)
        print(f"median of {len(counted)}: {median:.1f} s, {size / median / 1e6:.1f} MB/s of text")
        print(outcome(output))


def write_config(options: argparse.Namespace, folder: Path) -> Path:
    """Write the config file; return its path."""
    tokenizer = Path(options.tokenizer)
    if tokenizer.suffix == ".zst":
        import zstandard

        unpacked = folder / "tokenizer.json"
        content = zstandard.ZstdDecompressor().stream_reader(tokenizer.read_bytes()).read()
        unpacked.write_bytes(content)
        tokenizer = unpacked
    config = folder / "preprocess.toml"
    config.write_text(
        f"[run]\nworkers = {options.workers}\n"
        f"[[preprocess.sources]]\npath = {json.dumps(str(Path(options.input).resolve()))}\n"
        f"[preprocess.tokenizer]\npath = {json.dumps(str(tokenizer.resolve()))}\n"
        + ("" if options.no_filters else FILTERS)
    )
    return config


def run(config: Path, output: Path) -> dict[str, tuple[float, float]]:
    """Run the command; return (wall, CPU) seconds by stage, from its start to its end."""
    program = str(Path(sys.executable).with_name("gristmill"))
    command = [program, "preprocess", str(config), "--output", str(output)]
    stages: dict[str, tuple[float, float]] = {}
    lines: list[str] = []
    current, started, cpu = "start", time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None

        def close(following: str) -> None:
            nonlocal current, started, cpu
            now, cpu_now = time.perf_counter(), tree_cpu(process.pid)
            wall_before, cpu_before = stages.get(current, (0.0, 0.0))
            stages[current] = wall_before + now - started, cpu_before + max(cpu_now - cpu, 0.0)
            current, started, cpu = following, now, cpu_now

        for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            lines.append(line)
            name, _, rest = line.partition(" ")
            if " unit" in rest and "done" not in rest and "ETA" not in rest:
                close(name)
            elif name == current and rest.strip().startswith("done in"):
                close("between")
        current = "end"
        process.wait()
        close("")
    if process.returncode:
        sys.exit("\n".join(lines[-20:]))
    return stages


def tree_cpu(root: int) -> float:
    """Return CPU seconds of a process and of those below it, ended ones counted with parents."""
    parents, ticks = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                parents[int(entry)], ticks[int(entry)] = (
                    int(status[1]),
                    sum(map(int, status[11:15])),
                )
    total = 0
    for process in ticks:
        ancestor: int | None = process
        while ancestor not in (root, 0, None):
            ancestor = parents.get(ancestor)
        total += ticks[process] if ancestor == root else 0
    return total / TICK


def text_bytes(output: Path) -> int:
    """Return the bytes of text that came in, dropped documents counted in."""
    markers = (output / "work" / "clean").glob("*.json")
    rows = [row for path in markers for row in json.loads(path.read_bytes())["counts"]["rows"]]
    return sum(row[4] for row in rows)


def outcome(output: Path) -> str:
    """Return what came out, in a line: a run that drops all is fast."""
    return json.dumps(json.loads((output / "report.json").read_text())["total"])


def show(stages: dict[str, tuple[float, float]], size: int) -> None:
    """Print the table of one run."""
    print(f"{'stage':<16}{'wall s':>8}{'CPU s':>8}{'cores':>7}{'MB/s':>8}")
    others = [0.0, 0.0]
    for name, (wall, cpu) in stages.items():
        if wall < SHORT_SECONDS:
            others = [others[0] + wall, others[1] + cpu]
        else:
            print(f"{name:<16}{wall:>8.2f}{cpu:>8.2f}{cpu / wall:>7.2f}{size / wall / 1e6:>8.0f}")
    print(f"{'others':<16}{others[0]:>8.2f}{others[1]:>8.2f}")
    wall, cpu = (sum(one[n] for one in stages.values()) for n in range(2))
    print(f"{'all':<16}{wall:>8.2f}{cpu:>8.2f}{cpu / wall:>7.2f}{size / wall / 1e6:>8.1f}")


if __name__ == "__main__":
    main()
