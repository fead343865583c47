"""Megatron's blend: weights or dataset sizes in, (dataset, index in it) of any position out.

Same as `BlendedDataset` of megatron-core 0.16, to the last sample. Position i goes to the dataset
that lags most behind its share of the first i samples (`kernels.blend_greedily`), which has to be
walked from the start. Megatron does so for the whole run before the first step and stores 10 bytes
a sample; here it is done in blocks when a position is first asked for, and stored in 4 bytes.
The walk needs numba.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import IndexedDatasetError
from .megatron_order import normalize

BLOCK = 1 << 12
"""Positions of a block, at most 2**16; counts of all datasets are kept at the start of each."""

SURPLUS = 0.005
"""Megatron's default of `mid_level_dataset_surplus`."""


class MegatronBlend:
    """Which dataset gives position i of a blend, and how many it gave before.

    Args:
        weights: above 0, one for each dataset; in the proportions of which samples are drawn.
            None: in the proportions of `sizes`.
        num_samples: samples of the blend. With weights at least so many, rounded up for each
            dataset; without, not more than all sizes together, and None draws exactly all of them.
        sizes: samples that each dataset has; needed without weights.

    Raises:
        IndexedDatasetError: weights without `num_samples`, neither weights nor sizes, or one of
            them not above 0.

    Example: MegatronBlend([30, 70, 5], 1000) has 1001 samples and begins 1 0 1 2 1 0 1 1 1 0.
    """

    def __init__(
        self,
        weights: Sequence[float] | None,
        num_samples: int | None = None,
        *,
        sizes: Sequence[int] | None = None,
    ) -> None:
        given = weights if weights is not None else sizes
        if not given or not all(math.isfinite(number) and number > 0 for number in given):
            noun = "sizes" if weights is None else "weights"
            raise IndexedDatasetError(
                f"the {noun} are {given and list(given)}: Megatron blends one dataset or more, "
                "each above 0. Leave out what shall not, or cannot, be drawn"
            )
        if weights is not None:
            if num_samples is None:
                raise IndexedDatasetError(
                    f"the weights {list(weights)} were given without num_samples: the share of "
                    "each dataset is rounded up, so the whole must be known. Give both or neither"
                )
            normal = normalize(list(weights))
            self.num_samples = sum(target_samples(normal, num_samples))
            # The builder normalizes weights and the blend does once more, which moves last bits.
            self.weights = normalize(normal)
        else:
            assert sizes is not None
            total = sum(sizes)
            self.num_samples = total if num_samples is None else min(num_samples, total)
            self.weights = normalize(list(given))
        # Only a blend of everything leaves datasets out when they have given all.
        exact = weights is None and num_samples is None
        unlimited = [np.iinfo(np.int64).max] * len(given)
        self._limits = np.array(list(given) if exact else unlimited, dtype=np.int64)
        self._weights = np.array(self.weights, dtype=np.float64)
        self._blocks: dict[int, tuple[NDArray[Any], NDArray[np.uint16]]] = {}
        self._counts = {0: np.zeros(len(given), dtype=np.int64)}

    def __len__(self) -> int:
        """Return the samples of the blend."""
        return self.num_samples

    @property
    def identity(self) -> str:
        """What the order of the datasets depends on, beside the weights."""
        limits = "" if self._limits[0] == np.iinfo(np.int64).max else f" of {self._limits.tolist()}"
        return f"megatron 1{limits}\n"

    def locate(self, position: int) -> tuple[int, int]:
        """Return (dataset, index among its samples) of one position, in [0, num_samples)."""
        if not 0 <= position < self.num_samples:
            raise IndexError(
                f"position {position} was asked for, but the blend has {self.num_samples} samples"
            )
        number, place = divmod(position, BLOCK)
        datasets, earlier = self._block(number)
        dataset = datasets.item(place)
        return dataset, self._counts[number].item(dataset) + earlier.item(place)

    def counts(self, num_samples: int) -> list[int]:
        """Return how many of the first `num_samples` positions each dataset gives."""
        number, place = divmod(min(num_samples, self.num_samples), BLOCK)
        if number:
            self._block(number - 1)
        counts = self._counts[number].copy()
        if place:
            counts += np.bincount(self._block(number)[0][:place], minlength=len(counts))
        drawn: list[int] = counts.tolist()
        return drawn

    def limits_reached(self, num_samples: int) -> list[tuple[int, int]]:
        """Return nothing: Megatron knows no cap on epochs."""
        return []

    def overdrawn(self, sizes: Sequence[int]) -> dict[int, int]:
        """Return the datasets that the blend draws more from than they have: number -> drawn.

        Args:
            sizes: samples of each dataset.

        A dataset is drawn only while it is not ahead of its share, so it gives less than two
        samples more than that: the blend is walked through only where a size is that close.
        """
        shares = [self.num_samples * weight for weight in self.weights]
        if all(size >= share + 2 for size, share in zip(sizes, shares, strict=True)):
            return {}
        drawn = enumerate(zip(self.counts(self.num_samples), sizes, strict=True))
        return {k: count for k, (count, size) in drawn if count > size}

    def indices(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return what Megatron stores: dataset int16[num_samples], index in it int64[num_samples].

        Computed anew each time and not kept; above 32,767 datasets, which Megatron refuses, the
        first is int32.
        """
        from ..kernels import blend_greedily

        counts = np.zeros(len(self._weights), dtype=np.int64)
        found: tuple[NDArray[Any], NDArray[np.int64]] = blend_greedily(
            self._weights, self._limits, counts, 0, self.num_samples
        )
        return found

    def _block(self, number: int) -> tuple[NDArray[Any], NDArray[np.uint16]]:
        """Return the dataset of each position of a block, and its samples earlier in the block.

        All blocks up to it that are not there are computed.

        Two threads at once compute the same block twice, and keep the same.
        """
        if number < len(self._blocks):
            return self._blocks[number]
        from ..kernels import blend_greedily

        for n in range(len(self._blocks), number + 1):
            counts = self._counts[n].copy()
            start = n * BLOCK
            size = min(BLOCK, self.num_samples - start)
            datasets, indices = blend_greedily(self._weights, self._limits, counts, start, size)
            earlier = (indices - self._counts[n][datasets]).astype(np.uint16)
            self._counts[n + 1], self._blocks[n] = counts, (datasets, earlier)
        return self._blocks[number]


def target_samples(normal_weights: Sequence[float], num_samples: int) -> list[int]:
    """Return the samples meant for each dataset: its share, rounded up.

    Args:
        normal_weights: adding up to 1, normalized once.
        num_samples: of the whole blend.
    """
    return [math.ceil(num_samples * weight) for weight in normal_weights]


def megatron_requests(
    weights: Sequence[float], num_samples: int, surplus: float = SURPLUS
) -> list[int]:
    """Return the `num_samples` with which Megatron builds each dataset of a blend.

    It is more than what the blend draws, by `surplus`, and decides how many epochs a dataset has
    and whether the last of them is shuffled apart. Even so a blend can draw more: Megatron then
    stops, unless a dataset happens to have more samples than it was asked for.

    Example: megatron_requests([30, 70, 5], 1000) == [288, 671, 49].
    """
    targets = target_samples(normalize(list(weights)), num_samples)
    return [math.ceil(target * (1 + surplus)) for target in targets]
