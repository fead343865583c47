"""Clustering by number of documents, from generated band keys: time, memory and disk of each step.

Usage: python benchmarks/clustering_scale.py [NUMBER ...] [--folder FOLDER] [--keyed-bands 2]
(default: 10_000_000 100_000_000)

One document in five is a near copy (Jaccard 0.85) of an earlier one: each of its 20 band keys is
its original's with probability 0.85^6, else its own. Both steps are the pipeline's own functions,
each in a process of its own, as a unit runs:

- buckets: 20 units, one a band; `--keyed-bands` of them are run from their keys, and are what time
  and memory are given for (a band of 20 costs what another costs);
- components: the one process that holds something of every document. It gets the buckets of all 20
  bands, which are generated for the bands that were not run.

seconds: CPU time of the step (a band; all bands). memory: largest anonymous memory of the process,
sampled (`RssAnon`: mapped files, which the system can drop at any time, do not count). disk: the
files that lie there at the same time.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from gristmill.kernels.mixing import mix64
from gristmill.pipeline.dedup_buckets import BucketsArguments, write_buckets
from gristmill.pipeline.dedup_components import ComponentsArguments, write_components
from gristmill.pipeline.dedup_layout import Part

NUM_BANDS = 20
PART_DOCUMENTS = 2_000_000
SHARED = int(0.85**6 * (1 << 32))
"""Of 2^32: chance that a near copy has a band key of its original."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", type=int, default=[10_000_000, 100_000_000])
    parser.add_argument("--folder", default=None, help="where files are written, then removed")
    parser.add_argument("--keyed-bands", type=int, default=2)
    arguments = parser.parse_args()
    print(
        f"{'documents':>13} {'step':<12}{'CPU s':>8}{'ns/doc':>8}{'wall s':>8}{'memory MB':>11}"
        f"{'B/doc':>7}{'disk GB':>9}  result"
    )
    for number in arguments.numbers:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            measure(number, Path(name), arguments.keyed_bands)


def measure(number: int, folder: Path, keyed_bands: int) -> None:
    """Print the lines of one number of documents."""
    files = [folder / "buckets" / f"band-{band:05}.npy" for band in range(NUM_BANDS)]
    for band in range(keyed_bands):
        parts = write_keys(number, band, folder / "keys")
        arguments = BucketsArguments(
            parts=parts, exact=(), band=0, among_new=True, buckets=files[band]
        )
        show(number, "buckets", *in_process(write_buckets, arguments, folder))
        shutil.rmtree(folder / "keys")
    files[0].parent.mkdir(exist_ok=True)
    bands = range(keyed_bands, NUM_BANDS)
    generate_buckets(number, bands, [files[band] for band in bands])
    components = ComponentsArguments(
        buckets=tuple(files),
        num_documents=number,
        num_partitions=0,
        candidates=folder / "components" / "candidates.npy",
        members=folder / "components" / "members.npy",
    )
    show(number, "components", *in_process(write_components, components, folder))


def originals_of(numbers: np.ndarray) -> np.ndarray:
    """Return for each document the one that it is a copy of, or itself."""
    drawn = mix(numbers + np.uint64(1 << 60))
    earlier = mix(numbers + np.uint64(1 << 61)) % np.maximum(numbers, np.uint64(1))
    return np.where((drawn % np.uint64(5) == 0) & (numbers > 0), earlier, numbers)


def keys_of(numbers: np.ndarray, band: int) -> np.ndarray:
    """Return the band keys of documents."""
    seed = np.uint64(band + 1) << np.uint64(40)
    is_shared = (mix(numbers + seed) >> np.uint64(32)) < np.uint64(SHARED)
    return mix(np.where(is_shared, originals_of(numbers), numbers) ^ (seed << np.uint64(8)))


def mix(words: np.ndarray) -> np.ndarray:
    """Mix 64-bit words (mix64 of the kernels, over arrays)."""
    function: Any = getattr(mix64, "py_func", mix64)
    with np.errstate(over="ignore"):
        return np.asarray(function(words.copy()))


