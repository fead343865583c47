"""Document lengths or blend weights flow in, the indices that Megatron would build flow out.

Both are the same to the last bit as those of `megatron.core.datasets.helpers_cpp`, computed in
other ways: rows of the sample index are emitted in one pass over the documents, and the greedy
blend looks at few datasets for each sample instead of all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel
from .reference.megatron import check_blend, dataset_dtype, sample_index_dtype

_BLOCK = 2048
_MIN_HORIZON = 16


def build_sample_index(
    lengths: NDArray[np.int32],
    document_index: NDArray[Any],
    sequence_length: int,
    num_samples: int,
    add_extra_token: bool = True,
) -> NDArray[Any]:
    """Return where samples begin: rows of (place in document_index, token offset in the document).

    Row j is token j * sequence_length of the documents laid end to end, in the order of
    `document_index`. A row beyond their last token stands at the last document's end.

    Args:
        lengths: int32[num_sequences], tokens of each.
        document_index: int32 or int64[num_places], numbers of sequences, repeats allowed.
        sequence_length: S, 1 or more.
        num_samples: n; there are n + 1 rows.
        add_extra_token: neighbouring samples share a token: a row at a document's end is then
            written as the start of the next one with tokens, else as the end of the former.

    Returns:
        int32[n + 1, 2], or int64 where a place or a length needs it.

    Raises:
        ValueError: no document, a number beyond the sequences, or sizes below their minimum.

    Example: lengths [3, 2, 4], document_index [2, 0, 1], S = 4 and n = 2 have the rows (0, 0),
    (1, 0) and (2, 1); without the extra token (0, 0), (0, 4) and (2, 1).
    """
    lengths = as_readonly(lengths, np.int32)
    narrow = np.asarray(document_index).dtype == np.int32
    document_index = as_readonly(document_index, np.int32 if narrow else np.int64)
    dtype = sample_index_dtype(lengths, document_index, sequence_length, num_samples)
    rows: NDArray[Any] = np.zeros((num_samples + 1, 2), dtype=dtype)
    _emit_rows(lengths, document_index, sequence_length, 1 if add_extra_token else 0, rows)
    return rows


@kernel
def _emit_rows(
    lengths: NDArray[np.int32],
    document_index: NDArray[Any],
    sequence_length: int,
    extra: int,
    rows: NDArray[Any],
) -> None:
    size = np.int64(sequence_length)
    num_rows = len(rows)
    row = 1  # row 0 stays (0, 0), even where the first documents are empty
    position = size
    start = np.int64(0)
    num_places = len(document_index)
    block = np.empty(_BLOCK, np.int32)  # gathered first: the reads then wait side by side
    for first in range(0, num_places, _BLOCK):
        in_block = min(_BLOCK, num_places - first)
        for b in range(in_block):
            block[b] = lengths[document_index[first + b]]
        for b in range(in_block):
            stop = start + np.int64(block[b])
            # With the extra token a boundary at `stop` belongs to the next document.
            while position <= stop - extra and row < num_rows:
                rows[row, 0] = first + b
                rows[row, 1] = position - start
                row += 1
                position += size
            start = stop
    last = num_places - 1
    for beyond in range(row, num_rows):
        rows[beyond, 0] = last
        rows[beyond, 1] = lengths[document_index[last]] - extra


def blend_greedily(
    weights: NDArray[np.float64],
    limits: NDArray[np.int64],
    counts: NDArray[np.int64],
    start: int,
    num_samples: int,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the dataset, and the number among its samples, of the next positions of a blend.

    Position i goes to the dataset with the largest error weights[k] * max(i, 1) - counts[k], in
    float64; of equal ones to the first.

    Args:
        weights: float64[num_datasets], each above 0.
        limits: int64[num_datasets], samples after which a dataset is left out.
        counts: int64[num_datasets], samples drawn before `start`; brought up to date in place.
        start: position to begin at, the sum of `counts`.
        num_samples: positions to fill.

    Returns:
        (datasets: int16[num_samples] (int32 above 32,767 datasets), indices: int64[num_samples]).

    Raises:
        ValueError: sizes that do not fit, a weight that is not above 0, or limits too low.

    Example: weights [0.5, 0.25, 0.25] and no counts give 0 1 2 0 0 1 2 0.

    A blend of D datasets takes about sqrt(D) comparisons for a sample and not D. For a window of
    some positions, one pass keeps as candidates the datasets whose error *could* reach a floor:
    that at the window's last position, with the counts at its first. Products and differences of
    float64 are rounded monotonely, so no error inside of the window is above it. As long as the
    largest error of the candidates reaches the floor, no other dataset can have it, not even a
    tie. If it does not, the candidates are chosen anew with a lower floor: which floor is tried
    decides how long this takes, never what comes out.
    """
    weights, limits = as_readonly(weights, np.float64), as_readonly(limits, np.int64)
    check_blend(weights, limits, counts, start, num_samples)
    datasets: NDArray[Any] = np.empty(num_samples, dtype=dataset_dtype(len(weights)))
    indices = np.empty(num_samples, dtype=np.int64)
    horizon = max(_MIN_HORIZON, 2 * math.isqrt(len(weights)))
    _blend(weights, limits, counts, start, horizon, datasets, indices)
    return datasets, indices


