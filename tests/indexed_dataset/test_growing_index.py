"""The index of a dataset of any size: bounded memory, 64-bit positions."""

import os
import tracemalloc

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDataset, IndexedDatasetBuilder, growing_index, merge
from gristmill.indexed_dataset.growing_index import GrowingIndex, ends_of, starts_of

DEEP = bool(os.environ.get("GRISTMILL_TEST_DEEP"))


def index_bytes(folder, dtype, batches):
    parts, index = [], GrowingIndex(folder)
    for batch in batches:
        index.append(*batch)
    index.write(np.dtype(dtype), parts.append)
    index.close()
    return b"".join(parts)


def test_an_index_that_outgrew_memory_has_the_same_bytes(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    lengths = random.integers(0, 9, size=(50, 100), dtype=np.int32)
    batches = [(row, np.full(20, 5, np.int32)) for row in lengths]
    expected = index_bytes(tmp_path, "<u2", batches)
    monkeypatch.setattr(growing_index, "MEMORY_BYTES", 1000)
    monkeypatch.setattr(growing_index, "_CHUNK", 77)

    assert index_bytes(tmp_path, "<u2", batches) == expected
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(growing_index, "MEMORY_BYTES", 1 << 16)
    lengths, counts = np.ones(1 << 16, np.int32), np.ones(1 << 16, np.int32)
    index = GrowingIndex(tmp_path)
    tracemalloc.start()
    for _ in range(64):
        index.append(lengths, counts)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    index.close()

    assert index.num_documents == 64 << 16
    assert peak < 3 << 20  # the arrays hold 32 MiB


def test_positions_and_bounds_beyond_31_bits_do_not_overflow():
    """Lengths and counts near their own limit reach beyond 2**31 with a few entries."""
    most = np.array([2**31 - 1] * 3, np.int32)
    starts = np.concatenate(list(starts_of([most, most], 8)))
    ends = np.concatenate(list(ends_of([most, most])))

    assert starts.tolist() == [8 * (2**31 - 1) * place for place in range(6)]
    assert ends.tolist() == [(2**31 - 1) * place for place in range(1, 7)]


@pytest.mark.deep
@pytest.mark.skipif(not DEEP, reason="writes 5 GB: only in `make test-deep`")
def test_more_than_31_bits_of_tokens_are_written_and_merged(tmp_path):
    chunk = np.zeros(1 << 28, np.uint8)
    with IndexedDatasetBuilder(tmp_path / "a", dtype="uint8") as builder:
        for _ in range(8):
            builder.add_documents(chunk, [len(chunk)])
        builder.add_document([1, 2, 3])
    merge([tmp_path / "a"], tmp_path / "b")
    for name in "ab":
        dataset = IndexedDataset(tmp_path / name)
        assert dataset.num_tokens == 2**31 + 3
        assert dataset[8].tolist() == [1, 2, 3]
        assert dataset.sequence_pointers[8] == 2**31
    assert (tmp_path / "a.idx").read_bytes() == (tmp_path / "b.idx").read_bytes()
