"""Connected components by relabelling until nothing changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def join_buckets(parents: NDArray[Any], members: NDArray[np.int64], first: int = 0) -> int:
    """Give all members of each bucket the smallest of their names, in place."""
    for member in members.tolist():
        document = member if member >= 0 else -1 - member
        if parents[document] < 0:
            parents[document] = document
        if member < 0:
            first = document
        names = sorted({int(parents[first]), int(parents[document])})
        parents[np.isin(parents, names)] = names[0]
    return first


def resolve_components(parents: NDArray[Any]) -> None:
    """Follow each node's parents to the end."""
    known = np.flatnonzero(parents >= 0)
    while True:
        followed = parents[parents[known]]
        if np.array_equal(followed, parents[known]):
            return
        parents[known] = followed
