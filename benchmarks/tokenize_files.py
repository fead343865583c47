"""Files to .bin/.idx: gristmill tokenize beside Megatron-LM's two tools, wall clock, start to end.

    make megatron-peers
    MEGATRON_LM=Megatron-LM python benchmarks/tokenize_files.py --input texts/ --tokenizer gpt2/

Ours reads the .jsonl.zst files as they lie there. The peers are given the same documents as one
plain JSONL, written before the clock starts. All start as a user starts them, so imports count; all
append EOD and use every core (two workers for preprocess_data.py, as many as cores for the others).
They run in turn, and .bin and .idx are compared byte by byte. `--limit` takes the first bytes of
text only: preprocess_data.py needs minutes for 300 MB.

`--memory 5` tells something else: the peak of resident memory of our command on a plain JSONL of
5 GB. It repeats the input, each time with other letters, so that words keep coming that no memo
knows; half of that is run first, so that growth would show. It needs disk for twice the size.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gristmill.pipeline.config import SourceConfig
from gristmill.pipeline.lines import read_lines
from gristmill.pipeline.sources import find_files

ROOT = Path(__file__).parents[1]
PEER_PYTHON = ROOT / ".venv-megatron" / "bin" / "python"
LAUNCHER = Path(__file__).parent / "peers" / "megatron_tool.py"


def main() -> None:
    """Print medians, ratios of pairs and whether the files are equal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--input", default=str(ROOT.parent / "shared" / "corpora" / "dev"))
    parser.add_argument("--tokenizer", required=True, help="a folder that transformers opens too")
    parser.add_argument("--limit", type=int, default=0, help="bytes of JSONL; 0: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=["preprocess_data", "preprocess_data_fast"])
    parser.add_argument("--memory", type=float, default=0.0, help="GB of a long input")
    options = parser.parse_args()
    if options.memory:
        show_memory(options.input, options.tokenizer, options.memory)
        return
    checkout = os.environ.get("MEGATRON_LM", "")
    if not Path(checkout, "tools", "preprocess_data.py").is_file() or not PEER_PYTHON.exists():
        sys.exit("set MEGATRON_LM to a Megatron-LM checkout, and run `make megatron-peers` once")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = folder / "all.jsonl"
        inputs, num_bytes = write_plain(options.input, plain, options.limit)
        commands = {"gristmill": ours(inputs, options.tokenizer, folder)}
        for peer in options.peers:
            commands[peer] = theirs(checkout, peer, plain, options.tokenizer, folder)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(options.repeats):
            for who, command in commands.items():
                times[who].append(run(command))
        report(times, num_bytes, folder)


def write_plain(source: str, path: Path, limit: int) -> tuple[list[str], int]:
    """Write the documents of all files as one JSONL; return what ours is to read, and its bytes."""
    size = 0
    with path.open("wb") as target:
        files = find_files([SourceConfig(path=source)])
        for file in files:
            for block in read_lines(file.path, file.compression):
                if not limit or size < limit:
                    size += target.write(block.data + b"\n")
    if not limit:
        return [file.path for file in files], size
    import zstandard

    packed = path.with_suffix(".jsonl.zst")
    packed.write_bytes(zstandard.ZstdCompressor(level=3).compress(path.read_bytes()))
    return [str(packed)], size


def show_memory(source: str, tokenizer: str, gigabytes: float) -> None:
    """Print the peak of our command's memory on half of a long input and on all of it."""
    print(f"{'GB':>6}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}  (one process, threads)")
    for size in (gigabytes / 2, gigabytes):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "long.jsonl"
            write_long(source, path, int(size * 1e9))
            started = time.perf_counter()
            command = ours([str(path)], tokenizer, Path(name))
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            if status:
                sys.exit(f"{' '.join(command)} failed")
            seconds, cpu = time.perf_counter() - started, usage.ru_utime + usage.ru_stime
            peak = usage.ru_maxrss / 1e6 * 1024
            print(f"{size:>6.1f}{seconds:>9.1f}{cpu:>9.1f}{peak:>9.0f}", flush=True)


def write_long(source: str, path: Path, size: int) -> None:
    """Write so many bytes of JSONL: the input again and again, with other letters each time."""
    letters = b"ghijklmopqsvwxyz"  # none that a JSON escape or a literal value is made of
    small = path.with_suffix(".once")
    write_plain(source, small, 0)
    lines = small.read_bytes().splitlines(keepends=True)
    small.unlink()
    done = turn = 0
    with path.open("wb") as target:
        while done < size:
            shift = turn % len(letters)
            table = bytes.maketrans(letters, letters[shift:] + letters[:shift])
            for line in lines:
                head, mark, text = line.partition(b'"text"')
                done += target.write(head + mark + text.translate(table))
                if done >= size:
                    break
            turn += 1


def ours(inputs: list[str], tokenizer: str, folder: Path) -> list[str]:
    """Return our command."""
    program = str(Path(sys.executable).with_name("gristmill"))
    words = ["--tokenizer", tokenizer, "--output", str(folder / "gristmill"), "--append-eod"]
    return [program, "tokenize", *inputs, *words, "--overwrite"]


def theirs(checkout: str, tool: str, plain: Path, tokenizer: str, folder: Path) -> list[str]:
    """Return the command of one of Megatron's tools."""
    words = ["--input", str(plain), "--output-prefix", str(folder / tool), "--append-eod"]
    words += ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model", tokenizer]
    words += ["--use-gigatoken"] if tool.endswith("fast") else ["--workers", "2"]
    return [str(PEER_PYTHON), str(LAUNCHER), checkout, f"{tool}.py", *words]


def run(command: list[str]) -> tuple[float, float]:
    """Return (wall, processor) seconds of a command from its start to its end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(times: dict[str, list[tuple[float, float]]], num_bytes: int, folder: Path) -> None:
    """Print the table."""
    print(f"{num_bytes / 1e6:.1f} MB of JSONL, {os.cpu_count()} cores, medians of pairs")
    print(f"{'':24}{'wall s':>9}{'MB/s':>9}{'CPU s':>9}{'x wall':>9}{'x CPU':>9}  same bytes")
    mine = times["gristmill"]
    for who, pairs in times.items():
        wall, cpu = (statistics.median(pair[n] for pair in pairs) for n in range(2))
        ratios = [
            statistics.median(other[n] / own[n] for own, other in zip(mine, pairs, strict=True))
            for n in range(2)
        ]
        same = all(
            filecmp.cmp(
                folder / f"gristmill{end}",
                folder / f"{who}{'' if who == 'gristmill' else '_text_document'}{end}",
                shallow=False,
            )
            for end in (".bin", ".idx")
        )
        cells = (
            f"{wall:9.1f}{num_bytes / wall / 1e6:9.1f}{cpu:9.1f}{ratios[0]:9.1f}{ratios[1]:9.1f}"
        )
        print(f"{who:24}{cells}  {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main()
