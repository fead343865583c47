"""One group of candidates flows in, best first; which are copies of which kept one flows out.

A document is removed only if its own similarity to a document that is kept reaches the threshold.
Being alike to a removed one is not enough: chains (a ~ b ~ c) keep both of their ends, and
templates that share a bucket but not their content keep all of their documents. Nor is a document
removed whose payload (see `shingle_sets`) is not in the kept one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel
from .mixing import signed
from .similarity import jaccard_from

MAX_COMPARISONS = 128
"""Documents that one is compared with, those that share most buckets first."""
MAX_BUCKET = 256
"""Documents that one bucket remembers. A pair at threshold 0.8 shares 5 of 20 buckets on average,
and the crowded ones are those that say least."""

_BUCKET_COUNT_SHIFT = 40


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
    """Go through documents in order; keep each that is no copy of one kept before.

    A document is compared with the kept ones that share a bucket with it, most shared buckets
    first, then earliest first, until one reaches the threshold. Pairs of sets whose sizes alone
    forbid the threshold are passed over.

    Args:
        values, set_offsets, shifts: shingle sets of num_documents documents, the one to keep
            first (`shingle_sets`, `shingle_lists`).
        payloads, payload_offsets: payloads of the same documents.
        buckets, bucket_offsets: int64[], int64[num_documents + 1]: the buckets that each document
            lies in, without repetitions; numbers from 0 on.
        is_old: bool[num_documents]; an old document is kept, whatever it is like.
        threshold: Jaccard similarity of a copy, 0 to 1; 0: sharing a bucket is enough.
        payload_overlap: share of its payload that a copy must have in common with the kept one.
        among_new: whether new documents are compared with each other, or with old ones only.
        all_pairs: compare with copies as well as with kept documents, and go on after a match:
            every document that is alike to another is then a copy of one.
        max_comparisons, max_bucket: what bounds the work on one document; see the constants.

    Returns:
        copy_of: int64[num_documents], place of the document that this one is a copy of (with
            `all_pairs` it may be a copy itself, or come later), or -1 where kept.
        jaccard: float64[num_documents], similarity to it, or NaN where kept.
        counts: int64[4]: pairs compared; pairs with a shared bucket that were not compared because
            of max_comparisons; documents that a full bucket did not take; pairs at the threshold
            that differ in their payload.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}: a similarity from 0 to 1 is needed")
    buckets = as_readonly(buckets, np.int64)
    return _verify_group(  # type: ignore[no-any-return]
        as_readonly(values, np.uint64),
        as_readonly(set_offsets, np.int64),
        as_readonly(shifts, np.uint8),
        as_readonly(payloads, np.uint64),
        as_readonly(payload_offsets, np.int64),
        buckets,
        as_readonly(bucket_offsets, np.int64),
        as_readonly(is_old, np.bool_),
        int(buckets.max(initial=-1)) + 1,
        float(threshold),
        float(payload_overlap),
        bool(among_new),
        bool(all_pairs),
        max_comparisons,
        max_bucket,
    )


