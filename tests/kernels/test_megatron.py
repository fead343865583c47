"""The indices that Megatron builds: each kernel gives what its readable twin gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference

WEIGHTS = st.lists(
    st.floats(1e-9, 1e9) | st.sampled_from([1.0, 1.0, 2.0, 1.0 + 2**-52]), min_size=1, max_size=60
)


@given(st.data(), st.integers(1, 40), st.booleans(), st.sampled_from([np.int32, np.int64]))
def test_rows_of_the_sample_index_even_beyond_the_last_token(data, size, extra, dtype):
    lengths = data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=20))
    numbers = st.integers(0, len(lengths) - 1)
    places = data.draw(st.lists(numbers, min_size=1, max_size=40))
    total = sum(lengths[place] for place in places)
    num_samples = data.draw(st.integers(0, total // size + 3))

    arguments = (
        np.array(lengths, np.int32),
        np.array(places, dtype),
        size,
        num_samples,
        extra,
    )
    got = kernels.build_sample_index(*arguments)
    expected = reference.build_sample_index(*arguments)

    assert got.dtype == expected.dtype == np.int32
    np.testing.assert_array_equal(got, expected)


@given(WEIGHTS, st.lists(st.integers(0, 400), min_size=1, max_size=4))
def test_a_greedy_blend_and_one_that_is_cut_and_goes_on(weights, parts):
    weights = np.array(weights) / np.sum(weights)
    limits = np.full(len(weights), 2**62)
    mine, theirs = np.zeros(len(weights), np.int64), np.zeros(len(weights), np.int64)
    start = 0

    for size in parts:
        got = kernels.blend_greedily(weights, limits, mine, start, size)
        expected = reference.blend_greedily(weights, limits, theirs, start, size)
        start += size
        for ours, twins in zip((*got, mine), (*expected, theirs), strict=True):
            assert ours.dtype == twins.dtype
            np.testing.assert_array_equal(ours, twins)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60))
def test_a_blend_that_draws_all_of_every_dataset(sizes):
    limits = np.array(sizes)
    counts = np.zeros(len(sizes), np.int64)

    got = kernels.blend_greedily(limits / limits.sum(), limits, counts, 0, sum(sizes))
    expected = reference.blend_greedily(
        limits / limits.sum(), limits, np.zeros(len(sizes), np.int64), 0, sum(sizes)
    )

    for ours, twins in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, twins)
    assert counts.tolist() == sizes


def test_many_datasets_far_into_a_blend():
    """Large counts, where products are rounded coarsely and candidates are close together."""
    random = np.random.default_rng(3)
    for weights in (random.random(700), 1 + 1e-12 * random.random(700), np.ones(700)):
        weights = weights / weights.sum()
        start = 1 << 40
        counts = np.floor(weights * start).astype(np.int64)
        counts[0] += start - counts.sum()
        limits = np.full(700, 2**62)

        got = kernels.blend_greedily(weights, limits, counts.copy(), start, 3000)
        expected = reference.blend_greedily(weights, limits, counts.copy(), start, 3000)

        for ours, twins in zip(got, expected, strict=True):
            np.testing.assert_array_equal(ours, twins)


def test_more_datasets_than_sixteen_bits_can_number():
    weights = np.full(40_000, 1 / 40_000)

    got, _ = kernels.blend_greedily(
        weights, np.full(40_000, 1), np.zeros(40_000, np.int64), 0, 40_000
    )

    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, np.arange(40_000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [0.5, 0.0]}, "each is finite and above 0"),
        ({"weights": [0.5, np.nan]}, "each is finite and above 0"),
        ({"limits": [3]}, "2 weights, 1 limits and 2 counts"),
        ({"num_samples": 7}, "7 samples were asked for, but the datasets have 6 left"),
        ({"start": 1}, "go on at position 1, but 0 samples were drawn"),
    ],
)
@pytest.mark.parametrize("module", [kernels, reference], ids=["kernel", "twin"])
def test_blends_that_cannot_be_are_refused(module, change, message):
    arguments = {"weights": [0.5, 0.5], "limits": [3, 3], "start": 0, "num_samples": 2} | change
    arguments["weights"] = np.array(arguments["weights"])
    arguments["limits"] = np.array(arguments["limits"])

    with pytest.raises(ValueError, match=message):
        module.blend_greedily(counts=np.zeros(2, np.int64), **arguments)


@pytest.mark.parametrize(
    ("places", "size", "message"),
    [([], 2, "is empty"), ([0, 3], 2, "names sequences 0 to 3, but there are 3"), ([0], 0, "of 0")],
)
def test_sample_indices_of_nothing_are_refused(places, size, message):
    with pytest.raises(ValueError, match=message):
        kernels.build_sample_index(np.ones(3, np.int32), np.array(places, np.int32), size, 1)
