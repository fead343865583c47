"""The keyed permutation: a bijection, the same in numba and in Python, and a good shuffle."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels import permutation as kernels
from gristmill.kernels.reference import permutation as reference

KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=8, max_size=8).map(
    lambda words: np.array(words, np.uint64)
)


@given(num_items=st.integers(1, 500), keys=KEYS)
def test_every_position_is_hit_exactly_once(num_items, keys):
    moved = kernels.permute(np.arange(num_items), num_items, keys)

    assert sorted(moved.tolist()) == list(range(num_items))


@given(num_items=st.integers(1, 2**62), keys=KEYS, data=st.data())
def test_kernel_and_twin_agree_up_to_62_bits(num_items, keys, data):
    positions = data.draw(st.lists(st.integers(0, num_items - 1), max_size=10))
    positions = np.array([*positions, 0, num_items - 1], np.int64)

    moved = kernels.permute(positions, num_items, keys)

    np.testing.assert_array_equal(moved, reference.permute(positions, num_items, keys))
    assert moved.min() >= 0
    assert moved.max() < num_items


def test_worked_value():
    keys = np.arange(1, 9, dtype=np.uint64)

    assert kernels.permute(np.arange(5), 5, keys).tolist() == [2, 4, 0, 1, 3]


@pytest.mark.parametrize("num_items", [3, 5, 8, 12, 100])
def test_every_item_is_equally_likely_in_every_place(num_items):
    """Chi-square over 4,000 keys; its spread is allowed 8 standard deviations."""
    random = np.random.default_rng(num_items)
    trials = 4_000
    counts = np.zeros((num_items, num_items))
    for _ in range(trials):
        keys = random.integers(0, 2**64, size=8, dtype=np.uint64)
        counts[np.arange(num_items), kernels.permute(np.arange(num_items), num_items, keys)] += 1

    expected = trials / num_items
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (num_items - 1) ** 2
    assert abs(chi_square - freedom) < 8 * np.sqrt(2 * freedom)


def test_neighbours_do_not_stay_together():
    """As in a random order, about one pair in N of neighbours comes out as neighbours."""
    num_items = 1_000_000
    keys = np.random.default_rng(1).integers(0, 2**64, size=8, dtype=np.uint64)
    moved = kernels.permute(np.arange(num_items), num_items, keys)
    steps = np.diff(moved)

    assert (steps == 1).sum() < 10
    assert (steps == -1).sum() < 10
    assert abs(np.corrcoef(np.arange(num_items), moved)[0, 1]) < 0.01
    assert np.unique(steps).size > 0.6 * num_items


def test_each_key_word_matters():
    base = np.zeros(8, np.uint64)
    orders = set()
    for word, bit in product(range(8), (0, 17, 40, 63)):
        keys = base.copy()
        keys[word] = np.uint64(1) << np.uint64(bit)
        orders.add(tuple(kernels.permute(np.arange(1000), 1000, keys).tolist()))

    assert len(orders) == 32


@pytest.mark.parametrize("position", [-1, 5])
def test_positions_outside_are_refused(position):
    keys = np.zeros(8, np.uint64)
    with pytest.raises(ValueError, match="5 items"):
        kernels.permute(np.array([position]), 5, keys)
    with pytest.raises(ValueError, match=f"position {position}"):
        reference.permute(np.array([position]), 5, keys)


def test_impossible_sizes_and_keys_are_refused():
    with pytest.raises(ValueError, match="items, not 0"):
        kernels.permute(np.zeros(0, np.int64), 0, np.zeros(8, np.uint64))
    with pytest.raises(ValueError, match="8 round keys, not 7"):
        kernels.permute(np.zeros(1, np.int64), 5, np.zeros(7, np.uint64))
