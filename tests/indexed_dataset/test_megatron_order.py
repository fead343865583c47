"""Order megatron: the same samples as GPTDataset of megatron-core 0.16.1, on random corpora."""

import hashlib
import os
import pickle

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    CorruptIndexError,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    SampleDataset,
    UnknownOrderError,
)
from gristmill.indexed_dataset.megatron_order import MegatronOptions, MegatronOrder, split_bounds

PARTS = ("train", "valid", "test")
DEEP = bool(os.environ.get("GRISTMILL_TEST_DEEP"))


def random_case(random):
    """A corpus, with empty documents now and then, and what is asked of it."""
    num_documents = int(random.integers(1, 60))
    lengths = random.integers(0, random.choice([3, 20, 200]), size=num_documents)
    lengths[random.random(num_documents) < random.choice([0, 0, 0.3])] = 0
    lengths[random.integers(num_documents)] += random.integers(2, 40)
    shares = random.choice(["969,30,1", "1", "80,15,5", "1,1,1", "0.5,0,.5", "3,99"])
    size = int(random.integers(2, random.choice([5, 30, 400])))
    epochs = random.choice([0.3, 1, 1.1, 1.9, 4.7])
    num_samples = 1 + int(lengths.sum() * epochs / size * random.random())
    return lengths, str(shares), size, None if random.random() < 0.2 else num_samples


def differences(oracle, seed):
    """Compare one random corpus, all parts of its split, in all four modes; count the orders."""
    random = np.random.default_rng(seed)
    lengths, split, size, num_samples = random_case(random)
    corpus, compared = oracle.Corpus(lengths), 0
    for part, bounds in oracle.split_bounds(split, len(lengths)).items():
        assert split_bounds(split, len(lengths))[part] == bounds, (seed, part)
        if bounds is None or lengths[slice(*bounds)].sum() < size + 1:
            continue
        for extra in (True, False):
            for drop_last in (True, False) if part == "valid" else (True,):
                config = oracle.megatron_config(size, seed, extra=extra, drop_last=drop_last)
                options = MegatronOptions(split, part, extra, drop_last)
                ours = MegatronOrder(corpus.as_split(), size, seed, num_samples, options)
                where = seed, part, extra, drop_last
                if ours.sample_index()[-1, 1] < 0:
                    # A padded sample that ends at an empty document: Megatron stops at its own
                    # assertion there, ours ends with the last token.
                    with pytest.raises(AssertionError):
                        corpus.megatron(*bounds, num_samples, part, config)
                    assert all(ours.spans(position) for position in range(ours.max_samples)), where
                    continue
                theirs = corpus.megatron(*bounds, num_samples, part, config)
                assert ours.max_samples == len(theirs), where
                for mine, their in (
                    (ours.document_index, theirs.document_index),
                    (ours.shuffle_index, theirs.shuffle_index),
                    (ours.sample_index(), theirs.sample_index),
                ):
                    assert mine.dtype == their.dtype, where
                    np.testing.assert_array_equal(mine, their, err_msg=str(where))
                for position in {0, len(theirs) - 1, int(random.integers(len(theirs)))}:
                    text = theirs._query_document_sample_shuffle_indices(position)[0]
                    spans = [np.arange(*span) + 1 for span in ours.spans(position)]
                    found = np.concatenate(spans)
                    np.testing.assert_array_equal(found, text[: len(found)], err_msg=str(where))
                    assert (text[len(found) :] == -1).all(), where
                compared += 1
    return compared


def compare_corpora(oracle, seeds):
    return sum(differences(oracle, seed) for seed in seeds)


def test_two_thousand_random_corpora_have_the_indices_and_tokens_of_gpt_dataset(oracle):
    assert compare_corpora(oracle, range(2000)) > 4000


@pytest.mark.deep
@pytest.mark.skipif(not DEEP, reason="GRISTMILL_TEST_DEEP is not set")
@pytest.mark.parametrize("part", range(10))
def test_fifty_thousand_more_random_corpora(oracle, part):
    first = 10_000 + 5000 * part

    assert compare_corpora(oracle, range(first, first + 5000)) > 10_000


def short_hash(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("num_samples", "epochs", "shape", "begins", "hashes"),
    [
        (
            None,
            1,
            (149, 2),
            ([40, 35, 81, 61, 98, 68], [34, 0, 110, 70, 135, 128]),
            ("67816c2ba0301148", "078a896582cc858e", "c1e7ea220b8b09ff"),
        ),
        (
            500,
            4,
            (593, 2),
            ([64, 0, 73, 63, 15, 75], [166, 206, 333, 140, 365, 76]),
            ("7bc9427629fb8b6e", "546ecbeea7b65b00", "c936b3c301318bb5"),
        ),
    ],
)
def test_golden_indices(oracle, num_samples, epochs, shape, begins, hashes):
    lengths = np.random.RandomState(7).randint(1, 50, 100)

    order = MegatronOrder(oracle.Corpus(lengths).as_split(), 16, 1234, num_samples)

    assert order.tokens_per_epoch == 2369
    assert (order.num_epochs, order.separate_final_epoch) == (epochs, num_samples is not None)
    rows = order.sample_index()
    assert rows.shape == shape
    assert (order.document_index[:6].tolist(), order.shuffle_index[:6].tolist()) == begins
    if num_samples is None:
        assert rows[:4].tolist() == [[0, 0], [2, 7], [3, 4], [3, 20]]
    indices = order.document_index, rows.astype(np.int32), order.shuffle_index
    assert tuple(short_hash(index) for index in indices) == hashes


