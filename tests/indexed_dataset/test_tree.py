"""The tree under a blend: even shares at every prefix, any position found alone, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import IndexedDatasetError
from gristmill.indexed_dataset.caps import CappedBlend
from gristmill.indexed_dataset.tree import MAX_DEVIATION, BlendTree

WEIGHTS = st.one_of(
    st.lists(st.integers(1, 20), min_size=1, max_size=12),
    st.lists(st.integers(1, 10_000), min_size=1, max_size=40),
    st.lists(st.sampled_from([1, 2, 1000, 10**9]), min_size=2, max_size=20),
    st.lists(st.integers(1, 10**13), min_size=1, max_size=8),
)
LIMITED = st.lists(
    st.tuples(st.integers(0, 30), st.one_of(st.none(), st.integers(0, 60))),
    min_size=1,
    max_size=7,
).filter(lambda pairs: any(weight for weight, _ in pairs))


@given(weights=WEIGHTS)
def test_every_prefix_is_within_two_samples_of_its_ideal(weights):
    tree = BlendTree(weights)
    datasets = np.array([tree.locate(position)[0] for position in range(500)])
    given_so_far = np.cumsum(datasets[:, None] == np.arange(len(weights)), axis=0)
    ideal = np.arange(1, 501)[:, None] * np.array(tree.weights) / tree.total_weight

    assert np.abs(given_so_far - ideal).max() < MAX_DEVIATION


@given(weights=WEIGHTS, start=st.integers(0, 2**50))
def test_any_position_is_found_without_walking_from_the_start(weights, start):
    tree = BlendTree(weights)
    counts = tree.counts(start)
    assert sum(counts) == start
    for position in range(start, start + 100):
        dataset, index = tree.locate(position)
        assert index == counts[dataset]  # the next one of its dataset, none left out
        counts[dataset] += 1
    assert counts == tree.counts(start + 100)
    for count, weight in zip(counts, tree.weights, strict=True):
        exact = (start + 100) * weight
        assert abs(count * tree.total_weight - exact) < MAX_DEVIATION * tree.total_weight


@given(weights=WEIGHTS, position=st.integers(0, 2**50), data=st.data())
def test_where_a_sample_is_given_undoes_which_one_is_given(weights, position, data):
    tree = BlendTree(weights)
    assert tree.position(*tree.locate(position)) == position

    dataset = data.draw(st.integers(0, len(weights) - 1))
    index = data.draw(st.integers(0, 2**40))
    assert tree.locate(tree.position(dataset, index)) == (dataset, index)


def test_worked_values():
    tree = BlendTree([10, 20])  # the same as 1 and 2

    assert [tree.locate(i) for i in range(6)] == [(1, 0), (0, 0), (1, 1), (1, 2), (0, 1), (1, 3)]
    assert BlendTree([7]).locate(12345) == (0, 12345)
    assert BlendTree([7]).position(0, 12345) == 12345


@pytest.mark.parametrize(
    ("weights", "message"), [([], "one dataset or more"), ([1, 0], "weight 1 or more")]
)
def test_impossible_weights_are_refused(weights, message):
    with pytest.raises(IndexedDatasetError, match=message):
        BlendTree(weights)
    with pytest.raises(TypeError):
        BlendTree([0.5, 0.5])


@given(pairs=LIMITED)
def test_a_blend_with_limits_is_a_new_blend_from_the_position_of_each_limit(pairs):
    """Against a walk that restarts a tree by hand whenever a dataset has given all it may."""
    weights, limits = [w for w, _ in pairs], [limit for _, limit in pairs]
    blend = CappedBlend(weights, limits)
    total = 300 if blend.num_samples is None else min(blend.num_samples, 300)
    counts, position, restarts = [0] * len(pairs), 0, []
    while position < total:
        active = [
            n for n, (w, limit) in enumerate(pairs) if w and (limit is None or counts[n] < limit)
        ]
        tree, start, before = BlendTree([weights[n] for n in active]), position, list(counts)
        while position < total and all(counts[n] != limits[n] for n in active):
            place, index = tree.locate(position - start)
            number = active[place]
            assert blend.locate(position) == (number, before[number] + index)
            assert blend.counts(position) == counts
            counts[number] += 1
            position += 1
            for n, weight in zip(active, tree.weights, strict=True):
                ideal = (position - start) * weight / tree.total_weight
                assert abs(counts[n] - before[n] - ideal) < MAX_DEVIATION
        restarts += [(position, n) for n in active if counts[n] == limits[n]]

    assert blend.counts(total) == counts
    unusable = [(0, n) for n, (w, limit) in enumerate(pairs) if w and limit == 0]
    assert blend.limits_reached(total) == unusable + restarts
    jumped = CappedBlend(weights, limits)  # no position before was ever asked for
    assert jumped.counts(total) == counts


def test_a_limit_that_binds_with_the_last_sample_is_reported():
    blend = CappedBlend([1, 1], [2, None])

    assert blend.limits_reached(2) == []
    assert blend.limits_reached(3) == [(3, 0)]


def test_limits_that_are_all_reached_end_the_blend_with_a_clear_error():
    blend = CappedBlend([1, 2, 0], [2, 3, None])

    assert blend.num_samples == 5
    assert sorted(blend.locate(i) for i in range(5)) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    with pytest.raises(IndexError, match="after 5 samples every dataset has reached its largest"):
        blend.locate(5)
    assert CappedBlend([1], [0]).num_samples == 0
    with pytest.raises(IndexError, match="no sample -1"):
        blend.locate(-1)


def test_thousands_of_limits_far_away_cost_nothing_before_they_are_reached():
    blend = CappedBlend(range(1, 2501), [10**9] * 2500)

    assert sum(blend.counts(10**6)) == 10**6
    assert blend.limits_reached(10**6) == []
    assert len(blend._stretches) == 1


def test_weights_of_a_blend_are_refused_if_nothing_would_be_drawn():
    for weights in ([0, 0], [1, -1], []):
        with pytest.raises(IndexedDatasetError, match="0 \\(not drawn\\) or more"):
            CappedBlend(weights)
