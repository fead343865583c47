"""Blends: even shares at every prefix, any position found alone, each dataset's order its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    BlendedDataset,
    IndexedDatasetError,
    SampleDataset,
    TokenizerMismatchError,
    describe,
    temperature_weights,
)
from gristmill.indexed_dataset.blend import MAX_TOTAL_WEIGHT, BlendTree
from gristmill.kernels import blend as kernels
from gristmill.kernels.reference import blend as reference

WEIGHTS = st.one_of(
    st.lists(st.integers(1, 20), min_size=1, max_size=12),
    st.lists(st.integers(1, 10_000), min_size=1, max_size=40),
    st.lists(st.sampled_from([1, 2, 1000, 100_000]), min_size=2, max_size=20),
)


@given(weights=WEIGHTS)
def test_every_prefix_is_within_two_samples_of_its_ideal(weights):
    tree = BlendTree(weights)
    datasets, _ = tree.locate_many(np.arange(2000))
    given_so_far = np.cumsum(datasets[:, None] == np.arange(len(weights)), axis=0)
    ideal = np.arange(1, 2001)[:, None] * np.array(tree.weights) / tree.total_weight

    assert np.abs(given_so_far - ideal).max() < 2


@given(weights=WEIGHTS, start=st.integers(0, 2**40 - 300))
def test_any_position_is_found_without_walking_from_the_start(weights, start):
    tree = BlendTree(weights)
    counts = tree.counts(start)
    assert sum(counts) == start
    for position in range(start, start + 200):
        dataset, index = tree.locate(position)
        assert index == counts[dataset]  # the next one of its dataset, none left out
        counts[dataset] += 1
    assert counts == tree.counts(start + 200)
    ideal = (start + 200) * np.array(tree.weights) / tree.total_weight
    assert np.abs(counts - ideal).max() < 2.5


@given(
    weights=WEIGHTS,
    positions=st.lists(st.integers(0, 2**40 - 1), max_size=20),
)
def test_kernel_and_twin_agree(weights, positions):
    tree = BlendTree(weights)
    arrays = (
        np.array(positions, np.int64),
        np.array(tree.children, np.int64).reshape(-1, 2),
        np.array(tree.node_weights, np.int64).reshape(-1, 2),
    )
    found = kernels.locate_in_blend(*arrays)
    expected = reference.locate_in_blend(*arrays)

    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_largest_weights_and_positions_do_not_overflow():
    tree = BlendTree([1, MAX_TOTAL_WEIGHT - 1])
    positions = np.arange(2**40 - 50, 2**40)

    datasets, indices = tree.locate_many(positions)

    assert list(zip(datasets.tolist(), indices.tolist(), strict=True)) == [
        tree.locate(int(position)) for position in positions
    ]
    with pytest.raises(ValueError, match="beyond 0 to"):
        tree.locate_many(np.array([2**40]))


def test_worked_value():
    tree = BlendTree([10, 20])  # the same as 1 and 2

    assert [tree.locate(i) for i in range(6)] == [(1, 0), (0, 0), (1, 1), (1, 2), (0, 1), (1, 3)]
    assert BlendTree([7]).locate(12345) == (0, 12345)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], "one dataset or more"),
        ([1, 0], "weight 1 or more"),
        ([5_000_000, 1], "add up to 50000"),
    ],
)
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(IndexedDatasetError, match=message):
        BlendTree(weights)
    with pytest.raises(TypeError):
        BlendTree([0.5, 0.5])


@pytest.fixture
def languages(write_prefix, random_documents):
    """Three datasets whose samples say where they come from."""

    def make(size=8, **options):
        return [
            SampleDataset(
                write_prefix(random_documents(20 * (n + 1), seed=n), name), size, **options
            )
            for n, name in enumerate(("deu_Latn", "eng_Latn", "zho_Hans"))
        ]

    return make


def test_a_blend_draws_from_its_datasets_in_their_own_order(languages):
    datasets = languages()
    blend = BlendedDataset(datasets, [1, 2, 4], num_samples=3000)
    drawn = [0, 0, 0]
    for position in range(len(blend)):
        sample = blend[position]
        source = sample["dataset_id"]
        np.testing.assert_array_equal(
            sample["tokens"], datasets[source].sample(drawn[source])["tokens"]
        )
        drawn[source] += 1

    assert drawn == blend.consumed(3000)
    assert np.abs(np.array(drawn) - 3000 * np.array([1, 2, 4]) / 7).max() < 2


def test_another_dataset_in_the_blend_changes_nothing_for_the_others(languages):
    datasets = languages()
    two = BlendedDataset(datasets[:2], [1, 1])
    three = BlendedDataset(datasets, [1, 1, 5])

    def texts(blend, source, number):
        found = []
        for position in range(10_000):
            sample = blend.sample(position)
            if sample["dataset_id"] == source:
                found.append(tuple(sample["tokens"]))
            if len(found) == number:
                return found
        raise AssertionError

    for source in (0, 1):
        assert texts(two, source, 100) == texts(three, source, 100)


def test_a_changed_blend_goes_on_where_each_dataset_was(languages):
    datasets = languages()
    first = BlendedDataset(datasets, [1, 1, 1])
    state = first.consumed(100)
    second = BlendedDataset(datasets, [5, 1, 1], starts=state)

    seen = {(s, i) for s, i in map(first.locate, range(100))}
    more = {(s, i) for s, i in map(second.locate, range(100))}
    assert not seen & more
    for source in range(3):
        numbers = sorted(i for s, i in seen | more if s == source)
        assert numbers == list(range(len(numbers)))
    assert sum(second.consumed(100)) == 200


def test_by_default_weights_are_those_of_the_tokens(languages):
    datasets = languages()
    blend = BlendedDataset(datasets)
    shares = np.array(blend.tree.weights) / blend.tree.total_weight
    tokens = np.array([d.num_tokens for d in datasets])

    np.testing.assert_allclose(shares, tokens / tokens.sum(), atol=1e-5)
    assert len(blend) == sum(len(d) for d in datasets)
    np.testing.assert_array_equal(blend[-1]["tokens"], blend[len(blend) - 1]["tokens"])


def test_fingerprints_tell_blends_apart(languages):
    datasets = languages()
    prints = {
        BlendedDataset(datasets, [1, 1, 2]).fingerprint,
        BlendedDataset(datasets, [1, 2, 1]).fingerprint,
        BlendedDataset(datasets, [1, 1, 2], starts=[0, 0, 1]).fingerprint,
        BlendedDataset(languages(seed=1), [1, 1, 2]).fingerprint,
        BlendedDataset(languages(size=9), [1, 1, 2]).fingerprint,
        BlendedDataset(languages(documents="separate"), [1, 1, 2]).fingerprint,
    }

    assert len(prints) == 6
    assert BlendedDataset(languages(), [2, 2, 4]).fingerprint in prints


def test_a_blend_that_does_not_fit_together_is_refused(languages, write_prefix):
    datasets = languages()
    with pytest.raises(IndexedDatasetError, match="2 weights for 3 datasets"):
        BlendedDataset(datasets, [1, 2])
    with pytest.raises(IndexedDatasetError, match="1 starts for 3 datasets"):
        BlendedDataset(datasets, starts=[1])
    with pytest.raises(IndexedDatasetError, match=r"sequence lengths \[8, 9\]"):
        BlendedDataset([*datasets, languages(size=9)[0]])
    with pytest.raises(IndexedDatasetError, match="one dataset or more"):
        BlendedDataset([])
    with pytest.raises(IndexError, match="sample 99999 was asked for"):
        BlendedDataset(datasets)[99_999]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokenizer": {"path": "t", "fingerprint": "cd"}}, "tokenizer fingerprint cd, but .* ab"),
        ({"vocab_size": 50_000}, "vocab_size 50000, but .* has 60000"),
        ({"eod_id": 3}, "eod_id 3, but .* has 0"),
    ],
)
def test_different_tokenizers_are_not_blended(write_prefix, fields, message):
    base = {"tokenizer": {"path": "t", "fingerprint": "ab"}}
    first = write_prefix([[1, 2, 3]], "a", **base)
    second = write_prefix([[1, 2, 3]], "b", **{**base, **fields})

    with pytest.raises(TokenizerMismatchError, match=message):
        BlendedDataset([SampleDataset(first, 2), SampleDataset(second, 2)])
    with pytest.raises(TokenizerMismatchError, match=message):
        SampleDataset([first, second], 2)


def test_the_description_shows_epochs_before_anything_is_trained(languages):
    datasets = languages()
    text = describe(BlendedDataset(datasets, [1, 1, 2]), num_samples=400)
    epochs = 100 / datasets[0].samples_per_epoch

    assert text.startswith("blend of 3:")
    assert "400 samples of 8 = 3,200 tokens to draw" in text
    assert f"weight 1 (25.00%) deu_Latn: 100 samples of 8 = {epochs:.2f} epochs" in text
    assert "20 documents" in text
    assert describe(datasets[0]).splitlines()[0].startswith("deu_Latn: ")
    assert "documents shuffled" in describe(datasets[0].split.shards[0])


def test_the_description_of_shards_lists_languages(write_prefix):
    row = {"documents": 1, "tokens": 3, "text_bytes": 7}
    prefixes = [
        write_prefix([[1, 2, 0]], f"s{n}", group="all", text_bytes=7, languages={"eng_Latn": row})
        for n in range(2)
    ]
    text = describe(SampleDataset(prefixes, 2))

    assert text.startswith("all: 3 samples")
    assert "2 shards: 2 documents, 14 bytes of text" in text
    assert text.count("language eng_Latn: 1 documents, 3 tokens, 7 bytes of text") == 2


@given(
    counts=st.lists(st.integers(1, 10**13), min_size=1, max_size=50),
    alpha=st.floats(0, 1.5),
)
def test_weights_by_temperature_add_up_and_keep_the_order(counts, alpha):
    weights = temperature_weights(counts, alpha)
    ideal = np.array(counts, float) ** alpha

    assert sum(weights) == 1_000_000
    assert min(weights) >= 1
    np.testing.assert_allclose(
        weights, 1 + ideal / ideal.sum() * (1_000_000 - len(counts)), atol=1.01
    )


def test_weights_by_temperature_worked_values():
    assert temperature_weights([900, 100], 0.5, total=100) == [75, 25]
    assert temperature_weights([900, 100], 1.0, total=1002) == [901, 101]
    assert temperature_weights([10**12, 1], 0.0, total=10) == [5, 5]
    assert temperature_weights([1, 1, 1], 1.0, total=10) == [4, 3, 3]


@pytest.mark.parametrize(
    ("counts", "alpha", "total", "message"),
    [
        ([5, 0], 0.5, 100, "one token or more"),
        ([], 0.5, 100, "one token or more"),
        ([5], -0.1, 100, "alpha is -0.1"),
        ([5], float("nan"), 100, "alpha is nan"),
        ([5, 5, 5], 0.5, 2, "3 weights cannot add up to 2"),
    ],
)
def test_impossible_temperatures_are_refused(counts, alpha, total, message):
    with pytest.raises(IndexedDatasetError, match=message):
        temperature_weights(counts, alpha, total=total)
