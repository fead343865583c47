"""Positions of a blend flow in, (dataset, index in it) flow out: a walk down a binary tree.

Every inner node has the weight of all datasets below it and that of its left half. Of its first i
samples the left child gets floor((2*i*left + total) / (2*total)), which is i*left/total rounded to
the nearest whole number; the right child gets the others. So position i belongs to the left child
exactly if that count grows from i to i + 1, and where it is there is the count itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel


def locate_in_blend(
    positions: NDArray[np.int64],
    children: NDArray[np.int64],
    weights: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (dataset, index): int64[num_positions] twice.

    Args:
        positions: int64[num_positions], each in [0, 2**40).
        children: int64[num_datasets - 1, 2], left and right child of each inner node: another
            inner node, or `~dataset`. The root is the last row; a blend of one has no rows.
        weights: int64[num_datasets - 1, 2], weight of the left child and of both, below 2**22.

    Raises:
        ValueError: a position or a weight beyond the bounds in which 64 bits are enough.

    Example: two datasets of weights 1 and 2 (children [[~0, ~1]], weights [[1, 3]]) give the
    positions 0 to 5 to the datasets 1, 0, 1, 1, 0, 1, as their samples 0, 0, 1, 2, 1, 3.
    """
    positions = as_readonly(positions, np.int64)
    children, weights = as_readonly(children, np.int64), as_readonly(weights, np.int64)
    if len(positions) and (positions.min() < 0 or positions.max() >= 1 << 40):
        raise ValueError(
            f"the positions {positions.min()} to {positions.max()} go beyond 0 to 2**40 - 1"
        )
    if weights.size and (weights.min() < 1 or weights.max() >= 1 << 22):
        raise ValueError(f"the weights {weights.min()} to {weights.max()} go beyond 1 to 2**22 - 1")
    datasets = np.empty(len(positions), dtype=np.int64)
    indices = np.empty(len(positions), dtype=np.int64)
    _locate(positions, children, weights, datasets, indices)
    return datasets, indices


@kernel
def _locate(
    positions: NDArray[np.int64],
    children: NDArray[np.int64],
    weights: NDArray[np.int64],
    datasets: NDArray[np.int64],
    indices: NDArray[np.int64],
) -> None:
    root = np.int64(len(children) - 1)
    for p in range(len(positions)):
        index = positions[p]
        node = root  # -1 == ~0: a blend of one dataset has no inner node
        while node >= 0:
            left, total = weights[node, 0], weights[node, 1]
            before = (2 * index * left + total) // (2 * total)
            after = (2 * (index + 1) * left + total) // (2 * total)
            if after > before:
                node, index = children[node, 0], before
            else:
                node, index = children[node, 1], index - before
        datasets[p] = ~node
        indices[p] = index
