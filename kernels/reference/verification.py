"""Which candidates are copies: every earlier kept document that shares a key, most keys first."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..minhash import NO_KEY
from ..verification import MAX_BUCKET, MAX_COMPARISONS
from .similarity import set_jaccard


def verify_group(
    values: NDArray[np.uint64],
    set_offsets: NDArray[np.int64],
    shifts: NDArray[np.uint8],
    keys: NDArray[np.uint64],
    threshold: float,
    max_comparisons: int = MAX_COMPARISONS,
    max_bucket: int = MAX_BUCKET,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return (copy_of, jaccard, counts) as the kernel does."""
    num_bands, num_documents = keys.shape
    sets = [values[set_offsets[d] : set_offsets[d + 1]] for d in range(num_documents)]
    buckets: dict[tuple[int, int], list[int]] = {}
    copy_of = [-1] * num_documents
    jaccard = [math.nan] * num_documents
    compared = not_compared = not_taken = 0
    for document in range(num_documents):
        places = [
            (band, int(keys[band, document]))
            for band in range(num_bands)
            if keys[band, document] != NO_KEY
        ]
        shared: dict[int, int] = {}
        for place in places:
            for kept in buckets.get(place, []):
                shared[kept] = shared.get(kept, 0) + 1
        order = [
            kept
            for kept in sorted(shared, key=lambda kept: (-shared[kept], kept))
            if shifts[document] != shifts[kept]
            or size_ratio(len(sets[document]), len(sets[kept])) >= threshold
        ]
        for kept in order[:max_comparisons]:
            compared += 1
            shift = int(max(shifts[document], shifts[kept]))
            similarity = set_jaccard(sets[document], sets[kept], shift)
            if similarity >= threshold:
                copy_of[document], jaccard[document] = kept, similarity
                break
        if copy_of[document] >= 0:
            continue
        not_compared += max(0, len(order) - max_comparisons)
        for place in places:
            bucket = buckets.setdefault(place, [])
            if len(bucket) < max_bucket:
                bucket.append(document)
            else:
                not_taken += 1
    return (
        np.array(copy_of, np.int64),
        np.array(jaccard, np.float64),
        np.array([compared, not_compared, not_taken], np.int64),
    )


def size_ratio(left: int, right: int) -> float:
    """Return the largest similarity that two sets of these sizes can have."""
    return min(left, right) / max(left, right, 1)
