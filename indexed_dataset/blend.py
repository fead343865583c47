"""A blend of datasets: a position in, (dataset, index in it) and the sample out.

Whole weights stand at the leaves of a binary tree (Huffman's, so that heavy datasets are near the
root). Each node shares its samples out to its two children as evenly as whole numbers can, so
every prefix of the blend is within about two samples of its ideal, any position is found by one
walk from the root, and how many samples each dataset gave is known in closed form.
"""

from __future__ import annotations

import hashlib
import heapq
import math
import operator
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import IndexedDatasetError
from .samples import Sample, SampleDataset
from .split import require_same_tokenizer

MAX_TOTAL_WEIGHT = 2**22 - 1
"""With it and positions below 2**40, 64 bits are enough for the kernel's arithmetic."""


class BlendTree:
    """Which dataset gives position i of a blend, and how many it gave before.

    Args:
        weights: whole numbers from 1 on; common factors are taken out.

    Example: BlendTree([1, 2]): positions 0 to 5 go to the datasets 1, 0, 1, 1, 0, 1.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        given = [operator.index(weight) for weight in weights]
        if not given or min(given) < 1:
            raise IndexedDatasetError(
                f"the weights are {given}: a blend has one dataset or more, each of weight 1 or "
                "more. Leave out what shall not be drawn"
            )
        factor = math.gcd(*given)
        self.weights = [weight // factor for weight in given]
        self.total_weight = sum(self.weights)
        if self.total_weight > MAX_TOTAL_WEIGHT:
            raise IndexedDatasetError(
                f"the weights add up to {self.total_weight}, more than {MAX_TOTAL_WEIGHT}. Scale "
                "them down: temperature_weights(counts, alpha=1.0) does so for token counts"
            )
        self.children, self.node_weights = _huffman(self.weights)

    def locate(self, position: int) -> tuple[int, int]:
        """Return (dataset, index among its samples) of one position."""
        from ..kernels.reference.blend import locate_position

        return locate_position(position, self.children, self.node_weights)

    def locate_many(
        self, positions: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (dataset, index) of many positions, int64[num_positions] twice; needs numba."""
        from ..kernels.blend import locate_in_blend

        return locate_in_blend(
            np.asarray(positions, dtype=np.int64),
            np.array(self.children, dtype=np.int64).reshape(-1, 2),
            np.array(self.node_weights, dtype=np.int64).reshape(-1, 2),
        )

    def counts(self, num_samples: int) -> list[int]:
        """Return how many of the first `num_samples` positions each dataset gives."""
        from ..kernels.reference.blend import left_samples

        counts = [0] * len(self.weights)
        pending = [(len(self.children) - 1, num_samples)]
        while pending:
            node, number = pending.pop()
            if node < 0:
                counts[~node] = number
                continue
            before = left_samples(number, *self.node_weights[node])
            left, right = self.children[node]
            pending += [(left, before), (right, number - before)]
        return counts


