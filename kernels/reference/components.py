"""Connected components by relabelling until nothing changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unite_edges(
    parents: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> None:
    """Give the nodes of both components the smaller name, edge by edge, in place."""
    for first, second in zip(left.tolist(), right.tolist(), strict=True):
        names = resolve_components(parents)
        smaller, larger = sorted((names[first], names[second]))
        parents[:] = np.where(names == larger, smaller, names)


def resolve_components(parents: NDArray[np.int64]) -> NDArray[np.int64]:
    """Follow each node's parents to the end."""
    names = parents.copy()
    while True:
        followed = parents[names]
        if np.array_equal(followed, names):
            return names
        names = followed
