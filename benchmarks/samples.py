"""Samples per second from a blend of 32 prefixes, warm: ours beside megatron-core, in turn.

Usage: python benchmarks/samples.py [DOCUMENT_TOKENS] (default: documents of 800 tokens on average).
Both give tokens, labels, loss_mask, position_ids and dataset_id of 4,096 tokens from the same
files; megatron-core without its S x S attention mask, which would be all that is measured.
Seconds are those of the thread that draws the samples, so that a busy machine counts less.
"""

from __future__ import annotations

import logging
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from gristmill.indexed_dataset import BlendedDataset, IndexedDatasetBuilder, SampleDataset

NUM_PREFIXES = 32
PREFIX_TOKENS = 4_000_000
SEQUENCE_LENGTH = 4096
SAMPLES = 4000
REPEATS = 9
VOCAB_SIZE = 50_000
SEED = 1234


def main() -> None:
    mean = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    with tempfile.TemporaryDirectory() as folder:
        prefixes = write_prefixes(Path(folder), mean)
        weights = [1 + number % 7 for number in range(NUM_PREFIXES)]
        print(
            f"{NUM_PREFIXES} prefixes of {PREFIX_TOKENS:,} tokens, documents of {mean:,} on "
            f"average, samples of {SEQUENCE_LENGTH:,}, one thread, median of {REPEATS} in turn"
        )
        draws = {"stable": our_blend(prefixes, weights).sample}
        theirs = megatron_blend(prefixes, weights)
        if theirs is None:
            print("megatron-core is not installed: pip install megatron-core")
        else:
            draws["megatron-core"] = theirs
        report(draws)


def write_prefixes(folder: Path, mean: int) -> list[str]:
    """Write the same kind of data 32 times, in uint16."""
    random = np.random.default_rng(0)
    for number in range(NUM_PREFIXES):
        lengths = random.geometric(1 / mean, size=2 * PREFIX_TOKENS // mean)
        lengths = lengths[: np.searchsorted(np.cumsum(lengths), PREFIX_TOKENS)]
        with IndexedDatasetBuilder(folder / f"{number:02d}", vocab_size=VOCAB_SIZE) as builder:
            builder.add_documents(random.integers(1, VOCAB_SIZE, size=lengths.sum()), lengths)
            builder.finalize(eod_id=0, document_order="shuffled")
    return [str(folder / f"{number:02d}") for number in range(NUM_PREFIXES)]


def our_blend(prefixes: list[str], weights: list[int]) -> BlendedDataset:
    """Return a blend of one dataset for each prefix."""
    datasets = [SampleDataset(prefix, SEQUENCE_LENGTH, seed=SEED) for prefix in prefixes]
    return BlendedDataset(datasets, weights)


def megatron_blend(prefixes: list[str], weights: list[int]) -> Callable[[int], Any] | None:
    """Return `__getitem__` of megatron-core's BlendedDataset over GPTDatasets."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        import torch
        from megatron.core.datasets.blended_dataset import BlendedDataset as TheirBlend
        from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
        from megatron.core.datasets.utils import Split
    except ImportError:
        return None
    torch.set_num_threads(1)
    config = GPTDatasetConfig(
        random_seed=SEED,
        sequence_length=SEQUENCE_LENGTH,
        split="1,0,0",
        blend=(prefixes, None),
        tokenizer=SimpleNamespace(
            vocab_size=VOCAB_SIZE, eod=0, pad=VOCAB_SIZE + 1, unique_identifiers={}
        ),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    size = SAMPLES * 2
    datasets = []
    for prefix, weight in zip(prefixes, weights, strict=True):
        data = GPTDataset.build_low_level_dataset(prefix, config)
        documents = np.arange(len(data), dtype=np.int32)
        number = size * weight // sum(weights) + 100
        datasets.append(GPTDataset(data, prefix, documents, number, Split.train, config))
    return TheirBlend(datasets, [float(weight) for weight in weights], size, config).__getitem__


def report(draws: dict[str, Callable[[int], Any]]) -> None:
    """Draw the same numbers from each in turn; print speeds and the ratio of the pairs."""
    times: dict[str, list[float]] = {name: [] for name in draws}
    positions = np.random.default_rng(1).permutation(SAMPLES).tolist()
    for turn in range(REPEATS + 1):
        for name, draw in draws.items():
            started = time.thread_time()
            for position in positions:
                draw(position)
            if turn:  # the first turn warms
                times[name].append(time.thread_time() - started)
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:14} {SAMPLES / middle:9,.0f} samples/s {middle / SAMPLES * 1e6:8.1f} us")
    peer = times.get("megatron-core")
    for name, seconds in times.items():
        if peer and seconds is not peer:
            ratios = [their / our for our, their in zip(seconds, peer, strict=True)]
            print(f"{name} / megatron-core: {statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