@kernel
def _verify_group(
    values: NDArray[np.uint64],
    set_offsets: NDArray[np.int64],
    shifts: NDArray[np.uint8],
    payloads: NDArray[np.uint64],
    payload_offsets: NDArray[np.int64],
    buckets: NDArray[np.int64],
    bucket_offsets: NDArray[np.int64],
    is_old: NDArray[np.bool_],
    num_buckets: int,
    threshold: float,
    payload_overlap: float,
    among_new: bool,
    all_pairs: bool,
    max_comparisons: int,
    max_bucket: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    num_documents = len(shifts)
    copy_of = np.full(num_documents, -1, np.int64)
    jaccard = np.full(num_documents, np.nan, np.float64)
    counts = np.zeros(4, np.int64)
    # The first later document that matched a document, and how well: for `all_pairs`.
    follower = np.full(num_documents, -1, np.int64)
    follower_jaccard = np.full(num_documents, np.nan, np.float64)
    # Each bucket is a linked list of entries, newest first; an entry is a place in `buckets`.
    newest = np.full(num_buckets, -1, np.int64)
    sizes = np.zeros(num_buckets, np.int64)
    older = np.empty(len(buckets), np.int64)
    owner = np.empty(len(buckets), np.int64)
    shared_buckets = np.zeros(num_documents, np.int64)
    candidates = np.empty(num_documents, np.int64)
    for document in range(num_documents):
        first, last = bucket_offsets[document], bucket_offsets[document + 1]
        num_candidates = 0
        if not is_old[document]:
            for place in range(first, last):
                entry = newest[buckets[place]]
                while entry >= 0:
                    kept = owner[entry]
                    if shared_buckets[kept] == 0:
                        candidates[num_candidates] = kept
                        num_candidates += 1
                    shared_buckets[kept] += 1
                    entry = older[entry]
        num_touched, num_candidates = num_candidates, 0
        for index in range(num_touched):
            kept = candidates[index]
            order = ((last - first - shared_buckets[kept]) << _BUCKET_COUNT_SHIFT) | kept
            shared_buckets[kept] = 0
            if _sizes_allow(set_offsets, shifts, document, kept, threshold):
                candidates[num_candidates] = order
                num_candidates += 1
        candidates[:num_candidates].sort()
        mine = values[set_offsets[document] : set_offsets[document + 1]]
        payload = payloads[payload_offsets[document] : payload_offsets[document + 1]]
        compared = 0
        for index in range(num_candidates):
            if compared == max_comparisons:
                counts[1] += num_candidates - index
                break
            kept = candidates[index] & ((1 << _BUCKET_COUNT_SHIFT) - 1)
            theirs = values[set_offsets[kept] : set_offsets[kept + 1]]
            shift = signed(max(shifts[document], shifts[kept]))
            compared += 1
            similarity = jaccard_from(mine, theirs, shift, threshold)
            if similarity < 0.0:
                continue
            if threshold > 0.0 and not _holds_share(theirs, payload, payload_overlap):
                counts[3] += 1
                continue
            if copy_of[document] < 0:
                copy_of[document] = kept
                jaccard[document] = similarity
            if follower[kept] < 0:
                follower[kept] = document
                follower_jaccard[kept] = similarity
            if not all_pairs:
                break
        counts[0] += compared
        if copy_of[document] >= 0 and not all_pairs:
            continue
        if not among_new and not is_old[document]:
            continue
        for place in range(first, last):
            bucket = buckets[place]
            if sizes[bucket] >= max_bucket:
                counts[2] += 1
                continue
            sizes[bucket] += 1
            older[place] = newest[bucket]
            owner[place] = document
            newest[bucket] = place
    if all_pairs:
        _follow(copy_of, jaccard, follower, follower_jaccard, is_old)
    return copy_of, jaccard, counts


@kernel
def _follow(
    copy_of: NDArray[np.int64],
    jaccard: NDArray[np.float64],
    follower: NDArray[np.int64],
    follower_jaccard: NDArray[np.float64],
    is_old: NDArray[np.bool_],
) -> None:
    """Make each document that only later ones matched a copy of one, unless it leads copies.

    A leader stays -1: what follows it says that it has copies. So the links make no ring.
    """
    leads = np.zeros(len(copy_of), np.bool_)
    for document in range(len(copy_of)):
        if copy_of[document] >= 0:
            leads[copy_of[document]] = True
    for document in range(len(copy_of)):
        is_lone = copy_of[document] < 0 and not leads[document] and not is_old[document]
        if is_lone and follower[document] >= 0:
            copy_of[document] = follower[document]
            jaccard[document] = follower_jaccard[document]


@kernel
def _holds_share(
    theirs: NDArray[np.uint64], payload: NDArray[np.uint64], payload_overlap: float
) -> bool:
    """Say whether a set holds the wanted share of a payload; nothing is always held."""
    found = 0
    i, j = 0, 0
    while i < len(theirs) and j < len(payload):
        if theirs[i] == payload[j]:
            found += 1
            i += 1
            j += 1
        elif theirs[i] < payload[j]:
            i += 1
        else:
            j += 1
    return bool(found >= payload_overlap * len(payload))


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
