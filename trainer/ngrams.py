"""The tokens that a training consumed in, what an n-gram model of exactly them would score out.

Interpolated Kneser-Ney (Kneser, Ney 1995; Chen, Goodman 1999, section 2.7): the highest order
counts n-grams, each lower one the different words before them, and every order discounts by
D = n1 / (n1 + 2 n2), a half where nothing occurs once, and hands the rest to the order below; the
lowest hands it to all ids alike.

    p(w | h) = max(c(h w) - D, 0) / c(h) + D * kinds(h) / c(h) * p(w | h without its first word)

An n-gram is known by a number: the number of its first n - 1 tokens among those seen, times the
vocabulary, plus its last token; sorted, these are found by bisection. So any vocabulary serves, and
memory is about 50 bytes a token of the text at order 4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..indexed_dataset import PhasedBlend, SampleDataset

Ids = NDArray[np.int64]
_UNSEEN = -1


@dataclass(frozen=True, slots=True)
class _Order:
    """All different n-grams of one length."""

    keys: Ids
    """Sorted; see the module's docstring."""
    raw: Ids
    """How often each occurs."""
    context: Ids
    """Number of its first n - 1 tokens."""
    before: Ids
    """How many different tokens stand before it."""


class _Discounted:
    """One order's counts, and what follows from them for every context alike."""

    def __init__(self, counts: Ids, context: Ids) -> None:
        once, twice = int((counts == 1).sum()), int((counts == 2).sum())
        self.counts = counts
        self.discount = once / (once + 2 * twice) if once else 0.5
        self.totals = np.bincount(context, counts, minlength=1)
        self.kinds = np.bincount(context[counts > 0], minlength=len(self.totals))


class NgramModels:
    """Interpolated Kneser-Ney models of the orders 2 to `max_order`, of the same text.

    Args:
        rows: pieces of text, int64 ids each; no n-gram goes across their ends.
        vocab_size: every id is below it.
    """

    def __init__(self, rows: Iterable[Ids], vocab_size: int, max_order: int = 4) -> None:
        self.vocab_size = vocab_size
        self.max_order = max_order
        tokens, places = _flatten(rows)
        numbers = tokens
        self._orders = [_unigrams(tokens, vocab_size)]
        for length in range(2, max_order + 1):
            inside = np.flatnonzero(places >= length - 1)
            keys = numbers[inside - 1] * vocab_size + tokens[inside]
            unique, first, index = np.unique(keys, return_index=True, return_inverse=True)
            suffix = numbers[inside][first]
            below = self._orders[-1]
            np.add.at(below.before, suffix, 1)
            self._orders.append(
                _Order(
                    unique,
                    np.bincount(index, minlength=len(unique)),
                    numbers[inside - 1][first],
                    np.zeros(len(unique), dtype=np.int64),
                )
            )
            numbers = np.full_like(numbers, _UNSEEN)
            numbers[inside] = index
        # Of each length: as the highest order, and as one below it.
        self._discounted = [
            (_Discounted(table.raw, table.context), _Discounted(table.before, table.context))
            for table in self._orders
        ]

    def nll(self, row: Ids, order: int) -> NDArray[np.float64]:
        """Return the nats of each token of a row but its first, float64[len(row) - 1].

        The context of a token is what stands before it in the row, at most `order` - 1 tokens.
        """
        probability = np.full(len(row), 1.0 / self.vocab_size)
        numbers = row
        contexts = np.zeros(len(row), dtype=np.int64)
        for length in range(1, order + 1):
            if length > 1:
                contexts = np.concatenate(([_UNSEEN], numbers[:-1]))
                keys = self._orders[length - 1].keys
                numbers = _find(keys, contexts, row, self.vocab_size)
            highest, lower = self._discounted[length - 1]
            known = highest if length == order else lower
            probability = _interpolate(known, numbers, contexts, probability)
        nats: NDArray[np.float64] = -np.log(probability[1:])
        return nats


def consumed_rows(blend: PhasedBlend, num_samples: int) -> Iterable[Ids]:
    """Yield the tokens of each sample that a training consumed, with its last label."""
    for position in range(num_samples):
        yield _row(blend.sample(position))


def score_ngrams(models: NgramModels, dataset: SampleDataset, order: int) -> tuple[float, int]:
    """Return the summed nats of one validation group, and how many tokens they are of."""
    total, count = 0.0, 0
    for number in range(dataset.samples_per_epoch):
        sample = dataset.sample(number)
        row = _row(sample)
        valid = sample["loss_mask"][: len(row) - 1] > 0
        nats = models.nll(row, order)[valid]
        total, count = total + float(nats.sum()), count + len(nats)
    return total, count


def _row(sample: object) -> Ids:
    """Return a sample's tokens and its last label, padding left out."""
    values: dict[str, NDArray[np.int64]] = sample  # type: ignore[assignment]
    scored = np.flatnonzero(values["loss_mask"])
    length = int(scored[-1]) + 1 if len(scored) else 0
    return np.concatenate((values["tokens"][:1], values["labels"][:length]))


def _flatten(rows: Iterable[Ids]) -> tuple[Ids, Ids]:
    """Return all tokens one after the other, and the place of each in its row."""
    pieces = [np.asarray(row, dtype=np.int64) for row in rows]
    if not pieces:
        raise ValueError("there is no text to count n-grams of: no sample was consumed")
    places = [np.arange(len(piece)) for piece in pieces]
    return np.concatenate(pieces), np.concatenate(places)


def _unigrams(tokens: Ids, vocab_size: int) -> _Order:
    return _Order(
        np.arange(vocab_size),
        np.bincount(tokens, minlength=vocab_size),
        np.zeros(vocab_size, dtype=np.int64),
        np.zeros(vocab_size, dtype=np.int64),
    )


def _find(keys: Ids, contexts: Ids, tokens: Ids, vocab_size: int) -> Ids:
    """Return the number of each n-gram, _UNSEEN where it or its context was not seen."""
    wanted = contexts * vocab_size + tokens
    found = np.searchsorted(keys, wanted)
    found = np.minimum(found, len(keys) - 1)
    seen = (contexts != _UNSEEN) & (keys[found] == wanted) if len(keys) else contexts < _UNSEEN
    return np.where(seen, found, _UNSEEN)


def _interpolate(
    known: _Discounted, numbers: Ids, contexts: Ids, lower: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probabilities of one order, given those of the order below."""
    seen = (contexts != _UNSEEN) & (contexts < len(known.totals))
    context = np.where(seen, contexts, 0)
    seen &= known.totals[context] > 0
    total = np.where(seen, known.totals[context], 1)
    own = 0 if not len(known.counts) else np.where(numbers != _UNSEEN, known.counts[numbers], 0)
    share = np.maximum(own - known.discount, 0) / total
    rest = known.discount * known.kinds[context] / total
    return np.where(seen, share + rest * lower, lower)
