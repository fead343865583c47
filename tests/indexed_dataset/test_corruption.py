"""Single damages and what is said about each; `test_hostile_files.py` has thousands."""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    CorruptIndexError,
    IndexedDataset,
    IndexedDatasetError,
    NotAnIndexError,
    PrefixNotFoundError,
    SampleDataset,
    TruncatedDataError,
    UnsupportedVersionError,
    verify,
)


@pytest.fixture
def prefix(write_prefix, random_documents):
    return write_prefix(random_documents(30, longest=12, seed=3), eod_id=None)


def test_a_bin_of_another_length_is_refused_with_its_name(prefix):
    path = Path(f"{prefix}.bin")
    original = path.read_bytes()
    for data in (b"", original[:-1], original[:-2], original + b"\0", original * 2):
        path.write_bytes(data)
        with pytest.raises(TruncatedDataError, match=r"data\.bin has \d+ bytes, but data\.idx"):
            IndexedDataset(prefix)


def test_a_bin_cut_off_while_it_is_in_use_is_an_error_and_not_old_memory(prefix):
    dataset = IndexedDataset(prefix)
    assert dataset[-1].size
    os.truncate(f"{prefix}.bin", 10)

    with pytest.raises(TruncatedDataError, match="bytes early at byte"):
        dataset[-1]
    with pytest.raises(TruncatedDataError):
        SampleDataset(dataset, 64)[0]


def test_an_index_cut_off_while_it_is_in_use_is_an_error_and_not_a_crash(prefix):
    dataset = IndexedDataset(prefix)
    assert dataset.document_starts(0, 9).size
    os.truncate(f"{prefix}.idx", 40)

    with pytest.raises(CorruptIndexError, match=r"data\.idx: it was cut off after it was opened"):
        dataset[3]
    with pytest.raises(CorruptIndexError, match="cut off"):
        SampleDataset(dataset, 16, documents="separate")[1]


def test_altered_bytes_in_a_bin_are_found_by_full_verification(prefix):
    path = Path(f"{prefix}.bin")
    original = path.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(50):
        data = bytearray(original)
        data[int(random.integers(len(data)))] ^= int(random.integers(1, 256))
        path.write_bytes(bytes(data))
        assert verify(prefix).ok
        report = verify(prefix, full=True)
        assert any("its bytes were altered" in problem for problem in report.problems)


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".json"])
def test_files_swapped_between_two_datasets_are_refused(
    prefix, write_prefix, random_documents, suffix
):
    other = write_prefix(random_documents(31, longest=12, seed=4), "other")
    shutil.copy(f"{other}{suffix}", f"{prefix}{suffix}")

    with pytest.raises(IndexedDatasetError, match=str(prefix)):
        IndexedDataset(prefix)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", NotAnIndexError, "is not an indexed dataset"),
        (b"TNTIDX\0\0" + b"\0" * 40, NotAnIndexError, "starts with b'TNTIDX"),
        (b"MMIDIDX\0\0\1", NotAnIndexError, "ends after 10 of the 34 bytes"),
        (struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 2, 8, 0, 1), UnsupportedVersionError, "version 2"),
        (struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 9, 0, 1), CorruptIndexError, "dtype code 9"),
        (struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, 0, 0), CorruptIndexError, "no document"),
        (
            struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, 2**63, 2**63),
            CorruptIndexError,
            "has 34 bytes, but its header announces 9223372036854775808 sequences",
        ),
        (
            struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, 2**64 - 1, 2**64 - 1),
            CorruptIndexError,
            "its header announces",
        ),
        (
            struct.pack("<9sQBQQq", b"MMIDIDX\0\0", 1, 8, 0, 1, 5),
            CorruptIndexError,
            "span the sequences 5 to 5",
        ),
        (
            struct.pack("<9sQBQQiqqq", b"MMIDIDX\0\0", 1, 8, 1, 2, -3, 0, 0, 1),
            CorruptIndexError,
            "last sequence has -3 tokens",
        ),
        (
            struct.pack("<9sQBQQiqqq", b"MMIDIDX\0\0", 1, 8, 1, 2, 3, -6, 0, 1),
            CorruptIndexError,
            "starts at byte -6",
        ),
    ],
)
def test_a_hostile_index_is_refused_before_anything_is_allocated(tmp_path, data, error, message):
    (tmp_path / "data.idx").write_bytes(data)
    (tmp_path / "data.bin").write_bytes(b"")

    with pytest.raises(error, match=message):
        IndexedDataset(tmp_path / "data")


def test_missing_files_are_told_apart(prefix, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.idx. Check the path"):
        IndexedDataset(tmp_path / "none")
    os.unlink(f"{prefix}.bin")
    with pytest.raises(PrefixNotFoundError, match=r"data\.bin\. data\.idx is there"):
        IndexedDataset(prefix)
