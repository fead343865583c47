"""Order `sequential`: each token of the split is a label exactly once, so sums are exact."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import IndexedDatasetBuilder, IndexedDatasetError, SampleDataset


@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=10).filter(lambda x: sum(x) > 1),
    size=st.integers(1, 30),
    has_eod=st.booleans(),
)
def test_every_token_is_scored_once_and_predicted_from_the_one_before(
    tmp_path_factory, lengths, size, has_eod
):
    prefix = tmp_path_factory.mktemp("sequential") / "data"
    tokens = np.arange(1, sum(lengths) + 1)
    with IndexedDatasetBuilder(prefix, vocab_size=1000) as builder:
        builder.add_documents(tokens, lengths)
        builder.finalize(eod_id=999 if has_eod else None)
    dataset = SampleDataset(prefix, size, order="sequential")

    pairs = []
    for sample in (dataset[i] for i in range(len(dataset))):
        scored = sample["loss_mask"] == 1
        assert scored[0]  # no sample of padding alone
        assert (np.diff(sample["loss_mask"]) <= 0).all()
        assert (sample["labels"][~scored] == 0).all()
        pairs += zip(
            sample["tokens"][scored].tolist(), sample["labels"][scored].tolist(), strict=True
        )

    context = [999] if has_eod else []
    line = [*context, *tokens.tolist()]
    assert pairs == list(pairwise(line))
    assert len(pairs) == dataset.num_scored_tokens == len(tokens) - (not has_eod)


def test_the_first_token_is_predicted_from_the_end_of_document_token(write_prefix):
    sample = SampleDataset(write_prefix([[5, 6, 0]], eod_id=0), 4, order="sequential")[0]

    assert sample["tokens"].tolist() == [0, 5, 6, 0]
    assert sample["labels"].tolist() == [5, 6, 0, 0]
    assert sample["loss_mask"].tolist() == [1, 1, 1, 0]


def test_a_foreign_dataset_is_told_its_end_of_document_token(write_prefix):
    prefix = write_prefix([[5, 6, 3]], eod_id=None)
    Path(f"{prefix}.json").unlink()

    assert SampleDataset(prefix, 4, order="sequential").num_scored_tokens == 2
    dataset = SampleDataset(prefix, 4, order="sequential", eod_id=3)
    assert dataset.num_scored_tokens == 3
    assert dataset[0]["tokens"][0] == 3


def test_an_end_of_document_token_that_contradicts_the_manifest_is_refused(write_prefix):
    with pytest.raises(IndexedDatasetError, match="eod_id 3 was given, but its manifest says 0"):
        SampleDataset(write_prefix([[5, 0]]), 4, order="sequential", eod_id=3)


def test_the_order_ends_and_does_not_repeat(write_prefix):
    dataset = SampleDataset(write_prefix([list(range(1, 10))]), 4, order="sequential")

    assert len(dataset) == 3
    with pytest.raises(IndexError, match="sample 3"):
        dataset.sample(3)
    with pytest.raises(IndexedDatasetError, match="3 sequential samples, but num_samples is 4"):
        SampleDataset(write_prefix([list(range(1, 10))]), 4, order="sequential", num_samples=4)


def test_a_single_token_without_context_cannot_be_scored(write_prefix):
    with pytest.raises(IndexedDatasetError, match="has no context"):
        SampleDataset(write_prefix([[5]], eod_id=None), 4, order="sequential")
