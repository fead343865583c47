"""The blend's tree walked in Python integers: what reading a single sample uses.

Same arithmetic as `kernels/blend.py`, where the idea is explained; here nothing can overflow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def left_samples(num_samples: int, left: int, total: int) -> int:
    """Return how many of a node's first samples its left child gives: the nearest whole number.

    Example: left_samples(2, 1, 3) == 1, and left_samples(1, 1, 3) == 0.
    """
    return (2 * num_samples * left + total) // (2 * total)


def locate_position(
    position: int, children: Sequence[Sequence[int]], weights: Sequence[Sequence[int]]
) -> tuple[int, int]:
    """Return (dataset, index) of one position; the tree is that of `locate_in_blend`."""
    node, index = len(children) - 1, position
    while node >= 0:
        left, total = weights[node]
        before = left_samples(index, left, total)
        if left_samples(index + 1, left, total) > before:
            node, index = children[node][0], before
        else:
            node, index = children[node][1], index - before
    return ~node, index


def locate_in_blend(
    positions: NDArray[np.int64],
    children: NDArray[np.int64],
    weights: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (dataset, index) of each position, one `locate_position` after the other."""
    rows, pairs = children.tolist(), weights.tolist()
    found = [locate_position(int(position), rows, pairs) for position in positions]
    table = np.array(found, dtype=np.int64).reshape(-1, 2)
    return table[:, 0].copy(), table[:, 1].copy()
