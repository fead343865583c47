"""Jaccard similarity by its definition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def set_jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64], shift: int = 0) -> float:
    """Return |left and right| / |left or right| of the values below 2^(64 - shift)."""
    first = {value for value in left.tolist() if value < 1 << 64 - shift}
    second = {value for value in right.tolist() if value < 1 << 64 - shift}
    if not first or not second:
        return 0.0
    return len(first & second) / len(first | second)
