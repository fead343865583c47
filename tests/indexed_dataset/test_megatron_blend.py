"""Megatron's blend: the same two indices as BlendedDataset of megatron-core 0.16.1."""

import hashlib
import math
import os
import pickle

import numpy as np
import pytest

from gristmill.indexed_dataset import BlendedDataset, IndexedDatasetError, SampleDataset
from gristmill.indexed_dataset.blend_description import describe_blend
from gristmill.indexed_dataset.megatron_blend import BLOCK, MegatronBlend, megatron_requests
from gristmill.indexed_dataset.megatron_builder import build_megatron_blend
from gristmill.indexed_dataset.megatron_order import MegatronOptions

PARTS = ("train", "valid", "test")
DEEP = bool(os.environ.get("GRISTMILL_TEST_DEEP"))


def random_weights(random):
    """Weights of very different kinds, some all equal, some equal but for their last bits."""
    number = int(random.integers(1, random.choice([4, 40, 300])))
    kind = random.integers(6)
    if kind == 0:
        return [1.0] * number
    if kind == 1:
        return (1 + 1e-15 * random.integers(0, 5, number)).tolist()
    if kind == 2:
        return (1 / np.arange(1, number + 1)).tolist()
    if kind == 3:
        return np.exp(4 * random.standard_normal(number)).tolist()
    if kind == 4:
        return random.integers(1, 4, number).astype(float).tolist()
    return random.random(number).clip(1e-6).tolist()


def compare_blends(oracle, seeds):
    for seed in seeds:
        random = np.random.default_rng(seed)
        weights = random_weights(random)
        size = int(random.integers(1, 700))
        blend = MegatronBlend(weights, size)
        requests = oracle.requests(weights, size, 0.005)
        assert megatron_requests(weights, size) == requests, seed
        target = sum(oracle.requests(weights, size, 0.0))
        check(blend, oracle.blend([10**9] * len(weights), oracle.normalize(weights), target), seed)

        sizes = random.integers(1, random.choice([3, 60]), len(weights)).tolist()
        check(MegatronBlend(None, sizes=sizes), oracle.blend(sizes, sizes, None), seed)
        some = min(size, sum(sizes))
        capped = MegatronBlend(None, size, sizes=sizes)
        check(capped, oracle.blend(sizes, sizes, some), seed)


def check(blend, theirs, seed):
    assert len(blend) == len(theirs[0]), seed
    for mine, their in zip(blend.indices(), theirs, strict=True):
        assert mine.dtype == their.dtype, seed
        np.testing.assert_array_equal(mine, their, err_msg=str(seed))


def test_a_thousand_random_blends_of_all_three_kinds_have_megatrons_indices(oracle):
    compare_blends(oracle, range(350))


@pytest.mark.deep
@pytest.mark.skipif(not DEEP, reason="GRISTMILL_TEST_DEEP is not set")
def test_ten_thousand_more_random_blends(oracle):
    compare_blends(oracle, range(1000, 4500))


def test_golden_blends():
    blend = MegatronBlend([30, 70, 5], 1000)
    datasets, indices = blend.indices()

    assert megatron_requests([30, 70, 5], 1000) == [288, 671, 49]
    assert len(blend) == 1001
    assert datasets[:20].tolist() == [1, 0, 1, 2, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0, 1]
    assert hashlib.sha256(datasets.tobytes()).hexdigest()[:16] == "850e71fc61883d3a"
    assert hashlib.sha256(indices.tobytes()).hexdigest()[:16] == "4f74254558e7b330"
    every = MegatronBlend(None, sizes=[7, 3, 5])
    assert every.indices()[0].tolist() == [0, 2, 1, 0, 2, 0, 1, 2, 0, 0, 2, 1, 0, 2, 0]


