"""Blends: even shares at every prefix, any position found alone, each dataset's order its own."""

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    BlendedDataset,
    IndexedDatasetError,
    SampleDataset,
    TokenizerMismatchError,
    describe,
)


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
        BlendedDataset(datasets, [1, 1, 2], max_epochs=3).fingerprint,
        BlendedDataset(languages(seed=1), [1, 1, 2]).fingerprint,
        BlendedDataset(languages(size=9), [1, 1, 2]).fingerprint,
        BlendedDataset(languages(documents="separate"), [1, 1, 2]).fingerprint,
    }

    assert len(prints) == 7
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
    blend = BlendedDataset(datasets, [1, 1, 2], max_epochs=[1.5, None, None])
    lines = describe(blend, num_samples=400).splitlines()
    cap = int(1.5 * datasets[0].samples_per_epoch)
    left = (400 - cap) / 3
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:6]}

    assert lines[0] == "blend of 3: 2,538 tokens, 400 samples of 8 = 3,200 tokens to draw"
    assert lines[1].split() == [
        *("share", "tokens", "samples", "drawn", "tokens", "epochs", "repeats")
    ]
    assert rows["deu_Latn"][:3] == ["25.00%", f"{datasets[0].num_tokens:,}", str(cap)]
    assert rows["deu_Latn"][4] == f"{cap / datasets[0].samples_per_epoch:.2f}"
    assert rows["deu_Latn"][5] == f"{1 - datasets[0].samples_per_epoch / cap:.0%}"
    assert float(rows["eng_Latn"][2]) == pytest.approx(left, abs=4)
    assert rows["all"][2:4] == ["400", "3,200"]
    assert lines[6].startswith("  deu_Latn reaches max_epochs = 1.5 at sample")
    assert describe(datasets[0]).splitlines()[0].startswith("deu_Latn: ")
    assert "documents shuffled" in describe(datasets[0].split.shards[0])


def test_a_cap_ends_a_dataset_at_exactly_its_epochs_and_the_others_go_on(languages):
    datasets = languages()
    blend = BlendedDataset(datasets, [5, 1, 1], max_epochs=[2, None, 0.5])
    capped = [2 * datasets[0].samples_per_epoch, None, datasets[2].samples_per_epoch // 2]
    positions = [blend.locate(position) for position in range(1500)]

    for number, cap in enumerate(capped):
        given = [index for dataset, index in positions if dataset == number]
        assert given == list(range(len(given)))
        assert cap is None or len(given) == cap
    last = BlendedDataset(datasets, [5, 1, 1], max_epochs=1)
    assert len(last) == sum(dataset.samples_per_epoch for dataset in datasets)
    with pytest.raises(IndexError, match="Raise max_epochs, add data"):
        last.sample(len(last))
    with pytest.raises(IndexedDatasetError, match="deu_Latn: max_epochs is 0, but"):
        BlendedDataset(datasets, max_epochs=0)


def test_epochs_given_before_count_for_the_cap(languages):
    datasets = languages()
    first = BlendedDataset(datasets, [1, 1, 1], max_epochs=1)
    after = first.consumed(30)
    second = BlendedDataset(datasets, [1, 5, 1], max_epochs=1, starts=after)

    everything = {first.locate(i) for i in range(30)} | {
        second.locate(i) for i in range(second.tree.num_samples)
    }
    assert everything == {
        (number, index)
        for number, dataset in enumerate(datasets)
        for index in range(dataset.samples_per_epoch)
    }


def test_a_dataset_of_weight_zero_is_named_and_never_drawn(languages):
    blend = BlendedDataset(languages(), [1, 0, 1])

    assert {blend.sample(position)["dataset_id"] for position in range(50)} == {0, 2}
    assert blend.consumed(50) == [25, 0, 25]


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
