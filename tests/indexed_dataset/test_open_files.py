"""Few files are open at a time, however many prefixes there are; none is closed under a reader."""

import gc
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDataset, IndexedDatasetBuilder, TruncatedDataError
from gristmill.indexed_dataset.open_files import MOST_OPEN, most_open_files

OPEN = Path("/proc/self/fd")
needs_proc = pytest.mark.skipif(not OPEN.is_dir(), reason="no /proc to count open files in")

MANY = """
import os, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from gristmill.indexed_dataset import BlendedDataset, SampleDataset
folder = Path(sys.argv[1])
prefixes = sorted(str(path)[:-4] for path in folder.glob("*.bin"))
datasets = [SampleDataset(prefix, 2, documents="separate") for prefix in prefixes]
opened_first = len(os.listdir("/proc/self/fd"))
blend = BlendedDataset(datasets, [1] * len(datasets))
most = 0
for position in range(2 * len(prefixes)):
    sample = blend.sample(position)
    number = sample["dataset_id"]
    assert sample["tokens"][0] in (number + 1, 0), sample
    most = max(most, len(os.listdir("/proc/self/fd")))
print(len(prefixes), opened_first, most)
"""


def write_many(folder, number):
    for place in range(number):
        with IndexedDatasetBuilder(folder / f"{place:04d}", vocab_size=60_000) as builder:
            builder.add_documents([place + 1, 0, place + 1, 0], [2, 2])
            builder.finalize(eod_id=0, document_order="shuffled")
    return [folder / f"{place:04d}" for place in range(number)]


def count_open(folder):
    def target(path):
        try:
            return os.readlink(path)
        except OSError:  # the descriptor that listed the folder
            return ""

    return sum(target(path).startswith(str(folder)) for path in OPEN.iterdir())


@needs_proc
def test_two_hundred_prefixes_are_read_where_64_files_may_be_open(tmp_path):
    write_many(tmp_path, 200)
    result = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path)], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    prefixes, opened_first, most = map(int, result.stdout.split())
    assert prefixes == 200
    assert opened_first < 10
    assert 32 <= most < 64


@needs_proc
def test_opening_holds_nothing_and_dropping_closes_at_once(tmp_path):
    datasets = [IndexedDataset(prefix) for prefix in write_many(tmp_path, 5)]
    assert count_open(tmp_path) == 0

    gc.disable()
    try:
        for dataset in datasets:
            dataset[0]
        assert count_open(tmp_path) == 10
        datasets[0].close()
        assert count_open(tmp_path) == 8
        assert datasets[0][0].tolist() == [1, 0]
        del dataset, datasets
        assert count_open(tmp_path) == 0
    finally:
        gc.enable()


def test_the_limit_is_half_of_what_the_process_may_open():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        for allowed, expected in ((64, 32), (1, 1), (10**9, MOST_OPEN)):
            if hard != resource.RLIM_INFINITY and allowed > hard:
                continue
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            assert most_open_files() == expected
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@needs_proc
def test_no_file_is_closed_while_another_thread_reads_it(tmp_path, monkeypatch):
    """A closed number would be given to the next file: a thread would read another dataset."""
    monkeypatch.setattr("gristmill.indexed_dataset.open_files.MOST_OPEN", 2)
    datasets = [IndexedDataset(prefix) for prefix in write_many(tmp_path, 12)]
    wrong, rounds = [], 400

    def read(seed):
        try:
            for number in np.random.default_rng(seed).integers(0, 12, size=rounds):
                if datasets[number].read_tokens(0, 4).tolist() != [number + 1, 0, number + 1, 0]:
                    wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)

    assert wrong == []
    assert count_open(tmp_path) <= 2


def test_a_file_that_was_replaced_while_it_was_closed_is_refused(tmp_path):
    (prefix,) = write_many(tmp_path, 1)
    dataset = IndexedDataset(prefix)
    assert dataset[0].tolist() == [1, 0]
    dataset.close()
    os.truncate(f"{prefix}.bin", 6)

    with pytest.raises(TruncatedDataError, match=r"0000\.bin has 6 bytes"):
        dataset.read_tokens(0, 1)


@needs_proc
def test_a_full_table_of_files_is_met_by_giving_up_some(tmp_path):
    datasets = [IndexedDataset(prefix) for prefix in write_many(tmp_path, 8)]
    for dataset in datasets[:6]:
        dataset.read_tokens(0, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(path.name) for path in OPEN.iterdir())
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
    filled = len(list(OPEN.iterdir())) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(filled, used + 1), hard))
    try:
        while True:  # the rest of the program takes what is left
            try:
                others.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        assert datasets[7].read_tokens(0, 2).tolist() == [8, 0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in others:
            os.close(number)
