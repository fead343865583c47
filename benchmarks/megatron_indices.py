"""Megatron's sample index and blend index: ours beside its compiled helpers, same output.

Both run in turn in one process on one core, and every pair of outputs is compared. megatron-core
comes with the extra `test`. Usage: python benchmarks/megatron_indices.py
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gristmill.kernels import blend_greedily, build_sample_index, warm_kernels

NUM_DOCUMENTS = 20_000_000
NUM_DATASETS = 1000
NUM_SAMPLES = 300_000
REPEATS = 7

Arrays = tuple[np.ndarray, ...]


def main() -> None:
    try:
        from megatron.core.datasets import helpers_cpp
    except ImportError:
        sys.exit("megatron-core is not installed: pip install -c constraints.txt -e .[test]")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    warm_kernels()
    sample_indices(helpers_cpp)
    blends(helpers_cpp)


def sample_indices(helpers: Any) -> None:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 1200, NUM_DOCUMENTS, dtype=np.int32)
    documents = np.arange(NUM_DOCUMENTS, dtype=np.int32)
    np.random.RandomState(1).shuffle(documents)
    num_tokens = int(lengths.sum(dtype=np.int64))
    print(f"sample index: {NUM_DOCUMENTS:,} documents, {num_tokens:,} tokens")
    for size in (4096, 1024):
        for extra in (1, 0):
            num_samples = (num_tokens - extra) // size
            compare(
                f"{size:,} tokens a sample{'' if extra else ', no extra token'}",
                lambda size=size, extra=extra: (
                    helpers.build_sample_idx_int32(
                        lengths, documents, size, 1, num_tokens, True, extra
                    ),
                ),
                lambda size=size, extra=extra, n=num_samples: (
                    build_sample_index(lengths, documents, size, n, bool(extra)),
                ),
            )


def blends(helpers: Any) -> None:
    random = np.random.default_rng(0)
    print(f"blend: {NUM_DATASETS:,} datasets, {NUM_SAMPLES:,} samples")
    kinds = {
        "random weights": random.random(NUM_DATASETS),
        "equal weights": np.ones(NUM_DATASETS),
        "weights within 0.1 %": 1 + 0.001 * random.random(NUM_DATASETS),
        "weights of 1 to 1/1000": 1 / np.arange(1, NUM_DATASETS + 1),
    }
    for name, weights in kinds.items():
        normal = weights / weights.sum()
        compare(
            name,
            lambda normal=normal: theirs(helpers.build_blending_indices, normal),
            lambda normal=normal: ours(normal, np.full(NUM_DATASETS, 2**62)),
        )
    sizes = (
        random.multinomial(
            NUM_SAMPLES - NUM_DATASETS, kinds["random weights"] / np.sum(kinds["random weights"])
        )
        + 1
    )
    compare(
        "all of every dataset",
        lambda: theirs(helpers.build_exhaustive_blending_indices, sizes),
        lambda: ours(sizes / float(NUM_SAMPLES), sizes),
    )


def theirs(build: Callable[..., None], numbers: np.ndarray) -> Arrays:
    """Call one of the two compiled blends, which fill arrays that are given to them."""
    datasets, indices = np.zeros(NUM_SAMPLES, np.int16), np.zeros(NUM_SAMPLES, np.int64)
    weighted = (NUM_SAMPLES, False) if numbers.dtype == np.float64 else ()
    build(datasets, indices, numbers, len(numbers), *weighted)
    return datasets, indices


def ours(weights: np.ndarray, limits: np.ndarray) -> Arrays:
    return blend_greedily(weights, limits, np.zeros(len(limits), np.int64), 0, NUM_SAMPLES)


def compare(name: str, their: Callable[[], Arrays], our: Callable[[], Arrays]) -> None:
    """Time both in turn, assert that they return the same, print medians and the median ratio."""
    pairs = []
    for _ in range(REPEATS):
        seconds, results = [], []
        for build in (their, our):
            started = time.thread_time()
            results.append(build())
            seconds.append(time.thread_time() - started)
        for mine, compiled in zip(results[1], results[0], strict=True):
            assert mine.dtype == compiled.dtype
            np.testing.assert_array_equal(mine, compiled)
        pairs.append(seconds)
    their_seconds, our_seconds = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(compiled / mine for compiled, mine in pairs)
    print(
        f"  {name:30} megatron-core {their_seconds:7.3f} s  gristmill {our_seconds:7.3f} s  "
        f"ratio {ratio:5.2f} (median of {REPEATS} pairs)",
        flush=True,
    )


if __name__ == "__main__":
    main()