@pytest.mark.parametrize("exact", [True, False])
def test_any_position_is_found_alone_and_across_blocks(exact):
    sizes = [3 * BLOCK // 2, 17, BLOCK, 1, BLOCK // 3]
    made = (
        (lambda: MegatronBlend(None, sizes=sizes))
        if exact
        else (lambda: MegatronBlend(sizes, 9999))
    )
    blend = made()
    datasets, indices = blend.indices()

    for position in (len(blend) - 1, 0, BLOCK, BLOCK - 1, 2 * BLOCK + 5, *range(1, len(blend), 97)):
        expected = (datasets[position], indices[position])
        assert blend.locate(position) == expected
    assert made().locate(2 * BLOCK) == (datasets[2 * BLOCK], indices[2 * BLOCK])
    assert pickle.loads(pickle.dumps(blend)).locate(77) == blend.locate(77)
    for num_samples in (0, 1, BLOCK, BLOCK + 1, len(blend)):
        drawn = np.bincount(datasets[:num_samples], minlength=5).tolist()
        assert blend.counts(num_samples) == made().counts(num_samples) == drawn
    for position in (-1, len(blend)):
        with pytest.raises(IndexError, match=f"position {position} was asked for"):
            blend.locate(position)


def test_what_is_drawn_stays_below_the_share_and_two(oracle):
    """The bound by which a blend is known to suffice without walking through it."""
    for seed in range(300):
        random = np.random.default_rng(seed)
        blend = MegatronBlend(random_weights(random), int(random.integers(1, 700)))
        drawn = blend.counts(len(blend))
        for count, weight in zip(drawn, blend.weights, strict=True):
            assert count < len(blend) * weight + 2
        assert blend.overdrawn(drawn) == {}
        short = [max(count - 1, 0) for count in drawn]
        assert blend.overdrawn(short) == {k: n for k, n in enumerate(drawn) if n}


@pytest.fixture
def prefixes(random_documents, write_prefix):
    sizes = (120, 40, 300)
    return [write_prefix(random_documents(size, seed=size), f"data{size}") for size in sizes]


CASES = {
    "weights": ([0.3, 0.5, 0.2], (900, 60, 30)),
    "by their sizes, capped": (None, (300, 20, 3)),
    "all there is": (None, (None, None, None)),
}


@pytest.mark.parametrize("split", ["60,25,15", None])
@pytest.mark.parametrize("case", CASES)
def test_samples_of_a_blend_are_those_of_megatrons_builder(oracle, tmp_path, prefixes, case, split):
    weights, sizes = CASES[case]
    blend = ([str(prefix) for prefix in prefixes], weights)
    where = {"blend": blend, "split": split} if split else {"blend_per_split": [blend] * 3}
    config = oracle.megatron_config(16, 9, **where)
    with oracle.no_index_files(tmp_path):
        built = oracle.build_all(list(sizes), config)
    for part, size, theirs in zip(PARTS, sizes, built, strict=True):
        ours = build_megatron_blend(
            prefixes,
            16,
            weights=weights,
            num_samples=size,
            seed=9,
            options=MegatronOptions(split, part),
        )

        assert len(ours) == len(theirs)
        for position in range(len(theirs)):
            mine, their = ours[position], theirs[position]
            assert mine["dataset_id"] == their["dataset_id"]
            for name in ("tokens", "labels", "loss_mask", "position_ids"):
                np.testing.assert_array_equal(mine[name], their[name].numpy())


def test_one_prefix_is_taken_as_it_is_unless_it_has_a_weight_and_a_split(
    oracle, tmp_path, prefixes
):
    for weights, split in ((None, "9,1"), ([1.0], "9,1"), ([2.0], None)):
        blend = ([str(prefixes[0])], weights)
        where = (
            {"blend": blend, "split": split} if split else {"blend_per_split": [blend, None, None]}
        )
        with oracle.no_index_files(tmp_path):
            theirs = oracle.build_all([700, 0, 0], oracle.megatron_config(16, 9, **where))[0]
        ours = build_megatron_blend(
            prefixes[:1],
            16,
            weights=weights,
            num_samples=700,
            seed=9,
            options=MegatronOptions(split),
        )

        assert len(ours) == len(theirs)
        for position in range(len(theirs)):
            np.testing.assert_array_equal(
                ours[position]["tokens"], theirs[position]["tokens"].numpy()
            )


def test_a_dataset_that_would_fall_short_is_asked_for_what_is_drawn(write_prefix):
    """Megatron stops here: the surplus of half a percent is less than one sample."""
    prefixes = [write_prefix([[k] * 65], f"p{k}") for k in range(1, 40)]
    weights = np.random.default_rng(11).random(39).tolist()

    blend = build_megatron_blend(prefixes, 16, weights=weights, num_samples=156, surplus=0.0)

    drawn = blend.consumed(len(blend))
    requests = megatron_requests(weights, 156, 0.0)
    assert any(count > request for count, request in zip(drawn, requests, strict=True))
    for position in range(len(blend)):
        assert blend[position]["tokens"][0] == blend[position]["dataset_id"] + 1


def test_a_blend_of_datasets_that_are_too_small_is_refused_before_it_runs(write_prefix):
    datasets = [
        SampleDataset(write_prefix([[k] * 65], f"p{k}"), 16, order="megatron") for k in range(2)
    ]

    with pytest.raises(IndexedDatasetError, match=r"draws 5 from p0, which has 4.*num_samples 5"):
        BlendedDataset(datasets, MegatronBlend([1, 1], 10))
    fine = BlendedDataset(datasets, MegatronBlend([1, 1], 8))
    assert [fine[i]["dataset_id"] for i in range(8)] == [0, 1] * 4
    for fields in ({"max_epochs": 2}, {"starts": [1, 0]}):
        with pytest.raises(IndexedDatasetError, match="a MegatronBlend, which knows neither"):
            BlendedDataset(datasets, MegatronBlend([1, 1], 8), **fields)
    with pytest.raises(IndexedDatasetError, match="num_samples is 9, but the MegatronBlend was"):
        BlendedDataset(datasets, MegatronBlend([1, 1], 8), num_samples=9)
    with pytest.raises(IndexedDatasetError, match="3 weights for 2 datasets"):
        BlendedDataset(datasets, MegatronBlend([1, 1, 1], 8))


def test_fingerprints_tell_megatrons_blends_apart_and_a_description_can_be_printed(prefixes):
    fields = {"num_samples": 50, "seed": 1}
    blends = [
        build_megatron_blend(prefixes, 16, weights=[1, 2, 3], **fields),
        build_megatron_blend(prefixes, 16, weights=[1, 2, 4], **fields),
        build_megatron_blend(prefixes, 16, **fields),
        build_megatron_blend(prefixes, 16, seed=1),
    ]

    assert len({blend.fingerprint for blend in blends}) == 4
    assert "50.00%" in describe_blend(blends[0], 50)


@pytest.mark.parametrize(
    ("weights", "num_samples", "sizes", "message"),
    [
        ([1.0, 0.0], 5, None, r"the weights are \[1.0, 0.0\]"),
        ([1.0, math.nan], 5, None, "the weights are"),
        ([], 5, None, r"the weights are \[\]"),
        (None, 5, [3, 0], r"the sizes are \[3, 0\]"),
        (None, 5, None, "the sizes are None"),
        ([1.0], None, None, "without num_samples"),
    ],
)
def test_blends_that_megatron_cannot_make_are_refused(weights, num_samples, sizes, message):
    with pytest.raises(IndexedDatasetError, match=message):
        MegatronBlend(weights, num_samples, sizes=sizes)
    with pytest.raises(IndexedDatasetError, match="2 weights for 1 prefixes"):
        build_megatron_blend(["a"], 8, weights=[1, 2], num_samples=3)
