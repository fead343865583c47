"""Two sorted sets flow in, their Jaccard similarity flows out, by one walk along both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .distinct import value_limit
from .jit import as_readonly, kernel


def set_jaccard(left: NDArray[np.uint64], right: NDArray[np.uint64], shift: int = 0) -> float:
    """Return |left and right| / |left or right| of the values below 2^(64 - shift).

    Args:
        left, right: uint64[num_values], ascending without repetitions.
        shift: 0 to 63, the larger shift of the two sets (see `shingle_sets`).

    [1, 2, 3] and [2, 3, 4] give 0.5; two empty sets give 0.0, since nothing says they are alike.
    """
    left, right = as_readonly(left, np.uint64), as_readonly(right, np.uint64)
    return float(jaccard_from(left, right, shift, 0.0))


@kernel
def jaccard_from(
    left: NDArray[np.uint64], right: NDArray[np.uint64], shift: int, threshold: float
) -> float:
    """Return the Jaccard similarity, or -1.0 as soon as it cannot reach `threshold` any more."""
    num_left, num_right = len(left), len(right)
    if shift > 0:
        limit = value_limit(shift)
        num_left = int(np.searchsorted(left, limit, side="right"))
        num_right = int(np.searchsorted(right, limit, side="right"))
    if num_left == 0 or num_right == 0:
        return 0.0 if threshold <= 0.0 else -1.0
    needed = smallest_intersection(num_left, num_right, threshold)
    spare_left, spare_right = num_left - needed, num_right - needed
    if spare_left < 0 or spare_right < 0:
        return -1.0
    shared = 0
    i, j = 0, 0
    while i < num_left and j < num_right:
        if left[i] == right[j]:
            shared += 1
            i += 1
            j += 1
        elif left[i] < right[j]:
            i += 1
            spare_left -= 1
            if spare_left < 0:
                return -1.0
        else:
            j += 1
            spare_right -= 1
            if spare_right < 0:
                return -1.0
    similarity = shared / (num_left + num_right - shared)
    return similarity if similarity >= threshold else -1.0


@kernel
def smallest_intersection(num_left: int, num_right: int, threshold: float) -> int:
    """Return the least i with i / (num_left + num_right - i) >= threshold, as floats compare."""
    total = num_left + num_right
    least = max(int(threshold / (1.0 + threshold) * total) - 1, 0)
    while least < total and least / (total - least) < threshold:
        least += 1
    return least
