"""Runs of `preprocess` that are killed, or whose disk is full, at random: what is left is compared.

    python tests/faults/fault_runs.py --kills 100 [--corpus FOLDER] [--workers 2] [--forked]
    unshare -rm python tests/faults/fault_runs.py --sizes 20 [--forked]

Each trial begins in an empty folder, is disturbed once or more often, and then runs to its end. Its
files, intermediate ones too, must be those of a run that was left alone, to the byte, and no
unfinished file may be left. A trial waits for a random stage to begin and a random moment more, so
that short stages are hit as well as long ones. With `--forked` a run is a fork of this process,
which has loaded everything: several times as many trials in the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

import gristmill.cli
import gristmill.config
from gristmill.pipeline import PreprocessConfig, preprocess

STAGES = (
    "clean", "keys", "exact", "buckets", "components", "shingles", "boilerplate", "verify",
    "verdicts", "train_tokenizer", "tokenize", "pack", "summary", "pages",
)  # fmt: skip

CONFIG = """
[run]
output = {output}
workers = {workers}
check_space = false
[[preprocess.sources]]
path = {path}
[preprocess.clean]
unit_bytes = {unit_bytes}
[preprocess.dedup]
partitions = 2
boilerplate_documents = 2
[preprocess.tokenizer]
vocab_size = 400
train_bytes = 50000
"""


def write_corpus(folder: Path, *, num_files: int = 6, documents: int = 60) -> None:
    """Write some hundred documents, some of them equal or nearly so."""
    folder.mkdir(parents=True)
    for name in range(num_files):
        with (folder / f"{name}.jsonl").open("w") as file:
            for number in range(name * documents, (name + 1) * documents):
                base = number - number % 5 // 3
                words = " ".join(f"word{base * 7919 % 5003 + k * k}" for k in range(60))
                text = words + " more" * (number - base) if number % 7 else "the same again"
                file.write(json.dumps({"text": text, "language": "en"}) + "\n")


def write_config(path: Path, corpus: Path, output: Path, *, workers: int, unit_bytes: int) -> Path:
    """Write the settings of a run into `output`."""
    quoted = {"output": json.dumps(str(output)), "path": json.dumps(str(corpus))}
    path.write_text(CONFIG.format(**quoted, workers=workers, unit_bytes=unit_bytes))
    return path


class ForkedRun:
    """A run in a fork of this process; `start` gives it or a process of its own."""

    is_wanted = False

    def __init__(self, config: Path) -> None:
        self._errors = config.with_suffix(".errors")
        self._process = multiprocessing.get_context("fork").Process(target=self._run, args=[config])
        self._process.start()
        self.pid = self._process.pid or 0
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit status; None: it still runs."""
        self.returncode = self._process.exitcode
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """Wait for its end; return what it printed on standard output (not kept) and error."""
        self._process.join()
        self.poll()
        return "", self._errors.read_text() if self._errors.exists() else ""

    def _run(self, config: Path) -> None:
        os.setsid()
        for path, descriptor in ((os.devnull, 1), (self._errors, 2)):
            os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), descriptor)
        sys.argv = ["gristmill", "preprocess", str(config)]
        sys.exit(gristmill.cli.main())

    @classmethod
    def load_everything(cls, folder: Path, corpus: Path, unit_bytes: int) -> None:
        """Do a run here, so that forks of this process find modules and kernels loaded."""
        config = write_config(
            folder / "first.toml", corpus, folder / "first", workers=1, unit_bytes=unit_bytes
        )
        tables = gristmill.config.read_config(config)["preprocess"]
        settings = gristmill.config.build(PreprocessConfig, tables, "preprocess")
        preprocess(settings, output=folder / "first", workers=1, console=Console(quiet=True))
        shutil.rmtree(folder / "first")
        cls.is_wanted = True


def start(config: Path) -> subprocess.Popen[str] | ForkedRun:
    """Start a run in a session of its own."""
    if ForkedRun.is_wanted:
        return ForkedRun(config)
    command = [sys.executable, "-m", "gristmill.cli", "preprocess", str(config)]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONSAFEPATH": "1"},
    )


def finish(config: Path) -> None:
    """Run to the end; a failure is an error here."""
    process = start(config)
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"the run ended with {process.returncode}: {errors}")


