"""The order `best_fit`: whole documents, each once an epoch, padded and cut by position."""

import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    BlendedDataset,
    BlendState,
    DataChangedError,
    IndexedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    Phase,
    PhasedBlend,
    SampleDataset,
    describe,
    describe_phases,
    passages,
)


def write(folder, name, lengths, first=1):
    """Write documents whose ids rise through the whole dataset, so that each id tells its place."""
    with IndexedDatasetBuilder(folder / name, dtype="int32", overwrite=True) as builder:
        for length in lengths:
            builder.add_document(np.arange(first, first + length))
            first += length
        builder.finalize(document_order="shuffled")
    return folder / name


def scored(sample):
    kept = sample["loss_mask"] > 0
    return list(zip(sample["tokens"][kept].tolist(), sample["labels"][kept].tolist(), strict=True))


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40).filter(any),
    st.integers(1, 12),
    st.integers(0, 5),
    st.integers(1, 3),
)
def test_an_epoch_has_each_token_once_and_no_label_crosses_documents(
    tmp_path_factory, lengths, size, seed, num_shards
):
    folder = tmp_path_factory.mktemp("best_fit")
    cuts = np.array_split(np.array(lengths), num_shards)
    starts = [1 + sum(int(part.sum()) for part in cuts[:k]) for k in range(num_shards)]
    shards = [
        write(folder, f"s{k}", part.tolist(), first)
        for k, (part, first) in enumerate(zip(cuts, starts, strict=True))
    ]
    dataset = SampleDataset(shards, size, seed=seed, order="best_fit")
    total, first_of_document = sum(lengths), set()
    place = 1
    for length in lengths:
        first_of_document |= {place} if length else set()
        place += length
    for epoch in range(2):
        tokens, labels = [], []
        for number in range(len(dataset)):
            sample = dataset.sample(epoch * len(dataset) + number)
            bounds = sample["cu_seqlens"][: np.argmax(sample["cu_seqlens"] == size) + 1]
            num_tokens = int((sample["tokens"] > 0).sum())
            assert (sample["tokens"][:num_tokens] > 0).all()
            assert (sample["loss_mask"][num_tokens:] == 0).all()
            assert all(label == token + 1 for token, label in scored(sample))
            np.testing.assert_array_equal(
                sample["position_ids"],
                np.concatenate([np.arange(n) for n in np.diff([*bounds])]),
            )
            for begin, end in pairwise(bounds):
                piece = sample["tokens"][begin:end]
                assert (np.diff(piece) == 1).all() or not piece.any()
                whole = piece[0] in first_of_document or not piece.any()
                assert whole or lengths[np.searchsorted(np.cumsum(lengths), piece[0])] > size
            tokens += sample["tokens"][:num_tokens].tolist()
            labels += [label for _, label in scored(sample)]
            assert sum(p.num_tokens for p in passages(dataset, number)) > 0
        assert sorted(tokens) == list(range(1, total + 1))
        assert sorted(labels) == sorted(set(range(1, total + 1)) - first_of_document)
        assert len(labels) == dataset.num_scored_tokens


@pytest.fixture
def lengths():
    return np.random.default_rng(4).integers(1, 30, 200).tolist()


def tokens(dataset, positions):
    return [dataset.sample(position)["tokens"].tolist() for position in positions]


def test_the_order_follows_from_the_seed_and_the_data_and_changes_every_epoch(tmp_path, lengths):
    prefix = write(tmp_path, "a", lengths)
    dataset = SampleDataset(prefix, 32, seed=1, order="best_fit")
    size = len(dataset)
    epochs = [tokens(dataset, range(e * size, (e + 1) * size)) for e in range(3)]

    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]
    again = SampleDataset(prefix, 32, seed=1, order="best_fit", num_samples=10 * size)
    assert len(again) == 10 * size
    assert tokens(again, reversed(range(size))) == epochs[0][::-1]
    assert tokens(pickle.loads(pickle.dumps(dataset)), range(size)) == epochs[0]
    other = SampleDataset(prefix, 32, seed=2, order="best_fit")
    assert tokens(other, range(size)) != epochs[0]
    assert sorted(tokens(other, range(size))) == sorted(epochs[0])


