"""Millions of short documents through dedup on two workers: time, memory and disk by their number.

Usage: python benchmarks/dedup_scale.py [NUMBER ...] [--folder FOLDER] (default: 500_000 2_000_000)

Documents have 30 to 56 words of 6 letters (210 to 392 bytes). One in ten is an exact copy of an
earlier one, one in ten a near copy (its last two words differ: Jaccard 0.86 to 0.93). Columns:

- seconds: wall time of all stages; CPU: of all processes;
- memory: peak of the resident sets of all processes together, sampled, mapped files included;
- disk: peak of everything beside the documents (transient files and verdicts), sampled;
- found: planted copies that were removed, and documents removed that are no planted copy.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.kernels.mixing import mix64
from gristmill.pipeline import PreprocessConfig, dedup
from gristmill.pipeline.documents import document_schema
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.stage import Marker

UNIT_DOCUMENTS = 200_000
NUM_WORDS = 4096
SAMPLE_SECONDS = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("numbers", nargs="*", type=int, default=[500_000, 2_000_000])
    parser.add_argument("--folder", default=None, help="where files are written, then removed")
    parser.add_argument("--verbose", action="store_true", help="show the stages")
    arguments = parser.parse_args()
    print(
        f"{'documents':>12} {'text MB':>8} {'seconds':>8} {'CPU':>8} {'docs/s':>8} "
        f"{'memory MB':>10} {'disk B/doc':>10} {'found':>8} {'wrong':>6}"
    )
    for number in arguments.numbers:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
            print(measure(number, Path(name), arguments.verbose), flush=True)


def measure(number: int, folder: Path, verbose: bool) -> str:
    markers, text_bytes = write_documents(number, folder)
    started, cpu = time.perf_counter(), cpu_seconds()
    with watch(folder) as peak, LocalExecutor(2) as executor:
        dedup.run(PreprocessConfig(), folder, markers, executor, Progress(quiet=not verbose))
    seconds = time.perf_counter() - started
    cpu = cpu_seconds() - cpu
    planted = removed = wrong = 0
    for first, unit in enumerate(markers):
        kinds = kinds_of(first * UNIT_DOCUMENTS, markers[unit].counts["documents"])[0]
        kept = pq.read_table(folder / "verdicts" / f"{unit}.parquet", columns=["kept"])
        is_removed = ~kept["kept"].to_numpy()
        planted += int((kinds > 0).sum())
        removed += int(is_removed.sum())
    # A near copy may be kept instead of its original (the longest, then the first, is kept), so
    # numbers are compared, not documents.
    wrong = max(removed - planted, 0)
    return (
        f"{number:>12,} {text_bytes / 1e6:>8,.0f} {seconds:>8.1f} {cpu:>8.1f} "
        f"{number / seconds:>8,.0f} {peak['memory'] / 1e6:>10,.0f} {peak['disk'] / number:>10.1f} "
        f"{removed / planted:>8.4f} {wrong:>6}"
    )


def cpu_seconds() -> float:
    """Return CPU seconds of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def kinds_of(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return 0 original, 1 exact copy or 2 near copy, and the number of the original, by number."""
    numbers = np.arange(first, first + count, dtype=np.uint64)
    drawn = mix(numbers + np.uint64(1 << 60))
    kinds = np.select([drawn % 10 == 1, drawn % 10 == 2], [1, 2], 0)
    # The original: an earlier number whose own kind is 0, found by trying a few.
    originals = numbers.copy()
    for attempt in range(40):
        wanted = (kinds > 0) & (originals == numbers) & (numbers > 0)
        tried = mix(numbers * np.uint64(64) + np.uint64(attempt + (1 << 59)))
        tried %= np.maximum(numbers, np.uint64(1))
        is_original = ~np.isin(mix(tried + np.uint64(1 << 60)) % 10, [1, 2])
        originals = np.where(wanted & is_original, tried, originals)
    kinds = np.where(originals == numbers, 0, kinds)
    return kinds, originals


def mix(words: np.ndarray) -> np.ndarray:
    """Mix 64-bit words as the kernel does, in numpy."""
    function = getattr(mix64, "py_func", mix64)
    with np.errstate(over="ignore"):
        return function(words.copy())


def write_documents(number: int, folder: Path) -> tuple[dict[str, Marker], int]:
    """Write clean documents as the stage `clean` leaves them; return its markers and text bytes."""
    letters = np.frombuffer(b"bcdfghjklmnprstvwzaeiou", np.uint8)
    drawn = mix(np.arange(NUM_WORDS * 6, dtype=np.uint64)).reshape(NUM_WORDS, 6)
    words = np.full((NUM_WORDS, 7), ord(" "), np.uint8)
    words[:, :6] = letters[(drawn % len(letters)).astype(np.int64)]
    (folder / "documents").mkdir(parents=True)
    markers, total = {}, 0
    for first in range(0, number, UNIT_DOCUMENTS):
        count = min(UNIT_DOCUMENTS, number - first)
        table, size = documents(first, count, words)
        unit = f"{first // UNIT_DOCUMENTS:05}"
        path = folder / "documents" / f"{unit}.parquet"
        pq.write_table(table, path, row_group_size=50_000, compression="zstd", compression_level=1)
        total += size
        markers[unit] = Marker(
            unit=unit,
            fingerprint=f"{number}-{unit}",
            counts={"documents": count},
            outputs=((f"documents/{unit}.parquet", path.stat().st_size),),
        )
    return markers, total


def documents(first: int, count: int, words: np.ndarray) -> tuple[pa.Table, int]:
    kinds, originals = kinds_of(first, count)
    numbers = np.arange(first, first + count, dtype=np.uint64)
    lengths = (30 + mix(originals + np.uint64(1 << 58)) % 27).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    owner = np.repeat(np.arange(count), lengths)
    place = np.arange(offsets[-1]) - offsets[owner]
    is_edited = (kinds[owner] == 2) & (place >= lengths[owner] - 2)
    text_of = np.where(is_edited, numbers[owner] + np.uint64(1 << 57), originals[owner])
    chosen = mix(text_of * np.uint64(64) + place.astype(np.uint64)) % np.uint64(NUM_WORDS)
    data = words[chosen.astype(np.int64)].reshape(-1)
    bounds = 7 * offsets
    text = pa.LargeStringArray.from_buffers(
        count, pa.py_buffer(bounds.astype(np.int64)), pa.py_buffer(data)
    )
    ids = np.stack([mix(numbers), mix(numbers + np.uint64(1 << 61))], axis=1)
    columns = {
        "id": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), count, [None, pa.py_buffer(np.ascontiguousarray(ids))]
        ),
        "input_id": pa.nulls(count, pa.string()),
        "text": text,
        "language": pa.repeat("eng_Latn", count),
        "source": pa.repeat("generated", count),
        "origin_file": pa.repeat("generated.jsonl", count),
        "origin_offset": pa.array(numbers.astype(np.int64)),
    }
    schema = document_schema()
    return pa.table([columns[name] for name in schema.names], schema=schema), len(data)


@contextlib.contextmanager
def watch(folder: Path) -> Iterator[dict[str, int]]:
    """Sample memory and disk while the block runs; yield the peaks, filled at its end."""
    peak = {"memory": 0, "disk": 0}
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            peak["memory"] = max(peak["memory"], tree_memory(os.getpid()))
            peak["disk"] = max(peak["disk"], disk_beside(folder))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        peak["disk"] = max(peak["disk"], disk_beside(folder))


def tree_memory(root: int) -> int:
    """Return the resident bytes of a process and of all below it."""
    parents, pages = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()
                parents[int(entry)], pages[int(entry)] = int(status[1]), int(status[21])
    total = 0
    for process in pages:
        ancestor = process
        while ancestor not in (root, 0, None):
            ancestor = parents.get(ancestor)
        total += pages[process] if ancestor == root else 0
    return total * resource.getpagesize()


def disk_beside(folder: Path) -> int:
    """Return the bytes of all files in the folder but the documents."""
    total = 0
    for base, folders, files in os.walk(folder):
        if base == str(folder) and "documents" in folders:
            folders.remove("documents")
        for name in files:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(base, name)).st_size
    return total


if __name__ == "__main__":
    main()