@kernel
def _blend(
    weights: NDArray[np.float64],
    limits: NDArray[np.int64],
    counts: NDArray[np.int64],
    start: int,
    horizon: int,
    datasets: NDArray[Any],
    indices: NDArray[np.int64],
) -> None:
    num_datasets = len(weights)
    spent = np.empty(num_datasets, np.float64)  # infinite: at its limit, never chosen again
    level = -np.inf  # the largest error seen last; the floor lies `depth` below it
    for k in range(num_datasets):
        spent[k] = float(counts[k]) if counts[k] < limits[k] else np.inf
        level = max(level, weights[k] * max(float(start), 1.0) - spent[k])
    depth = horizon / num_datasets
    numbers = np.empty(num_datasets, np.int64)  # the candidates, in ascending order
    candidate_weights = np.empty(num_datasets, np.float64)
    candidate_spent = np.empty(num_datasets, np.float64)
    position, stop = np.int64(start), np.int64(start + len(datasets))
    while position < stop:
        last = min(position + horizon, stop) - 1
        floor = level - depth
        num_candidates = _choose_candidates(
            weights,
            spent,
            max(float(last), 1.0),
            floor,
            horizon,
            numbers,
            candidate_weights,
            candidate_spent,
        )
        while position <= last:
            factor = max(float(position), 1.0)
            largest, chosen = -np.inf, 0
            for c in range(num_candidates):
                error = candidate_weights[c] * factor - candidate_spent[c]
                if error > largest:
                    largest, chosen = error, c
            if not largest >= floor or largest == -np.inf:
                break
            level = largest
            k = numbers[chosen]
            datasets[position - start] = k
            indices[position - start] = counts[k]
            counts[k] += 1
            spent[k] = spent[k] + 1.0 if counts[k] < limits[k] else np.inf
            candidate_spent[chosen] = spent[k]
            position += 1
        depth = depth * 0.9 if position > last else depth * 1.5


@kernel
def _choose_candidates(
    weights: NDArray[np.float64],
    spent: NDArray[np.float64],
    last_factor: float,
    floor: float,
    horizon: int,
    numbers: NDArray[np.int64],
    candidate_weights: NDArray[np.float64],
    candidate_spent: NDArray[np.float64],
) -> int:
    """Write the datasets whose error may reach the floor; return how many there are."""
    num_candidates = 0
    alike = 0  # neighbours before this one of the same weight and count: they go first, in turn
    previous_weight, previous_spent = -1.0, -1.0
    for k in range(len(weights)):
        weight, drawn = weights[k], spent[k]
        if weight == previous_weight and drawn == previous_spent:
            alike += 1
        else:
            alike = 0
        previous_weight, previous_spent = weight, drawn
        numbers[num_candidates] = k
        candidate_weights[num_candidates] = weight
        candidate_spent[num_candidates] = drawn
        if alike < horizon and weight * last_factor - drawn >= floor:
            num_candidates += 1
    return num_candidates