def content(output: Path) -> dict[str, bytes]:
    """Return every file of a run but what is about the run itself."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file()
        and not path.name.startswith(("lock", "config.toml"))
        and path.parent.name != "log"
    }


def differences(output: Path, whole: dict[str, bytes]) -> list[str]:
    """Return the names of files that are missing, too many, or other bytes."""
    found = content(output)
    return sorted(
        name for name in found.keys() | whole.keys() if found.get(name) != whole.get(name)
    )


def stage_of(output: Path) -> str:
    """Return the stage that a run is in, by what it says of itself."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        state = json.loads((output / "work/log/status.json").read_text())
        return str(state["stages"][-1]["name"])
    return "start"


def kill_once(config: Path, output: Path, stage: str, chance: random.Random) -> str:
    """Start a run and kill it, or one of its workers, in or after a stage; return where it was."""
    process = start(config)
    folder = output / "work" / stage
    while process.poll() is None and not folder.exists():
        time.sleep(0.002)
    time.sleep(chance.random() ** 2 * 0.5)
    where = stage_of(output)
    workers = _children(process.pid) if chance.random() < 0.3 else []
    with contextlib.suppress(ProcessLookupError):
        os.kill(chance.choice(workers) if workers else process.pid, signal.SIGKILL)
    if workers:
        time.sleep(chance.random())  # the run goes on with another worker; then it is killed too
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return where


def _children(pid: int) -> list[int]:
    try:
        tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [int(task) for task in tasks]


def kill_trials(
    folder: Path, *, kills: int, corpus: Path, unit_bytes: int, workers: int, seed: int
) -> Counter[str]:
    """Kill runs so often, each in an empty folder; return how many were killed in which stage.

    Raises:
        AssertionError: bytes differ from those of a run that was not killed.
    """
    chance = random.Random(seed)
    config = folder / "run.toml"
    output = folder / "output"
    write_config(config, corpus, output, workers=workers, unit_bytes=unit_bytes)
    finish(config)
    whole = content(output)
    hit: Counter[str] = Counter()
    while hit.total() < kills:
        shutil.rmtree(output)
        for _ in range(min(1 + (chance.random() < 0.3), kills - hit.total())):
            hit[kill_once(config, output, chance.choice(STAGES), chance)] += 1
        finish(config)
        different = differences(output, whole)
        assert not different, f"after {dict(hit)}: {different[:10]}"
        print(f"{hit.total()} of {kills} kills, same bytes after each", flush=True)
    return hit


def full_disk_trials(folder: Path, sizes: Sequence[int], *, corpus: Path) -> Counter[str]:
    """Run on small disks, then with room; return how many were full in which stage.

    Needs a mount namespace (`unshare -rm`) or root.

    Raises:
        AssertionError: no clear message, or bytes that differ from those of a run with room.
    """
    disk = folder / "disk"
    disk.mkdir()
    output = disk / "output"
    config = write_config(folder / "run.toml", corpus, output, workers=1, unit_bytes=10_000)
    hit: Counter[str] = Counter()
    whole: dict[str, bytes] = {}
    for size in (10**9, *sizes):
        with _mounted(disk, size):
            process = start(config)
            _, errors = process.communicate()
            if not whole:
                assert process.returncode == 0, errors
                whole = content(output)
                continue
            if process.returncode == 0:
                continue  # it had room enough
            hit[stage_of(output)] += 1
            assert "no space left while writing" in errors, errors
            assert "run the same command again" in errors, errors
            assert not list(output.rglob("*.tmp-*")), "unfinished files are left on a full disk"
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            finish(config)
            different = differences(output, whole)
            assert not different, f"{size} bytes: {different[:10]}"
    return hit


@contextlib.contextmanager
def _mounted(disk: Path, size: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(disk)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--sizes", type=int, default=0, help="disks to try, up to what is needed")
    parser.add_argument("--step", type=int, default=65_536, help="bytes from one disk to the next")
    parser.add_argument("--corpus", type=Path, default=None)
    parser.add_argument("--unit-bytes", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forked", action="store_true", help="runs are forks of this process")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, corpus = Path(name), chosen.corpus
        if corpus is None:
            write_corpus(corpus := folder / "in")
        if chosen.forked:
            ForkedRun.load_everything(folder, corpus, chosen.unit_bytes)
        if chosen.kills:
            hit = kill_trials(
                folder,
                kills=chosen.kills,
                corpus=corpus,
                unit_bytes=chosen.unit_bytes,
                workers=chosen.workers,
                seed=chosen.seed,
            )
            print(f"{hit.total()} kills, same bytes after each: {dict(hit)}")
        if chosen.sizes:
            sizes = [chosen.step * number for number in range(1, chosen.sizes + 1)]
            hit = full_disk_trials(folder, sizes, corpus=corpus)
            print(f"{hit.total()} full disks, same bytes after each: {dict(hit)}")


if __name__ == "__main__":
    main()
