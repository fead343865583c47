"""The bytes on disk, pinned: a change here is a change of the format."""

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDatasetBuilder, IndexedDatasetError
from gristmill.indexed_dataset.format import (
    DTYPE_OF_CODE,
    dtype_for_vocab_size,
    pack_header,
    unpack_header,
)


def test_golden_bytes_of_two_documents_in_three_sequences(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=1000) as builder:
        builder.add_document([7, 8, 999], [2, 1])
        builder.add_document([5])

    assert (tmp_path / "data.bin").read_bytes() == bytes.fromhex("0700 0800 e703 0500")
    assert (tmp_path / "data.idx").read_bytes() == bytes.fromhex(
        "4d4d49444944580000"  # MMIDIDX
        "0100000000000000"  # version 1
        "08"  # uint16
        "0300000000000000"  # sequences
        "0300000000000000"  # documents + 1
        "02000000 01000000 01000000"  # lengths
        "0000000000000000 0400000000000000 0600000000000000"  # pointers
        "0000000000000000 0200000000000000 0300000000000000"  # document bounds
    )


@pytest.mark.parametrize(
    ("vocab_size", "dtype"),
    [(1, "uint16"), (65_499, "uint16"), (65_500, "int32"), (65_536, "int32"), (2**31, "int32")],
)
def test_ids_take_two_bytes_below_65500_and_four_above(vocab_size, dtype):
    assert dtype_for_vocab_size(vocab_size) == np.dtype(dtype)


@pytest.mark.parametrize("vocab_size", [0, -1, 2**31 + 1])
def test_a_vocabulary_that_no_dtype_holds_is_refused(vocab_size):
    with pytest.raises(IndexedDatasetError, match=str(vocab_size)):
        dtype_for_vocab_size(vocab_size)


@pytest.mark.parametrize("code", sorted(DTYPE_OF_CODE))
def test_headers_survive_a_round_trip_in_every_dtype(code, tmp_path):
    header = unpack_header(pack_header(DTYPE_OF_CODE[code], 2**40, 2**41), tmp_path)

    assert header == (DTYPE_OF_CODE[code], 2**40, 2**41)


def test_a_dtype_without_a_code_is_refused_with_those_that_have_one(tmp_path):
    with pytest.raises(IndexedDatasetError, match=r"uint32 cannot be stored.*Use one of.*int32"):
        IndexedDatasetBuilder(tmp_path / "data", dtype=np.uint32)
