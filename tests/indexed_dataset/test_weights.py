"""Weights of a blend: by temperature over languages, explicit, or from the manifests."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetError,
    language_of,
    manifest_weight,
    temperature_weights,
    whole_weights,
)


@given(
    counts=st.lists(st.integers(1, 10**13), min_size=1, max_size=50),
    alpha=st.floats(0, 1.5),
)
def test_weights_by_temperature_add_up_and_keep_the_order(counts, alpha):
    weights = temperature_weights(counts, alpha)
    ideal = np.array(counts, float) ** alpha

    assert sum(weights) == 10**9
    assert min(weights) >= 1
    np.testing.assert_allclose(
        weights, 1 + ideal / ideal.sum() * (10**9 - len(counts)), atol=1.01, rtol=1e-12
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


@given(
    counts=st.lists(st.integers(1, 10**13), min_size=2, max_size=30),
    alpha=st.floats(0, 1),
    data=st.data(),
)
def test_datasets_of_one_language_share_what_it_would_have_as_one(counts, alpha, data):
    names = data.draw(st.lists(st.sampled_from("abc"), min_size=len(counts), max_size=len(counts)))
    weights = temperature_weights(counts, alpha, languages=names)
    kinds = sorted(set(names))
    sums = [sum(c for c, n in zip(counts, names, strict=True) if n == kind) for kind in kinds]
    together = temperature_weights(sums, alpha)

    for kind, whole, tokens in zip(kinds, together, sums, strict=True):
        parts = [n for n, name in enumerate(names) if name == kind]
        assert abs(sum(weights[n] for n in parts) - whole) <= len(counts) + 1
        for n in parts:
            assert abs(weights[n] - whole * counts[n] / tokens) <= len(counts) + 2


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=20))
def test_explicit_shares_keep_their_proportions_and_zeros(shares):
    if not any(shares):
        with pytest.raises(IndexedDatasetError, match="one of them more than 0"):
            whole_weights(shares)
        return
    weights = whole_weights(shares)

    assert [weight == 0 for weight in weights] == [share == 0 for share in shares]
    exact = [Fraction(repr(share)) for share in shares]
    assert [Fraction(w, sum(weights)) for w in weights] == [e / sum(exact) for e in exact]


def test_worked_weights_with_languages_and_shares():
    shared = temperature_weights([800, 100, 100], 0.5, languages=["en", "en", "de"], total=100)

    assert shared == [66, 9, 25]
    assert whole_weights([0.5, 0, 1.5]) == [1, 0, 3]
    assert whole_weights([0.1, 0.2, 0.7]) == [1, 2, 7]
    assert whole_weights([20, 10]) == [2, 1]
    with pytest.raises(IndexedDatasetError, match="1 languages for 2 datasets"):
        temperature_weights([1, 1], 0.5, languages=["en"])


@pytest.mark.parametrize("shares", [[1, -1], [float("nan")], [float("inf"), 1]])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(IndexedDatasetError, match="the shares are"):
        whole_weights(shares)


def test_a_manifest_can_ask_for_a_weight_that_all_shards_agree_about(write_prefix):
    def manifests(*configs):
        return [
            IndexedDataset(write_prefix([[1, 0]], f"s{n}", config=config)).manifest
            for n, config in enumerate(configs)
        ]

    weighed = {"blend": {"weight": 2.5}}
    assert manifest_weight("eng", manifests(weighed, weighed)) == 2.5
    for configs in ((weighed, {}), ({},), (), ({"blend": {"weight": "much"}},), ({"blend": 3},)):
        with pytest.raises(IndexedDatasetError, match="eng: the manifests of its shards say"):
            manifest_weight("eng", manifests(*configs))


def test_the_language_of_a_dataset_is_the_only_one_in_its_manifests(write_prefix):
    row = {"documents": 1, "tokens": 2, "text_bytes": 1}

    def language(*codes):
        prefix = write_prefix([[1, 0]] * len(codes), languages=dict.fromkeys(codes, row))
        return language_of("web", [IndexedDataset(prefix).manifest])

    assert (language("deu_Latn"), language("deu_Latn", "eng_Latn"), language()) == (
        "deu_Latn",
        "web",
        "web",
    )
