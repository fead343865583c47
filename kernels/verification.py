"""One group of candidates flows in, best first; which are copies of which kept one flows out.

A document is removed only if its own similarity to a document that is kept reaches the threshold.
Being alike to a removed one is not enough: chains (a ~ b ~ c) keep both of their ends, and
templates that share a bucket but not their content keep all of their documents.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel
from .minhash import NO_KEY
from .mixing import signed
from .similarity import jaccard_from

MAX_COMPARISONS = 128
"""Kept documents that one is compared with, those that share most bands first."""
MAX_BUCKET = 256
"""Kept documents that one bucket remembers. A pair at threshold 0.8 shares 5 of 20 buckets on
average, and the crowded ones are those that say least."""

_BAND_COUNT_SHIFT = 40


def verify_group(
    values: NDArray[np.uint64],
    set_offsets: NDArray[np.int64],
    shifts: NDArray[np.uint8],
    keys: NDArray[np.uint64],
    threshold: float,
    max_comparisons: int = MAX_COMPARISONS,
    max_bucket: int = MAX_BUCKET,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Go through documents in order; keep each that is no copy of one kept before.

    A document is compared with the kept ones that share a band key with it, most shared keys
    first, then earliest first, until one reaches the threshold. Pairs of sets whose sizes alone
    forbid the threshold are passed over.

    Args:
        values, set_offsets, shifts: shingle sets of num_documents documents, the one to keep
            first, as `shingle_sets` returns them.
        keys: uint64[num_bands, num_documents] of `band_keys`.
        threshold: Jaccard similarity of a copy, above 0 and at most 1.
        max_comparisons, max_bucket: what bounds the work on one document; see the constants.

    Returns:
        copy_of: int64[num_documents], place of the kept document, or -1 where kept.
        jaccard: float64[num_documents], similarity to it, or NaN where kept.
        counts: int64[3]: pairs compared; pairs with a shared key that were not compared because
            of max_comparisons; kept documents that a full bucket did not take.
    """
    if not 0.0 < threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}: a similarity above 0 and at most 1 is needed")
    buckets, num_buckets = _number_buckets(keys)
    return _verify_group(  # type: ignore[no-any-return]
        as_readonly(values, np.uint64),
        as_readonly(set_offsets, np.int64),
        as_readonly(shifts, np.uint8),
        as_readonly(buckets, np.int64),
        num_buckets,
        threshold,
        max_comparisons,
        max_bucket,
    )


def _number_buckets(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], int]:
    """Return int64[num_documents, num_bands] of bucket numbers (-1: no key), and their count."""
    num_bands, num_documents = keys.shape
    buckets = np.empty((num_documents, num_bands), np.int64)
    num_buckets = 0
    for band in range(num_bands):
        distinct, numbers = np.unique(keys[band], return_inverse=True)
        buckets[:, band] = np.where(keys[band] == NO_KEY, -1, numbers + num_buckets)
        num_buckets += len(distinct)
    return buckets, num_buckets


@kernel
def _verify_group(
    values: NDArray[np.uint64],
    set_offsets: NDArray[np.int64],
    shifts: NDArray[np.uint8],
    buckets: NDArray[np.int64],
    num_buckets: int,
    threshold: float,
    max_comparisons: int,
    max_bucket: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    num_documents, num_bands = buckets.shape
    copy_of = np.full(num_documents, -1, np.int64)
    jaccard = np.full(num_documents, np.nan, np.float64)
    counts = np.zeros(3, np.int64)
    # Each bucket is a linked list of entries (document, band), newest first.
    newest = np.full(num_buckets, -1, np.int64)
    sizes = np.zeros(num_buckets, np.int64)
    older = np.empty(num_documents * num_bands, np.int64)
    shared_bands = np.zeros(num_documents, np.int64)
    candidates = np.empty(min(num_documents, num_bands * max_bucket), np.int64)
    for document in range(num_documents):
        num_candidates = 0
        for band in range(num_bands):
            bucket = buckets[document, band]
            entry = newest[bucket] if bucket >= 0 else -1
            while entry >= 0:
                kept = entry // num_bands
                if shared_bands[kept] == 0:
                    candidates[num_candidates] = kept
                    num_candidates += 1
                shared_bands[kept] += 1
                entry = older[entry]
        num_touched, num_candidates = num_candidates, 0
        for index in range(num_touched):
            kept = candidates[index]
            order = ((num_bands - shared_bands[kept]) << _BAND_COUNT_SHIFT) | kept
            shared_bands[kept] = 0
            if _sizes_allow(set_offsets, shifts, document, kept, threshold):
                candidates[num_candidates] = order
                num_candidates += 1
        candidates[:num_candidates].sort()
        mine = values[set_offsets[document] : set_offsets[document + 1]]
        compared = 0
        for index in range(num_candidates):
            if compared == max_comparisons:
                counts[1] += num_candidates - index
                break
            kept = candidates[index] & ((1 << _BAND_COUNT_SHIFT) - 1)
            theirs = values[set_offsets[kept] : set_offsets[kept + 1]]
            shift = signed(max(shifts[document], shifts[kept]))
            compared += 1
            similarity = jaccard_from(mine, theirs, shift, threshold)
            if similarity >= 0.0:
                copy_of[document] = kept
                jaccard[document] = similarity
                break
        counts[0] += compared
        if copy_of[document] >= 0:
            continue
        for band in range(num_bands):
            bucket = buckets[document, band]
            if bucket < 0:
                continue
            if sizes[bucket] >= max_bucket:
                counts[2] += 1
                continue
            sizes[bucket] += 1
            entry = document * num_bands + band
            older[entry] = newest[bucket]
            newest[bucket] = entry
    return copy_of, jaccard, counts


@kernel
def _sizes_allow(
    set_offsets: NDArray[np.int64],
    shifts: NDArray[np.uint8],
    left: int,
    right: int,
    threshold: float,
) -> bool:
    """Say whether two whole sets, or two equally sampled ones, are near enough in size."""
    if shifts[left] != shifts[right]:
        return True
    num_left = set_offsets[left + 1] - set_offsets[left]
    num_right = set_offsets[right + 1] - set_offsets[right]
    larger = max(num_left, num_right)
    return bool(larger > 0 and min(num_left, num_right) / larger >= threshold)