@pytest.mark.parametrize("extra", [True, False])
def test_more_tokens_than_thirty_two_bits_can_count(oracle, extra):
    lengths = [2**31 - 1, 0, 2**31 - 1, 2**31 - 100, 7]
    corpus = oracle.Corpus(lengths)
    config = oracle.megatron_config(2**29 + 3, 5, extra=extra)
    theirs = corpus.megatron(0, 5, 40, "train", config)

    ours = MegatronOrder(
        corpus.as_split(), 2**29 + 3, 5, 40, MegatronOptions(add_extra_token=extra)
    )

    np.testing.assert_array_equal(ours.sample_index(), theirs.sample_index)
    np.testing.assert_array_equal(ours.shuffle_index, theirs.shuffle_index)
    for position in range(ours.max_samples):
        spans = ours.spans(position)
        assert sum(stop - start for start, stop in spans) == 2**29 + 3 + extra
        place, offset = theirs.sample_index[theirs.shuffle_index[position]]
        first = corpus._starts[theirs.document_index[place]] + offset
        assert spans[0][0] == first or offset == lengths[theirs.document_index[place]]


def test_the_count_in_float32_is_megatrons_only_when_it_is_asked_for(oracle):
    """2**25 + 2 tokens: their float32 count loses the last sample."""
    corpus = oracle.Corpus([2**25 + 2])
    config = oracle.megatron_config(1024, 1, drop_last=False)
    theirs = corpus.megatron(0, 1, None, "valid", config)

    exact, rounded = (
        MegatronOrder(
            corpus.as_split(),
            1024,
            1,
            options=MegatronOptions(drop_last_partial=False, float32_count=switch),
        )
        for switch in (False, True)
    )

    assert (exact.max_samples, rounded.max_samples, len(theirs)) == (32769, 32768, 32768)
    np.testing.assert_array_equal(rounded.sample_index(), theirs.sample_index)
    np.testing.assert_array_equal(rounded.shuffle_index, theirs.shuffle_index)


@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize("part", PARTS)
def test_samples_of_a_prefix_are_those_of_megatrons_builder(
    oracle, tmp_path, random_documents, write_prefix, extra, part
):
    prefix = write_prefix(random_documents(300, seed=3))
    sizes = dict(zip(PARTS, (900, 40, None), strict=True))
    config = oracle.megatron_config(
        16,
        77,
        extra=extra,
        drop_last=False,
        blend=([str(prefix)], None),
        split="80,15,5",
        path_to_cache=str(tmp_path / "cache"),
    )
    theirs = oracle.build_all(list(sizes.values()), config)[PARTS.index(part)]

    ours = SampleDataset(
        prefix,
        16,
        seed=77,
        order=MegatronOptions("80,15,5", part, extra, drop_last_partial=part != "valid"),
        num_samples=sizes[part],
    )

    assert ours.max_samples == len(theirs)
    assert len(ours) == (sizes[part] or len(theirs))
    scored = 0
    for position in range(len(theirs)):
        sample = ours.sample(position)
        scored += sample["loss_mask"].sum()
        for name in ("tokens", "labels", "loss_mask", "position_ids"):
            np.testing.assert_array_equal(sample[name], theirs[position][name].numpy())
    if part == "test":  # one epoch
        assert scored == ours.num_scored_tokens


def test_documents_kept_apart_start_where_the_index_says(write_prefix):
    """Each document repeats one id, so the true bounds can be seen in the tokens."""
    prefix = write_prefix([[number] * (number % 7) for number in range(1, 80)])
    dataset = SampleDataset(prefix, 12, order="megatron", documents="separate", num_samples=50)

    for position in range(dataset.max_samples):
        sample = dataset.sample(position)
        changes = np.flatnonzero(np.diff(sample["tokens"])) + 1
        bounds = sample["cu_seqlens"]
        assert bounds[: len(changes) + 2].tolist() == [0, *changes, 12]
        assert (bounds[len(changes) + 2 :] == 12).all()
        np.testing.assert_array_equal(bounds[: len(changes) + 2], dataset.cu_seqlens(position))
        np.testing.assert_array_equal(
            sample["loss_mask"], sample["tokens"] == sample["labels"], err_msg=str(position)
        )
        assert (sample["position_ids"][changes] == 0).all()