def write_keys(number: int, band: int, folder: Path) -> tuple[Part, ...]:
    """Write the keys of one band as the stage `keys` does."""
    folder.mkdir()
    parts = []
    for first in range(0, number, PART_DOCUMENTS):
        count = min(PART_DOCUMENTS, number - first)
        path = folder / f"{first // PART_DOCUMENTS:05}.npy"
        np.save(path, keys_of(np.arange(first, first + count, dtype=np.uint64), band)[None])
        parts.append(
            Part(
                name=path.stem,
                first_document=first,
                num_documents=count,
                keys=path,
                ranks=None,
                bands=path,
                documents=None,
                is_old=False,
            )
        )
    return tuple(parts)


def generate_buckets(number: int, bands: Sequence[int], paths: Sequence[Path]) -> None:
    """Write buckets of two as `write_buckets` finds them, but for copies of a common original."""
    lengths = [0] * len(bands)
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(path.open("wb")) for path in paths]
        for file in files:
            write_header(file, 0)
        for first in range(0, number, PART_DOCUMENTS):
            count = min(PART_DOCUMENTS, number - first)
            numbers = np.arange(first, first + count, dtype=np.uint64)
            originals = originals_of(numbers)
            copies = np.flatnonzero(originals != numbers)
            numbers, originals = numbers[copies], originals[copies]
            for place, band in enumerate(bands):
                seed = np.uint64(band + 1) << np.uint64(40)
                is_shared = (mix(numbers + seed) >> np.uint64(32)) < np.uint64(SHARED)
                pairs = np.stack(
                    [-1 - originals.astype(np.int64), numbers.astype(np.int64)], axis=1
                )
                files[place].write(pairs[is_shared].data)
                lengths[place] += 2 * int(is_shared.sum())
        for file, length in zip(files, lengths, strict=True):
            file.seek(0)
            write_header(file, length)


def write_header(file: IO[bytes], length: int) -> None:
    """Write the head of a .npy file of int64."""
    header = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def in_process(
    function: Callable[[Any], Any], arguments: Any, folder: Path
) -> tuple[float, float, int, int, Any]:
    """Run a step; return CPU seconds, wall seconds, peak of memory, peak of disk, counts."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(function, arguments, sender))
    started = time.perf_counter()
    process.start()
    with watch(process.pid or 0, folder) as peak:
        cpu, counts = receiver.recv()
        wall = time.perf_counter() - started
        process.join()
    return cpu, wall, peak["memory"], peak["disk"], counts


def run(function: Callable[[Any], Any], arguments: Any, sender: Any) -> None:
    result = function(arguments)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    counts = {name: value for name, value in result.counts.items() if not isinstance(value, list)}
    sender.send((usage.ru_utime + usage.ru_stime, counts))


@contextlib.contextmanager
def watch(process: int, folder: Path) -> Iterator[dict[str, int]]:
    """Sample a process's memory and a folder's size; yield the peaks."""
    peak, stop = {"memory": 0, "disk": 0}, threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            with contextlib.suppress(OSError, IndexError, ValueError):
                text = Path(f"/proc/{process}/status").read_text()
                memory = 1024 * int(text.split("RssAnon:")[1].split()[0])
                peak["memory"] = max(peak["memory"], memory)
            size = 0
            for path in folder.rglob("*"):
                with contextlib.suppress(OSError):
                    size += path.stat().st_size
            peak["disk"] = max(peak["disk"], size)

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def show(
    number: int, step: str, cpu: float, wall: float, memory: int, disk: int, counts: Any
) -> None:
    """Print the line of one step."""
    print(
        f"{number:>13,} {step:<12}{cpu:>8.1f}{1e9 * cpu / number:>8.1f}{wall:>8.1f}"
        f"{memory / 1e6:>11,.0f}{memory / number:>7.1f}{disk / 1e9:>9.2f}  {counts}",
        flush=True,
    )


if __name__ == "__main__":
    main()
