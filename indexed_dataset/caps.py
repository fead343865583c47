"""Weights and limits in; a blend that is restarted without what has reached its limit out.

Between two restarts (a stretch) a `BlendTree` shares the samples out. Where a stretch ends follows
from its tree: the first position after the last sample of the dataset that is used up first. So no
stretch is walked through, and one is computed only when a position at or after it is asked for.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .errors import IndexedDatasetError
from .tree import MAX_DEVIATION, BlendTree

_TREES_KEPT = 8
"""Trees at hand: thousands of datasets with a limit each would make thousands of trees."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Positions from `start` on, until the next stretch, that the same datasets share."""

    start: int
    """First position."""
    datasets: list[int]
    """Numbers of the datasets that take part."""
    given: list[int]
    """Samples that every dataset of the blend gave before `start`."""


_NOTHING = (Stretch(0, [], []), BlendTree([1]))


class CappedBlend:
    """Which dataset gives position i of a blend, and how many it gave before.

    Within a stretch the counts of every prefix are within two samples of the weights' proportions.

    Args:
        weights: whole numbers from 0 (not drawn) on, one above 0.
        limits: samples that each dataset can give; None: any number.

    Example: CappedBlend([1, 1], [2, None]): positions 0 to 5 go to the datasets 0, 1, 0, 1, 1, 1.
    """

    def __init__(self, weights: Sequence[int], limits: Sequence[int | None] | None = None) -> None:
        self.weights = list(weights)
        self.limits = [None] * len(self.weights) if limits is None else list(limits)
        if any(weight < 0 for weight in self.weights) or not any(self.weights):
            raise IndexedDatasetError(
                f"the weights are {self.weights}: give each dataset 0 (not drawn) or more, and one "
                "of them more than 0"
            )
        factor = math.gcd(*self.weights)
        self.weights = [weight // factor for weight in self.weights]
        drawn = [limit for w, limit in zip(self.weights, self.limits, strict=True) if w]
        finite = [limit for limit in drawn if limit is not None]
        self.num_samples = sum(finite) if len(finite) == len(drawn) else None
        """Samples until every dataset has reached its limit; None: without end."""
        self._stretches: list[Stretch] = []
        self._starts: list[int] = []
        self._trees: dict[int, BlendTree] = {}
        self._end: int | None = 0
        self._begin([0] * len(self.weights), 0)
        # What `locate` used last, with the bounds in which it holds; none holds yet.
        self._latest: tuple[int, float, Stretch, BlendTree] = (0, 0, *_NOTHING)

    @property
    def total_weight(self) -> int:
        """Sum of the weights."""
        return sum(self.weights)

    def locate(self, position: int) -> tuple[int, int]:
        """Return (dataset, index among its samples) of one position.

        Raises:
            IndexError: every dataset has reached its limit before.
        """
        start, end, stretch, tree = self._latest
        if not start <= position < end:
            stretch = self._stretch(position)
            start, tree = stretch.start, self._tree(stretch)
            following = bisect_right(self._starts, position)
            known_end = math.inf if self._end is None else self._end
            end = self._starts[following] if following < len(self._starts) else known_end
            self._latest = start, end, stretch, tree
        place, index = tree.locate(position - start)
        dataset = stretch.datasets[place]
        return dataset, stretch.given[dataset] + index

    def counts(self, num_samples: int) -> list[int]:
        """Return how many of the first `num_samples` positions each dataset gives."""
        if num_samples == 0:
            return [0] * len(self.weights)
        stretch = self._stretch(num_samples - 1)
        return self._counts_after(stretch, num_samples)

    def limits_reached(self, num_samples: int) -> list[tuple[int, int]]:
        """Return (position, dataset) of the limits that bind in the first `num_samples` positions.

        The position is the first one that the dataset is left out of. A dataset that could give
        nothing from the start is listed with position 0.
        """
        if num_samples:
            self._stretch(num_samples - 1)
        if self._end == num_samples != self.num_samples:
            self._extend()  # what ends with the last of these samples is left out of the next one
        reached = [
            (0, number)
            for number, (weight, limit) in enumerate(zip(self.weights, self.limits, strict=True))
            if weight and limit is not None and limit <= 0
        ]
        known = self._stretches + self._last_limits()
        for before, after in pairwise(known):
            if after.start <= num_samples:
                gone = sorted(set(before.datasets) - set(after.datasets))
                reached += [(after.start, number) for number in gone]
        return reached

    def _stretch(self, position: int) -> Stretch:
        """Return the stretch that holds a position, after computing those before it."""
        if position < 0:
            raise IndexError(f"a blend has no sample {position}")
        while self._end is not None and position >= self._end:
            if self._end == self.num_samples:
                raise IndexError(
                    f"sample {position} of the blend was asked for, but after {self._end} samples "
                    "every dataset has reached its largest number of epochs. Raise max_epochs, "
                    "add data, or train for fewer steps"
                )
            self._extend()
        return self._stretches[bisect_right(self._starts, position) - 1]

    def _extend(self) -> None:
        """Add the stretch that follows the last one that is known."""
        assert self._end is not None
        self._begin(self._counts_after(self._stretches[-1], self._end), self._end)

    def _tree(self, stretch: Stretch) -> BlendTree:
        """Return the proportions of a stretch; its datasets are the tree's, in order."""
        tree = self._trees.get(stretch.start)
        if tree is None:
            if len(self._trees) == _TREES_KEPT:
                del self._trees[next(iter(self._trees))]
            tree = BlendTree([self.weights[number] for number in stretch.datasets])
            self._trees[stretch.start] = tree
        return tree

    def _begin(self, given: list[int], start: int) -> None:
        """Add the stretch that starts after `given` samples of each dataset, and find its end."""
        active = [
            number
            for number, (weight, limit) in enumerate(zip(self.weights, self.limits, strict=True))
            if weight and (limit is None or given[number] < limit)
        ]
        if not active:
            self._end = start
            return
        self._stretches.append(Stretch(start, active, given))
        self._starts.append(start)
        self._end = self._end_of(self._stretches[-1])

    def _end_of(self, stretch: Stretch) -> int | None:
        """Return the position after the first dataset's last sample; None: no limit binds.

        A dataset has given n samples at the earliest after (n - 2) * total / weight positions, so
        most of them need no walk up the tree.
        """
        tree = self._tree(stretch)
        candidates = []
        for place, dataset in enumerate(stretch.datasets):
            limit = self.limits[dataset]
            if limit is not None:
                left = limit - stretch.given[dataset]
                earliest = (left - MAX_DEVIATION) * tree.total_weight // tree.weights[place]
                candidates.append((earliest, place, left))
        end: int | None = None
        for earliest, place, left in sorted(candidates):
            if end is not None and earliest > end:
                break
            after = tree.position(place, left - 1) + 1
            end = after if end is None else min(end, after)
        return None if end is None else stretch.start + end

    def _last_limits(self) -> list[Stretch]:
        """Return an empty stretch that stands for the end of the blend, once it is known."""
        if self._end is None or self._end != self.num_samples or not self._stretches:
            return []
        last = self._stretches[-1]
        return [Stretch(self._end, [], self._counts_after(last, self._end))]

    def _counts_after(self, stretch: Stretch, num_samples: int) -> list[int]:
        counts = list(stretch.given)
        shares = self._tree(stretch).counts(num_samples - stretch.start)
        for dataset, share in zip(stretch.datasets, shares, strict=True):
            counts[dataset] += share
        return counts