def test_a_group_of_shards_is_sampled_like_its_merged_prefix(random_documents, write_prefix):
    documents = random_documents(90, seed=5)
    whole = write_prefix(documents, "whole")
    shards = [
        write_prefix(documents[low:high], f"shard{low}")
        for low, high in ((0, 20), (20, 21), (21, 90))
    ]
    options = MegatronOptions("60,40,0", "train")
    merged, grouped = (
        SampleDataset(prefixes, 10, seed=2, order=options, num_samples=700)
        for prefixes in (whole, shards)
    )

    for position in range(merged.max_samples):
        np.testing.assert_array_equal(
            merged.sample(position)["tokens"], grouped.sample(position)["tokens"]
        )


def test_an_order_travels_to_another_process_before_and_after_its_first_sample(
    random_documents, write_prefix
):
    dataset = SampleDataset(write_prefix(random_documents(50)), 8, order="megatron")
    fresh = pickle.loads(pickle.dumps(dataset))
    first = dataset.sample(5)["tokens"]
    used = pickle.loads(pickle.dumps(dataset))

    for copy in (fresh, used):
        np.testing.assert_array_equal(copy.sample(5)["tokens"], first)


def test_a_longer_run_and_other_rules_are_another_order_and_say_so(random_documents, write_prefix):
    prefix = write_prefix(random_documents(50))
    datasets = [
        SampleDataset(prefix, 8, order="megatron", num_samples=num_samples, **fields)
        for num_samples, fields in ((10, {}), (1000, {}), (10, {"seed": 1}))
    ] + [SampleDataset(prefix, 8, order=MegatronOptions(add_extra_token=False), num_samples=10)]

    assert len({dataset.order_identity for dataset in datasets}) == 4


def test_a_part_without_tokens_is_an_error_and_not_an_endless_loop(random_documents, write_prefix):
    prefix = write_prefix(random_documents(20))
    with pytest.raises(IndexedDatasetError) as caught:
        SampleDataset(
            prefix, 8, order=MegatronOptions("999,0.5,0.5", "test"), num_samples=100, seed=1
        )
    message = str(caught.value)

    assert (
        "data (part 'test' of split '999,0.5,0.5') has 0 of 20 sequences with 0 tokens" in message
    )
    assert "one sample needs 9" in message
    with pytest.raises(IndexedDatasetError, match="part 'valid' of split '1,0,0'"):
        SampleDataset(prefix, 8, order=MegatronOptions("1,0,0", "valid"))


def test_a_part_too_small_for_one_sample_is_refused_unless_it_may_be_padded(write_prefix):
    prefix = write_prefix([[1, 2, 3]])
    with pytest.raises(IndexedDatasetError, match="with 3 tokens, but one sample needs 9"):
        SampleDataset(prefix, 8, order="megatron")

    padded = SampleDataset(prefix, 8, order=MegatronOptions(drop_last_partial=False))

    assert len(padded) == 1
    assert padded[0]["tokens"].tolist() == [1, 2, 3, 0, 0, 0, 0, 0]
    assert padded[0]["labels"].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]
    assert padded[0]["loss_mask"].sum() == padded.num_scored_tokens == 2


def test_what_megatron_cannot_be_asked_is_refused_with_the_value(oracle):
    split = oracle.Corpus([50]).as_split()
    for seed, options, message in (
        (2**32, MegatronOptions(), "seed is 4294967296"),
        (0, MegatronOptions("9,1", "dev"), "part is 'dev'. Choose one of: train, valid, test"),
        (0, MegatronOptions("none"), "split is 'none'"),
        (0, MegatronOptions("1,1,1,1"), "split is '1,1,1,1'"),
        (0, MegatronOptions("0,0"), "split is '0,0'"),
    ):
        with pytest.raises(IndexedDatasetError, match=message):
            MegatronOrder(split, 8, seed, options=options)
    with pytest.raises(UnknownOrderError, match="megatron"):
        SampleDataset("nowhere", 8, order="shuffled")


def test_an_index_that_contradicts_itself_is_found_when_it_is_used(oracle):
    corpus = oracle.Corpus([10, 20, 30])
    corpus._starts[1] += 1
    order = MegatronOrder(corpus.as_split(), 60, 0, options=MegatronOptions(add_extra_token=False))

    with pytest.raises(
        CorruptIndexError, match="corpus: sequence 1 starts at byte 22, but .* end at byte 20"
    ):
        order.spans(0)


def test_sequences_are_what_megatron_calls_documents(tmp_path, oracle):
    with IndexedDatasetBuilder(tmp_path / "data", dtype="uint16") as builder:
        for first in range(1, 200, 10):
            builder.add_document(np.arange(first, first + 10), [3, 0, 7])
    ours = SampleDataset(tmp_path / "data", 8, seed=4, order="megatron", num_samples=60)
    corpus = oracle.Corpus([3, 0, 7] * 20)
    theirs = corpus.megatron(0, 60, 60, "train", oracle.megatron_config(8, 4))

    for position in range(len(theirs)):
        np.testing.assert_array_equal(
            ours.sample(position)["tokens"], theirs[position]["tokens"].numpy()
        )
