"""The keyed permutation: a bijection, the same in numba and in Python, and a good shuffle."""

from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.kernels import permutation as kernels
from gristmill.kernels.reference import permutation as reference

KEYS = st.lists(st.integers(0, 2**64 - 1), min_size=16, max_size=16).map(
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
    words = keys.tolist()
    alone = [reference.permute_position(int(p), num_items, words) for p in positions]
    assert moved.tolist() == alone
    assert moved.min() >= 0
    assert moved.max() < num_items


def test_worked_value():
    keys = np.arange(1, 17, dtype=np.uint64)

    assert kernels.permute(np.arange(5), 5, keys).tolist() == [3, 2, 4, 1, 0]


@pytest.mark.parametrize("num_items", [3, 5, 8, 12, 100])
def test_every_item_is_equally_likely_in_every_place(num_items):
    """Chi-square over 4,000 keys, in standard deviations of its distribution."""
    counts = np.zeros((num_items, num_items))
    for order in drawn_orders(num_items, 4_000):
        counts[np.arange(num_items), order] += 1

    assert abs(deviations(counts, (num_items - 1) ** 2)) < 5


@pytest.mark.parametrize("num_items", [2, 3, 4, 5, 6])
def test_every_order_of_few_items_is_equally_likely(num_items):
    """With 8 rounds the orders of 5 items were 29 deviations off, those of 6 items 58."""
    numbers = dict(zip(permutations(range(num_items)), range(720), strict=False))
    counts = np.zeros(len(numbers))
    for order in drawn_orders(num_items, 20_000):
        counts[numbers[tuple(order.tolist())]] += 1

    assert abs(deviations(counts, len(numbers) - 1)) < 5


@pytest.mark.parametrize("num_items", [7, 9, 12, 255, 256, 4000])
def test_two_items_are_equally_likely_in_every_pair_of_places(num_items):
    """Places in eighths where there are many; of all pairs the first, last and middle ones."""
    orders = np.array(drawn_orders(num_items, 6_000))
    if num_items < 13:
        for first, second in combinations(range(num_items), 2):
            counts = np.bincount(
                orders[:, first] * num_items + orders[:, second], minlength=num_items**2
            )
            apart = counts.reshape(num_items, num_items)[~np.eye(num_items, dtype=bool)]
            assert abs(deviations(apart, len(apart) - 1)) < 6
        return
    eighths = orders * 8 // num_items
    for first, second in ((0, 1), (0, num_items - 1), (num_items // 2, num_items // 2 + 1)):
        counts = np.bincount(eighths[:, first] * 8 + eighths[:, second], minlength=64)
        sizes = np.bincount(np.arange(num_items) * 8 // num_items)
        pairs = np.outer(sizes, sizes) - np.diag(sizes)
        expected = (len(orders) * pairs / pairs.sum()).ravel()
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - 63) < 6 * np.sqrt(2 * 63)


def drawn_orders(num_items, trials):
    """Where `trials` random keys send each item."""
    keys = np.random.default_rng(num_items).integers(0, 2**64, size=(trials, 16), dtype=np.uint64)
    items = np.arange(num_items)
    return [kernels.permute(items, num_items, row) for row in keys]


def deviations(counts, freedom):
    """How far the chi-square of equally likely counts is off, in its standard deviations."""
    expected = counts.sum() / counts.size
    chi_square = ((counts - expected) ** 2 / expected).sum()
    return (chi_square - freedom) / np.sqrt(2 * freedom)


def test_neighbours_do_not_stay_together():
    """As in a random order, about one pair in N of neighbours comes out as neighbours."""
    num_items = 1_000_000
    keys = np.random.default_rng(1).integers(0, 2**64, size=16, dtype=np.uint64)
    moved = kernels.permute(np.arange(num_items), num_items, keys)
    steps = np.diff(moved)

    assert (steps == 1).sum() < 10
    assert (steps == -1).sum() < 10
    assert abs(np.corrcoef(np.arange(num_items), moved)[0, 1]) < 0.01
    assert np.unique(steps).size > 0.6 * num_items


@pytest.mark.parametrize(("num_items", "num_words"), [(255, 16), (256, 8), (1000, 8)])
def test_each_key_word_matters(num_items, num_words):
    base = np.zeros(16, np.uint64)
    orders = set()
    for word, bit in product(range(num_words), (0, 17, 40, 63)):
        keys = base.copy()
        keys[word] = np.uint64(1) << np.uint64(bit)
        orders.add(tuple(kernels.permute(np.arange(num_items), num_items, keys).tolist()))

    assert len(orders) == 4 * num_words


@pytest.mark.parametrize("position", [-1, 5])
def test_positions_outside_are_refused(position):
    keys = np.zeros(16, np.uint64)
    with pytest.raises(ValueError, match="5 items"):
        kernels.permute(np.array([position]), 5, keys)
    with pytest.raises(ValueError, match=f"position {position}"):
        reference.permute_position(position, 5, keys.tolist())
    with pytest.raises(ValueError, match="outside of 0 to 4"):
        reference.permute(np.array([position]), 5, keys)


def test_impossible_sizes_and_keys_are_refused():
    with pytest.raises(ValueError, match="items, not 0"):
        kernels.permute(np.zeros(0, np.int64), 0, np.zeros(16, np.uint64))
    with pytest.raises(ValueError, match="16 round keys, not 7"):
        kernels.permute(np.zeros(1, np.int64), 5, np.zeros(7, np.uint64))
