"""Masks: a function of seed, sample and place; special tokens stay; shares are as asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference
from gristmill.kernels.masking import CONTINUES, NEVER

NUM_IDS, MASK = 50, 77
SHARES = st.sampled_from([0.0, 0.15, 0.3, 0.5, 1.0])


def samples(number: int, length: int = 512, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, NUM_IDS, (number, length))


def flags_of(*special: int, continues: range = range(0)) -> np.ndarray:
    flags = np.zeros(NUM_IDS, dtype=np.uint8)
    flags[list(special)] |= NEVER
    flags[list(continues)] |= CONTINUES
    return flags


@given(st.data())
def test_masks_are_those_of_the_twin(data: st.DataObject) -> None:
    rows, length = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 30))
    chance = np.random.default_rng(data.draw(st.integers(0, 1000)))
    flags = chance.integers(0, 4, NUM_IDS).astype(np.uint8)
    flags[0] = 0
    mask_share = data.draw(SHARES)
    arguments = (
        chance.integers(0, NUM_IDS, (rows, length)),
        chance.random((rows, length)) < 0.8,
        chance.integers(-(2**62), 2**62, rows),
        data.draw(st.integers(0, 2**63 - 1)),
        flags,
        MASK,
        data.draw(SHARES),
        mask_share,
        min(data.draw(SHARES), 1 - mask_share),
        data.draw(st.booleans()),
    )
    got, expected = kernels.mask_tokens(*arguments), reference.mask_tokens(*arguments)

    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    assert [array.dtype for array in got] == [np.int64, np.bool_]


@pytest.mark.parametrize("share", [0.15, 0.3])
def test_shares_are_within_bounds_of_what_was_asked_for(share: float) -> None:
    tokens = samples(400)
    everywhere = np.ones(tokens.shape, dtype=np.bool_)
    masked, chosen = kernels.mask_tokens(
        tokens, everywhere, np.arange(400), 5, flags_of(), MASK, share
    )

    def within(count: int, of: int, probability: float) -> None:
        """Five standard deviations of a binomial: one failure in 1.7 million seeds."""
        assert abs(count - of * probability) < 5 * np.sqrt(of * probability * (1 - probability))

    within(chosen.sum(), tokens.size, share)
    within((masked == MASK).sum(), chosen.sum(), 0.8)
    # A random id is the old one once in NUM_IDS times.
    changed = (masked != tokens) & (masked != MASK)
    within(changed.sum(), chosen.sum(), 0.1 * (1 - 1 / NUM_IDS))
    assert not (masked != tokens)[~chosen].any()
    drawn = np.bincount(masked[changed], minlength=NUM_IDS)
    assert drawn.min() > 0.5 * drawn.mean()


def test_special_tokens_and_padding_are_never_chosen_and_never_drawn() -> None:
    tokens = samples(50)
    may_change = np.arange(512) < np.arange(50)[:, None] * 10
    masked, chosen = kernels.mask_tokens(
        tokens, may_change, np.arange(50), 0, flags_of(3, 4, 49), MASK, 0.9, 0.0, 1.0
    )

    special = np.isin(tokens, (3, 4, 49))
    assert special.any()
    assert not chosen[special | ~may_change].any()
    assert chosen[~special & may_change].mean() > 0.8
    assert not np.isin(masked[chosen], (3, 4, 49)).any()


@given(st.integers(1, 7), st.booleans())
def test_the_masks_of_a_sample_do_not_depend_on_the_batch_that_it_comes_in(
    size: int, whole_words: bool
) -> None:
    tokens, flags = samples(20, 40), flags_of(1, continues=range(20, 50))
    everywhere = np.ones(tokens.shape, dtype=np.bool_)
    numbers = np.arange(20) + 1000
    options = {"share": 0.3, "whole_words": whole_words}
    whole = kernels.mask_tokens(tokens, everywhere, numbers, 9, flags, MASK, **options)
    parts = [
        kernels.mask_tokens(
            tokens[first : first + size],
            everywhere[first : first + size],
            numbers[first : first + size],
            9,
            flags,
            MASK,
            **options,
        )
        for first in range(0, 20, size)
    ]

    for number in range(2):
        np.testing.assert_array_equal(whole[number], np.concatenate([p[number] for p in parts]))


def test_another_seed_or_sample_number_gives_other_masks() -> None:
    tokens = np.repeat(samples(1), 2, axis=0)
    everywhere = np.ones(tokens.shape, dtype=np.bool_)
    numbers = np.array([1, 2])
    one = kernels.mask_tokens(tokens, everywhere, numbers, 0, flags_of(), MASK)[1]
    other = kernels.mask_tokens(tokens, everywhere, numbers, 1, flags_of(), MASK)[1]

    for first, second in ((one[0], one[1]), (one[0], other[0]), (one[1], other[0])):
        # Two independent masks of 30 % agree in 58 % of all places.
        assert 0.45 < (first == second).mean() < 0.7


def test_whole_words_are_chosen_together_and_their_share_of_tokens_stays() -> None:
    tokens, flags = samples(400), flags_of(7, continues=range(20, 50))
    everywhere = np.ones(tokens.shape, dtype=np.bool_)
    _, chosen = kernels.mask_tokens(
        tokens, everywhere, np.arange(400), 3, flags, MASK, 0.3, whole_words=True
    )

    continues = (flags[tokens] & CONTINUES) > 0
    after_word = continues[:, 1:] & (tokens[:, :-1] != 7)
    assert (chosen[:, 1:] == chosen[:, :-1])[after_word].all()
    assert (chosen[:, 1:] == chosen[:, :-1])[~after_word].mean() < 0.7
    assert chosen[tokens != 7].mean() == pytest.approx(0.3, abs=0.01)


def test_what_cannot_be_meant_is_refused() -> None:
    tokens = np.array([[1, 50]])
    everywhere, numbers = tokens > 0, np.array([0])
    for module in (kernels, reference):
        with pytest.raises(ValueError, match="the id 50 has no flag: there are 50 ids"):
            module.mask_tokens(tokens, everywhere, numbers, 0, flags_of(), MASK)
        with pytest.raises(ValueError, match=r"share is 1\.5"):
            module.mask_tokens(tokens, everywhere, numbers, 0, flags_of(), MASK, 1.5)
        with pytest.raises(ValueError, match="together they are at most 1"):
            module.mask_tokens(tokens, everywhere, numbers, 0, flags_of(), MASK, 0.3, 0.8, 0.3)
        with pytest.raises(ValueError, match="do not go together"):
            module.mask_tokens(tokens, everywhere, np.array([0, 1]), 0, flags_of(), MASK)
