"""The side stream `loss_mask` says which labels count, whatever the order and the shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDatasetBuilder, IndexedDatasetError, SampleDataset

LENGTHS = (5, 9, 3, 7, 6, 2)


def write(prefix: Path, lengths: Sequence[int], *, dtype: str | None = "uint8") -> Path:
    """Write documents whose odd tokens are targets."""
    streams = {"loss_mask": dtype} if dtype else {}
    builder = IndexedDatasetBuilder(prefix, vocab_size=500, streams=streams)
    first = 1
    for length in lengths:
        tokens = np.arange(first, first + length)
        builder.add_document(tokens, streams={"loss_mask": tokens % 2} if dtype else None)
        first += length
    builder.finalize(eod_id=0, document_order="shuffled")
    return prefix


@pytest.mark.parametrize("order", ["stable", "best_fit", "sequential"])
@pytest.mark.parametrize("documents", ["joined", "separate"])
def test_labels_count_where_the_stream_says_so_and_else_as_without_it(
    tmp_path: Path, order: str, documents: str
) -> None:
    if (order, documents) == ("best_fit", "joined"):
        pytest.skip("not offered")
    halves = [write(tmp_path / "a", LENGTHS[:3]), write(tmp_path / "b", LENGTHS[3:])]
    plain = [write(tmp_path / f"{n}-plain", LENGTHS[n * 3 : n * 3 + 3], dtype=None) for n in (0, 1)]
    masked, unmasked = (
        SampleDataset(prefixes, 8, order=order, documents=documents, eod_id=0)  # type: ignore[arg-type]
        for prefixes in (halves, plain)
    )

    for number in range(masked.samples_per_epoch):
        # The order follows from the content, which is the same.
        one, other = masked.sample(number), unmasked.sample(number)
        expected = other["loss_mask"] * (one["labels"] % 2)
        assert np.array_equal(one["tokens"], other["tokens"])
        assert np.array_equal(one["loss_mask"], expected)


def test_another_mask_is_another_dataset_in_the_same_order(tmp_path: Path) -> None:
    def opened(name: str, mask: list[int]) -> SampleDataset:
        with IndexedDatasetBuilder(
            tmp_path / name, vocab_size=9, streams={"loss_mask": "uint8"}
        ) as builder:
            builder.add_document([1, 2, 3], streams={"loss_mask": mask})
        return SampleDataset(tmp_path / name, 2)

    one, same, other = opened("a", [0, 1, 1]), opened("b", [0, 1, 1]), opened("c", [1, 1, 1])
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.split.fingerprint == other.split.fingerprint


def test_a_shard_without_the_stream_beside_one_with_it_is_refused(tmp_path: Path) -> None:
    shards = [write(tmp_path / "a", LENGTHS), write(tmp_path / "b", LENGTHS, dtype=None)]

    with pytest.raises(IndexedDatasetError, match="other shards of a have"):
        SampleDataset(shards, 8)


def test_a_stream_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexedDatasetError, match="a loss mask is uint8"):
        SampleDataset(write(tmp_path / "a", LENGTHS, dtype="float32"), 8)
