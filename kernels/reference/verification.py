"""Which candidates are copies: earlier kept documents that share a bucket, most shared first."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..verification import MAX_BUCKET, MAX_COMPARISONS
from .similarity import set_jaccard


def verify_group(
    values: NDArray[np.uint64],
    set_offsets: NDArray[np.int64],
    shifts: NDArray[np.uint8],
    payloads: NDArray[np.uint64],
    payload_offsets: NDArray[np.int64],
    buckets: NDArray[np.int64],
    bucket_offsets: NDArray[np.int64],
    is_old: NDArray[np.bool_],
    threshold: float,
    payload_overlap: float = 0.5,
    among_new: bool = True,
    all_pairs: bool = False,
    max_comparisons: int = MAX_COMPARISONS,
    max_bucket: int = MAX_BUCKET,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return (copy_of, jaccard, counts) as the kernel does."""
    num_documents = len(shifts)
    sets = [values[set_offsets[d] : set_offsets[d + 1]] for d in range(num_documents)]
    members: dict[int, list[int]] = {}
    copy_of = [-1] * num_documents
    jaccard = [math.nan] * num_documents
    followers: dict[int, tuple[int, float]] = {}
    compared = not_compared = not_taken = other_payload = 0
    for document in range(num_documents):
        mine = buckets[bucket_offsets[document] : bucket_offsets[document + 1]].tolist()
        shared: dict[int, int] = {}
        for bucket in [] if is_old[document] else mine:
            for kept in members.get(bucket, []):
                shared[kept] = shared.get(kept, 0) + 1
        order = [
            kept
            for kept in sorted(shared, key=lambda kept: (-shared[kept], kept))
            if shifts[document] != shifts[kept]
            or (
                size_ratio(len(sets[document]), len(sets[kept])) >= threshold
                and max(len(sets[document]), len(sets[kept]))
            )
        ]
        payload = set(payloads[payload_offsets[document] : payload_offsets[document + 1]].tolist())
        was_broken = False
        for kept in order[:max_comparisons]:
            compared += 1
            shift = int(max(shifts[document], shifts[kept]))
            similarity = set_jaccard(sets[document], sets[kept], shift)
            if similarity < threshold:
                continue
            held = len(payload & set(sets[kept].tolist()))
            if threshold > 0 and held < payload_overlap * len(payload):
                other_payload += 1
                continue
            if copy_of[document] < 0:
                copy_of[document], jaccard[document] = kept, similarity
            followers.setdefault(kept, (document, similarity))
            if not all_pairs:
                was_broken = True
                break
        if not was_broken:
            not_compared += max(0, len(order) - max_comparisons)
        if (copy_of[document] >= 0 and not all_pairs) or not (among_new or is_old[document]):
            continue
        for bucket in mine:
            those = members.setdefault(bucket, [])
            if len(those) < max_bucket:
                those.append(document)
            else:
                not_taken += 1
    if all_pairs:
        leaders = set(copy_of)
        for document, (follower, similarity) in followers.items():
            if copy_of[document] < 0 and document not in leaders and not is_old[document]:
                copy_of[document], jaccard[document] = follower, similarity
    return (
        np.array(copy_of, np.int64),
        np.array(jaccard, np.float64),
        np.array([compared, not_compared, not_taken, other_payload], np.int64),
    )


def size_ratio(left: int, right: int) -> float:
    """Return the largest similarity that two sets of these sizes can have."""
    return min(left, right) / max(left, right, 1)
