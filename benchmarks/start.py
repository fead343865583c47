"""What it costs to begin: seconds and memory of fresh processes, ours beside megatron-core.

Usage: python benchmarks/start.py [--prefixes 2500] [--repeats 5] [--folder /a/disk/with/room]

Each line is a Python process of its own: seconds from its start to its end, interpreter and imports
included, and the most memory that it ever held. The first process of each kind is not counted.
megatron-core opens the same prefixes and builds its indices in an empty folder, as for a new run,
without its S x S attention mask. It gets no sparse prefix: the indices of an epoch have 3 GB.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gristmill.indexed_dataset import IndexedDatasetBuilder
from gristmill.indexed_dataset.format import pack_header

SPARSE_TOKENS = 10**12
SPARSE_DOCUMENT = 2**31 - 1  # the longest that the format has

ONE_SAMPLE = """
from gristmill.indexed_dataset import SampleDataset
assert len(SampleDataset(sys.argv[1] + "/00000", 4096)[0]["tokens"]) == 4096
assert not {"numba", "torch"} & set(sys.modules)
"""
FIRST_BATCH = """
from pathlib import Path
from gristmill.indexed_dataset import BlendedDataset, SampleDataset
prefixes = sorted(str(path)[:-4] for path in Path(sys.argv[1]).glob("*.idx"))
blend = BlendedDataset([SampleDataset(prefix, 4096) for prefix in prefixes])
assert sum(len(blend.sample(position)["tokens"]) for position in range(64)) == 64 * 4096
"""
MEGATRON = """
import logging, shutil
from pathlib import Path
from types import SimpleNamespace
logging.disable(logging.WARNING)
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
shutil.rmtree(sys.argv[1] + "/cache", ignore_errors=True)
prefixes = sorted(str(path)[:-4] for path in Path(sys.argv[1]).glob("*.idx"))
config = GPTDatasetConfig(
    random_seed=1234,
    sequence_length=4096,
    blend_per_split=[(prefixes, [1.0] * len(prefixes)), None, None],
    tokenizer=SimpleNamespace(vocab_size=50_000, eod=0, pad=-1, unique_identifiers={}),
    reset_position_ids=False,
    reset_attention_mask=False,
    eod_mask_loss=False,
    create_attention_mask=False,
)
sizes = [8 * len(prefixes), None, None]
blend = BlendedMegatronDatasetBuilder(GPTDataset, sizes, lambda: True, config).build()[0]
assert sum(len(blend[position]["tokens"]) for position in range(64)) == 64 * 4096
"""
MEMORY = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prefixes", type=int, default=2500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", default=None, help="default: the system's temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gristmill-start-", dir=arguments.folder) as name:
        many, sparse = Path(name) / "many", Path(name) / "sparse"
        write_prefixes(many, arguments.prefixes)
        write_sparse(sparse)
        print(f"medians of {arguments.repeats} processes; batches of 64 samples of 4,096 tokens")
        for label, code, folder in (
            ("import and one sample", ONE_SAMPLE, many),
            (f"{SPARSE_TOKENS:,} tokens, a batch", FIRST_BATCH, sparse),
            (f"{arguments.prefixes:,} prefixes, a batch", FIRST_BATCH, many),
            ("the same, megatron-core", MEGATRON, many),
        ):
            measure(label, code, folder, arguments.repeats if code != MEGATRON else 1)


def write_prefixes(folder: Path, number: int) -> None:
    """Write prefixes of 40 documents each."""
    folder.mkdir()
    os.fsync = lambda descriptor: None  # thousands of files that nobody needs after this run
    random = np.random.default_rng(0)
    for place in range(number):
        lengths = random.integers(100, 1500, size=40)
        with IndexedDatasetBuilder(folder / f"{place:05d}", vocab_size=50_000) as builder:
            tokens = random.integers(1, 50_000, size=int(lengths.sum()), dtype=np.uint16)
            builder.add_documents(tokens, lengths)
            builder.finalize(eod_id=0, document_order="shuffled")


def write_sparse(folder: Path) -> None:
    """Write an index of the longest documents there can be, and a .bin that takes no room."""
    folder.mkdir()
    number = -(-SPARSE_TOKENS // SPARSE_DOCUMENT)
    lengths = np.full(number, SPARSE_DOCUMENT, dtype="<i4")
    lengths[-1] = SPARSE_TOKENS - (number - 1) * SPARSE_DOCUMENT
    pointers = np.zeros(number, dtype="<i8")
    np.cumsum(2 * lengths[:-1].astype(np.int64), out=pointers[1:])
    with open(folder / "data.idx", "wb") as stream:
        stream.write(pack_header(np.dtype(np.uint16), number, number + 1))
        for array in (lengths, pointers, np.arange(number + 1, dtype="<i8")):
            stream.write(array.tobytes())
    with open(folder / "data.bin", "wb") as stream:
        stream.truncate(2 * SPARSE_TOKENS)


def measure(label: str, code: str, folder: Path, repeats: int) -> None:
    """Run it in processes of their own; print wall clock, processor and memory."""
    walls, processors, memory = [], [], 0.0
    for _ in range(repeats + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", f"import sys\n{code}\n{MEMORY}", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        walls.append(time.perf_counter() - started)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            print(f"{label:34} did not run: {''.join(done.stderr.strip().splitlines()[-1:])}")
            return
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        processors.append(used)
        memory = max(memory, float(done.stdout.split()[-1]))
    wall, used = statistics.median(walls[1:]), statistics.median(processors[1:])
    print(f"{label:34} {wall:7.2f} s, {used:7.2f} s of processor, {memory:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