def test_joined_documents_are_refused_by_name(tmp_path):
    prefix = write(tmp_path, "a", [3, 4])
    with pytest.raises(IndexedDatasetError, match=r'order "best_fit" .* documents="separate"'):
        SampleDataset(prefix, 8, order="best_fit", documents="joined")
    with pytest.raises(IndexedDatasetError, match="block_length is 16"):
        SampleDataset(write(tmp_path, "b", [30]), 8, order="best_fit", block_length=16)
    assert SampleDataset(prefix, 8, order="best_fit").documents == "separate"
    assert SampleDataset(prefix, 8).documents == "joined"


def test_the_padding_is_told(tmp_path):
    dataset = SampleDataset(write(tmp_path, "a", [6, 6, 2]), 8, order="best_fit")

    assert (len(dataset), dataset.padding_share) == (2, 2 / 16)
    assert "(best_fit, separate, 12.50% padding)" in describe(dataset)
    blend = BlendedDataset([dataset, SampleDataset(write(tmp_path, "b", [8]), 8, order="best_fit")])
    assert "padding: 8.33% of the drawn tokens; most in a, 12.50%" in describe(blend, 3)
    assert SampleDataset(tmp_path / "a", 4).padding_share == 0
    assert "padding" not in describe(BlendedDataset([SampleDataset(tmp_path / "a", 4)]))


def test_phases_count_places_and_go_on_where_each_source_was(tmp_path, lengths):
    """640 tokens of `until_tokens` are 640 places, padded ones too; caps count bins."""
    prefixes = [write(tmp_path, "a", lengths), write(tmp_path, "b", lengths[::-1][:50])]
    num_bins = [len(SampleDataset(prefix, 32, order="best_fit")) for prefix in prefixes]

    def blend(start=None, **options):
        phases = [
            Phase(sequence_length=32, weights=[1, 1], until_tokens=640),
            Phase(sequence_length=32, weights=[3, 1], max_epochs=[None, 1.0]),
        ]
        return PhasedBlend(prefixes, phases, order="best_fit", start=start, **options)

    whole = blend()
    assert whole.phases[1].first_sample == 640 // 32
    ids = [whole.sample(i)["dataset_id"] for i in range(300)]
    assert ids.count(1) == num_bins[1]
    state = BlendState.from_dict(json.loads(json.dumps(whole.state(50).to_dict())))
    assert state.tokens == 50 * 32
    assert state.sources["a"].tokens == 32 * ids[:50].count(0)
    resumed = blend(state)
    places = [resumed.locate(position) for position in range(50, 90)]
    for source, name in enumerate("ab"):
        given_before = ids[:50].count(source)
        indices = [index for number, index in places if number == source]
        assert indices == list(range(given_before, given_before + len(indices)))
        assert resumed.state(50).sources[name].tokens == 32 * given_before
    assert "padding:" in describe_phases(whole, 300)
    with pytest.raises(DataChangedError, match=r"'best_fit'.*to be read in order 'stable'"):
        PhasedBlend(prefixes, [Phase(sequence_length=32)], start=state)
    with pytest.raises(DataChangedError, match="nobody could say"):
        PhasedBlend(prefixes, [Phase(sequence_length=64)], order="best_fit", start=state)


def test_phases_of_several_lengths_are_refused_by_name(tmp_path, lengths):
    phases = [Phase(sequence_length=8, until_tokens=80), Phase(sequence_length=16)]
    with pytest.raises(IndexedDatasetError, match=r'"best_fit" .* lengths \[8, 16\]'):
        PhasedBlend([write(tmp_path, "a", lengths)], phases, order="best_fit")
    with pytest.raises(IndexedDatasetError, match="order is 'megatron'"):
        PhasedBlend([tmp_path / "a"], phases[1:], order="megatron")


def test_documents_of_several_sequences_stay_whole(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "a", vocab_size=99) as builder:
        builder.add_document([1, 2, 3, 4], [1, 3])
        builder.add_document([])
        builder.add_document([5, 6], [1, 1])
    dataset = SampleDataset(IndexedDataset(tmp_path / "a"), 6, order="best_fit")

    assert dataset[0]["tokens"].tolist() == [1, 2, 3, 4, 5, 6]
    assert dataset[0]["cu_seqlens"].tolist() == [0, 4, 6, 6, 6, 6, 6]
    assert dataset[0]["loss_mask"].tolist() == [1, 1, 1, 0, 1, 0]
