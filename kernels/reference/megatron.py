"""Megatron's sample index by bisection and its greedy blend by looking at every dataset.

Same results as `kernels/megatron.py`, which has the docstrings; both equal
`megatron.core.datasets.helpers_cpp`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def build_sample_index(
    lengths: NDArray[np.int32],
    document_index: NDArray[Any],
    sequence_length: int,
    num_samples: int,
    add_extra_token: bool = True,
) -> NDArray[Any]:
    """Return the rows in closed form: bisection in the running sum of the document lengths."""
    dtype = sample_index_dtype(lengths, document_index, sequence_length, num_samples)
    extra = 1 if add_extra_token else 0
    ends = np.zeros(len(document_index) + 1, dtype=np.int64)
    np.cumsum(lengths[document_index], dtype=np.int64, out=ends[1:])
    positions = np.arange(num_samples + 1, dtype=np.int64) * sequence_length
    places = np.searchsorted(ends, positions, side="right" if extra else "left") - 1
    offsets = positions - ends[places]
    places[0] = offsets[0] = 0
    beyond = positions > ends[-1] - extra
    beyond[0] = False
    places[beyond] = len(document_index) - 1
    offsets[beyond] = int(lengths[document_index[-1]]) - extra
    return np.stack((places, offsets), axis=1).astype(dtype)


def blend_greedily(
    weights: NDArray[np.float64],
    limits: NDArray[np.int64],
    counts: NDArray[np.int64],
    start: int,
    num_samples: int,
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return dataset and index of each position: the first of the largest errors, every time."""
    check_blend(weights, limits, counts, start, num_samples)
    datasets: NDArray[Any] = np.empty(num_samples, dtype=dataset_dtype(len(weights)))
    indices = np.empty(num_samples, dtype=np.int64)
    for i in range(num_samples):
        errors = weights * float(max(start + i, 1)) - counts
        errors[counts >= limits] = -np.inf
        chosen = int(np.argmax(errors))
        datasets[i], indices[i] = chosen, counts[chosen]
        counts[chosen] += 1
    return datasets, indices


def sample_index_dtype(
    lengths: NDArray[Any], document_index: NDArray[Any], sequence_length: int, num_samples: int
) -> type[np.signedinteger[Any]]:
    """Check what the sample index is built from; return the dtype that Megatron gives its rows.

    Raises:
        ValueError: nothing to build from, or numbers beyond the sequences.
    """
    if sequence_length < 1 or num_samples < 0:
        raise ValueError(
            f"there cannot be {num_samples} samples of {sequence_length} tokens: a sample has one "
            "token or more"
        )
    if len(document_index) == 0:
        raise ValueError("the document index is empty, so there is nothing to sample from")
    if document_index.min() < 0 or document_index.max() >= len(lengths):
        raise ValueError(
            f"the document index names sequences {document_index.min()} to "
            f"{document_index.max()}, but there are {len(lengths)}"
        )
    largest = max(len(document_index), int(lengths.max()))
    return np.int32 if largest <= np.iinfo(np.int32).max else np.int64


def dataset_dtype(num_datasets: int) -> type[np.signedinteger[Any]]:
    """Return Megatron's dtype for the number of a dataset, or a wider one where that is too small.

    Example: dataset_dtype(32767) is int16.
    """
    return np.int16 if num_datasets <= 32767 else np.int32


def check_blend(
    weights: NDArray[np.float64],
    limits: NDArray[np.int64],
    counts: NDArray[np.int64],
    start: int,
    num_samples: int,
) -> None:
    """Refuse what cannot be blended.

    Raises:
        ValueError: says which of the numbers do not fit.
    """
    if not len(weights) == len(limits) == len(counts) or counts.dtype != np.int64:
        raise ValueError(
            f"there are {len(weights)} weights, {len(limits)} limits and {len(counts)} counts "
            f"({counts.dtype}): give one of each for a dataset, counts as int64"
        )
    if not np.all(np.isfinite(weights) & (weights > 0)):
        raise ValueError(
            f"the weights go from {np.min(weights, initial=np.inf)} to "
            f"{np.max(weights, initial=-np.inf)}: each is finite and above 0"
        )
    left = sum(np.maximum(limits - counts, 0).tolist())
    if num_samples < 0 or num_samples > left:
        raise ValueError(f"{num_samples} samples were asked for, but the datasets have {left} left")
    if start != sum(counts.tolist()) or counts.min(initial=0) < 0:
        raise ValueError(
            f"the blend was to go on at position {start}, but {counts.sum()} samples were drawn"
        )
