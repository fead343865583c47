"""Document bounds inside a sample: from the index, by position, never by looking for EOD."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import IndexedDataset, IndexedDatasetBuilder, SampleDataset


def slow_cut(owner, size, num_scored):
    """Bounds, positions and mask from the document that owns each token of a window (+ label)."""
    bounds, positions, mask = [0], [], []
    for j in range(size):
        is_padding = j > num_scored
        if j and (owner[j] != owner[j - 1]):
            bounds.append(j)
        positions.append(j - bounds[-1])
        mask.append(float(not is_padding and j < num_scored and owner[j + 1] == owner[j]))
    return [*bounds, size], positions, mask


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(lambda x: sum(x) > 1),
    size=st.integers(1, 24),
    order=st.sampled_from(["stable", "sequential"]),
    num_shards=st.integers(1, 3),
)
def test_separate_documents_are_cut_where_the_index_says(
    tmp_path_factory, lengths, size, order, num_shards
):
    folder = tmp_path_factory.mktemp("separate")
    prefixes = []
    for shard, part in enumerate(np.array_split(np.array(lengths), num_shards)):
        prefixes.append(folder / str(shard))
        with IndexedDatasetBuilder(prefixes[-1], vocab_size=9) as builder:
            builder.add_documents(np.ones(part.sum(), int), part)  # every token looks alike
            builder.finalize(eod_id=1, document_order="shuffled")
    dataset = SampleDataset(prefixes, size, order=order, documents="separate", seed=sum(lengths))
    num_tokens = sum(lengths)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    for position in range(len(dataset) * (3 if order == "stable" else 1)):
        sample = dataset.sample(position)
        spans = dataset._order.spans(position)
        start, num_scored = spans[0][0], sum(b - a for a, b in spans) - 1
        # A ring of several rounds, so that wrapping into the first document is a bound as well.
        line = np.concatenate([owners + 100 * turn for turn in range(4)])
        window = np.concatenate(([-1], line))[start + 1 :][: num_scored + 1]
        owner = np.concatenate((window, np.full(size + 1 - len(window), -2)))
        bounds, positions, mask = slow_cut(owner, size, num_scored)

        assert dataset.cu_seqlens(position).tolist() == bounds
        assert sample["cu_seqlens"].tolist() == bounds + [size] * (size + 1 - len(bounds))
        assert sample["position_ids"].tolist() == positions
        assert sample["loss_mask"].tolist() == mask
    assert num_tokens == dataset.num_tokens


def test_joined_documents_have_bounds_too_but_no_cuts(write_prefix):
    dataset = SampleDataset(write_prefix([[1, 2, 0], [3, 0], [4, 5, 6, 0]]), 9)

    assert dataset.cu_seqlens(0).tolist() == [0, 3, 5, 9]
    assert dataset.cu_seqlens(0).dtype == np.int32
    assert "cu_seqlens" not in dataset[0]
    assert dataset[0]["loss_mask"].all()


def test_an_end_of_document_id_inside_of_a_document_is_no_bound(write_prefix):
    dataset = SampleDataset(write_prefix([[1, 0, 0, 2, 0], [0]]), 6, documents="separate")

    assert dataset.cu_seqlens(0).tolist() == [0, 5, 6]


def test_documents_of_several_sequences_are_one_document(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=9) as builder:
        builder.add_document([1, 2, 3, 4], [2, 2])
        builder.add_document([5, 6], [1, 1])

    assert SampleDataset(tmp_path / "data", 6).cu_seqlens(0).tolist() == [0, 4, 6]


@pytest.mark.parametrize("order", ["stable", "sequential"])
def test_separate_samples_stack(write_prefix, random_documents, order):
    dataset = SampleDataset(
        write_prefix(random_documents(50)), 32, order=order, documents="separate"
    )
    shapes = {tuple(np.shape(v) for v in dataset[i].values()) for i in range(len(dataset))}

    assert shapes == {((32,), (32,), (32,), (32,), (), (33,))}


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=20).filter(any),
    st.sampled_from(["no_sequence", "empty_sequence"]),
    st.data(),
)
def test_stepping_over_empty_documents_finds_the_same_starts(tmp_path_factory, lengths, rule, data):
    prefix = tmp_path_factory.mktemp("empty") / "data"
    with IndexedDatasetBuilder(prefix, vocab_size=9, empty_documents=rule) as builder:
        builder.add_documents(np.ones(sum(lengths), int), lengths)
    index = IndexedDataset(prefix)._index
    start = data.draw(st.integers(0, sum(lengths)))
    stop = data.draw(st.integers(start, sum(lengths)))
    expected = {sum(lengths[:k]) for k, length in enumerate(lengths) if length}

    found = index._starts_among_empty(start, stop).tolist()
    assert found == sorted(place for place in expected if start <= place < stop)
    assert found == index.document_starts(start, stop).tolist()
