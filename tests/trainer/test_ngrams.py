"""Kneser-Ney models equal a plain dictionary of counts, and their probabilities sum to one."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from gristmill.trainer.ngrams import NgramModels

VOCAB_SIZE = 7


def rows(seed: int, number: int = 12) -> list[np.ndarray]:
    chance = np.random.default_rng(seed)
    return [
        np.minimum(chance.geometric(0.35, size=int(chance.integers(1, 30))) - 1, VOCAB_SIZE - 1)
        for _ in range(number)
    ]


class Plain:
    """The formula of the module's docstring, word by word."""

    def __init__(self, text: list[np.ndarray], order: int) -> None:
        self.order = order
        grams = [
            Counter(tuple(row[i : i + n].tolist()) for row in text for i in range(len(row) - n + 1))
            for n in range(1, order + 1)
        ]
        self.counts: list[dict[tuple[int, ...], int]] = [dict(grams[-1])]
        for longer in reversed(grams[1:]):
            before: dict[tuple[int, ...], set[int]] = defaultdict(set)
            for gram in longer:
                before[gram[1:]].add(gram[0])
            self.counts.insert(0, {gram: len(words) for gram, words in before.items()})

    def probability(self, word: int, history: tuple[int, ...]) -> float:
        counts = self.counts[len(history)]
        lower = 1 / VOCAB_SIZE if not history else self.probability(word, history[1:])
        following = {g[-1]: c for g, c in counts.items() if g[:-1] == history}
        total = sum(following.values())
        if not total:
            return lower
        once, twice = (sum(c == k for c in counts.values()) for k in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        own = max(following.get(word, 0) - discount, 0)
        return own / total + discount * len(following) / total * lower


@pytest.mark.parametrize("order", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_probability_is_that_of_the_plain_formula(order: int, seed: int) -> None:
    text, unknown = rows(seed), rows(seed + 10, 4)
    models = NgramModels(text, VOCAB_SIZE, 4)

    for row in [*unknown, text[0]]:
        found, words = models.nll(row, order), row.tolist()
        plain = Plain(text, order)
        expected = [
            -math.log(plain.probability(word, tuple(words[max(0, i - order + 1) : i])))
            for i, word in enumerate(words)
            if i
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_probabilities_sum_to_one_after_any_context() -> None:
    models = NgramModels(rows(3), VOCAB_SIZE, 4)

    for context in ([0, 1, 0], [6, 6, 6], [2], [5, 0]):
        total = sum(
            np.exp(-models.nll(np.array([*context, word]), 4)[-1]) for word in range(VOCAB_SIZE)
        )
        assert total == pytest.approx(1, abs=1e-12)


def test_a_text_that_is_repeated_becomes_certain() -> None:
    text = [np.arange(VOCAB_SIZE)] * 50

    models = NgramModels(text, VOCAB_SIZE, 4)

    assert models.nll(text[0], 4)[2:].max() < 0.1  # before, there is no context of four
    assert models.nll(text[0], 2).max() < 0.1
    with pytest.raises(ValueError, match="no sample was consumed"):
        NgramModels([], VOCAB_SIZE)