class BlendedDataset:
    """Samples of several datasets in fixed proportions: `len(blend)`, `blend[i]`.

    Args:
        datasets: one `SampleDataset` for each source or language, of one sequence length.
        weights: whole numbers from 1 on; share of the *samples* that each dataset gives.
            Default: by tokens. `temperature_weights` makes them from token counts.
        num_samples: what `len` says; default: the samples of one epoch of all datasets together.
            It never changes the order.
        starts: samples that each dataset gave earlier (`consumed` of an earlier blend), so that a
            changed blend goes on where each dataset was. Default: from the start.

    Raises:
        TokenizerMismatchError: datasets made with different tokenizers.
        IndexedDatasetError: weights, starts or sequence lengths that do not fit.

    The position in a blend is its whole state: `blend.sample(consumed_samples)` is the next one.
    """

    def __init__(
        self,
        datasets: Sequence[SampleDataset],
        weights: Sequence[int] | None = None,
        *,
        num_samples: int | None = None,
        starts: Sequence[int] | None = None,
    ) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise IndexedDatasetError("a blend has one dataset or more")
        if weights is None:
            from .weights import temperature_weights

            weights = temperature_weights([d.num_tokens for d in self.datasets], 1.0)
        self.starts = [0] * len(self.datasets) if starts is None else list(starts)
        for noun, numbers in (("weights", weights), ("starts", self.starts)):
            if len(numbers) != len(self.datasets):
                raise IndexedDatasetError(
                    f"there are {len(numbers)} {noun} for {len(self.datasets)} datasets: give one "
                    "for each"
                )
        if min(self.starts) < 0:
            raise IndexedDatasetError(f"the starts are {self.starts}; none can be negative")
        lengths = sorted({dataset.sequence_length for dataset in self.datasets})
        if len(lengths) > 1:
            raise IndexedDatasetError(
                f"the datasets have the sequence lengths {lengths}: samples of a blend must stack. "
                "Give all the same"
            )
        require_same_tokenizer(
            (shard.prefix, shard.manifest) for d in self.datasets for shard in d.split.shards
        )
        self.tree = BlendTree(weights)
        self._num_samples = num_samples

    def __len__(self) -> int:
        """Return `num_samples`, else the samples of one epoch of all datasets together."""
        if self._num_samples is not None:
            return self._num_samples
        return sum(dataset.samples_per_epoch for dataset in self.datasets)

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`, 0 to `len` - 1 (or from the end, if negative)."""
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} was asked for, but the blend has {len(self)}")
        return self.sample(number % len(self))

    def sample(self, position: int) -> Sample:
        """Return the sample at any position from 0 on; `dataset_id` is its dataset's number."""
        dataset, index = self.locate(position)
        sample = self.datasets[dataset].sample(index)
        sample["dataset_id"] = dataset
        return sample

    def locate(self, position: int) -> tuple[int, int]:
        """Return (dataset, index to give to its `sample`) of one position."""
        if position < 0:
            raise IndexError(f"a blend has no sample {position}")
        dataset, index = self.tree.locate(position)
        return dataset, self.starts[dataset] + index

    def consumed(self, num_samples: int) -> list[int]:
        """Return the samples each dataset has given after the first `num_samples` of the blend.

        `starts` are included. This is the state to keep for a resume with a changed blend.
        """
        counts = self.tree.counts(num_samples)
        return [start + count for start, count in zip(self.starts, counts, strict=True)]

    @property
    def sequence_length(self) -> int:
        """S, tokens of a sample."""
        return self.datasets[0].sequence_length

    @property
    def names(self) -> list[str]:
        """Names of the datasets; `dataset_id` counts in this list."""
        return [dataset.name for dataset in self.datasets]

    @property
    def fingerprint(self) -> str:
        """Hex of 32 digits: data, orders, weights and starts; equal ones give equal samples."""
        digest = hashlib.blake2b(digest_size=16)
        for dataset, weight, start in zip(
            self.datasets, self.tree.weights, self.starts, strict=True
        ):
            digest.update(
                f"{dataset.fingerprint} {dataset.sequence_length} {dataset.order} {dataset.seed} "
                f"{dataset.documents} {weight} {start}\n".encode()
            )
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"BlendedDataset({', '.join(self.names)}: weights {self.tree.weights})"


def _huffman(weights: Sequence[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Return children and (left, total) weights of each inner node, the root last.

    Children that are datasets are written `~dataset`. Equal weights are taken in the order of the
    datasets, then of the nodes made from them, so the tree depends on the weights alone.
    """
    heap = [(weight, place, ~place) for place, weight in enumerate(weights)]
    heapq.heapify(heap)
    children: list[list[int]] = []
    node_weights: list[list[int]] = []
    while len(heap) > 1:
        left_weight, _, left = heapq.heappop(heap)
        right_weight, _, right = heapq.heappop(heap)
        node = len(children)
        children.append([left, right])
        node_weights.append([left_weight, left_weight + right_weight])
        heapq.heappush(heap, (left_weight + right_weight, len(weights) + node, node))
    return children, node_weights
