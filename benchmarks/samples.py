"""Samples per second from a blend of 32 prefixes, warm: both orders beside megatron-core, in turn.

Usage: python benchmarks/samples.py [DOCUMENT_TOKENS] (default: documents of 800 tokens on average).
All give tokens, labels, loss_mask, position_ids and dataset_id of 4,096 tokens from the same files;
megatron-core without its S x S attention mask, which would be all that is measured. Samples are
drawn one after the other, as a trainer does, and go on from turn to turn; samples of order
`megatron` are first compared with megatron-core's. Seconds are those of the thread that draws.
megatron-core comes with the extra `test`.
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

from gristmill.indexed_dataset import (
    BlendedDataset,
    IndexedDatasetBuilder,
    MegatronBlend,
    SampleDataset,
)

NUM_PREFIXES = 32
PREFIX_TOKENS = 4_000_000
SEQUENCE_LENGTH = 4096
SAMPLES = 2000
REPEATS = 15
VOCAB_SIZE = 50_000
SEED = 1234
ARRAYS = ("tokens", "labels", "loss_mask", "position_ids", "dataset_id")


def main() -> None:
    mean = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    with tempfile.TemporaryDirectory() as folder:
        prefixes = write_prefixes(Path(folder), mean)
        weights = [1 + number % 7 for number in range(NUM_PREFIXES)]
        blend = MegatronBlend(weights, SAMPLES * (REPEATS + 1))
        requests = [blend.num_samples * w // sum(weights) + 100 for w in weights]
        print(
            f"{NUM_PREFIXES} prefixes of {PREFIX_TOKENS:,} tokens, documents of {mean:,} on "
            f"average, samples of {SEQUENCE_LENGTH:,}, one thread, median of {REPEATS} in turn"
        )
        draws: dict[str, Callable[[int], Any]] = {
            "stable": stable_blend(prefixes, weights).sample,
            "megatron": our_megatron_blend(prefixes, requests, blend).sample,
        }
        theirs = megatron_blend(prefixes, requests, blend)
        if theirs is None:
            print("megatron-core is not installed: pip install -c constraints.txt -e .[test]")
        else:
            draws["megatron-core"] = theirs
            compare(draws["megatron"], theirs)
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


def stable_blend(prefixes: list[str], weights: list[int]) -> BlendedDataset:
    """Return a blend of one dataset for each prefix, in our own order."""
    datasets = [SampleDataset(prefix, SEQUENCE_LENGTH, seed=SEED) for prefix in prefixes]
    return BlendedDataset(datasets, weights)


def our_megatron_blend(
    prefixes: list[str], requests: list[int], blend: MegatronBlend
) -> BlendedDataset:
    """Return the same blend in Megatron's order."""
    datasets = [
        SampleDataset(prefix, SEQUENCE_LENGTH, seed=SEED, order="megatron", num_samples=number)
        for prefix, number in zip(prefixes, requests, strict=True)
    ]
    return BlendedDataset(datasets, blend)


def megatron_blend(
    prefixes: list[str], requests: list[int], blend: MegatronBlend
) -> Callable[[int], Any] | None:
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
    datasets = []
    for prefix, number in zip(prefixes, requests, strict=True):
        data = GPTDataset.build_low_level_dataset(prefix, config)
        documents = np.arange(len(data), dtype=np.int32)
        datasets.append(GPTDataset(data, prefix, documents, number, Split.train, config))
    return TheirBlend(datasets, list(blend.weights), blend.num_samples, config).__getitem__


def compare(ours: Callable[[int], Any], theirs: Callable[[int], Any]) -> None:
    """Assert that samples all over the blend are the same."""
    for position in range(0, SAMPLES * REPEATS, SAMPLES // 10):
        mine, their = ours(position), theirs(position)
        for name in ARRAYS:
            np.testing.assert_array_equal(mine[name], np.asarray(their[name]))


def report(draws: dict[str, Callable[[int], Any]]) -> None:
    """Draw the same numbers from each in turn; print speeds and the ratio of the pairs."""
    times: dict[str, list[float]] = {name: [] for name in draws}
    names = list(draws)
    for turn in range(REPEATS + 1):
        names = names[1:] + names[:1]  # who comes first finds the least in the processor's caches
        for name in names:
            draw = draws[name]
            started = time.thread_time()
            for position in range(turn * SAMPLES, (turn + 1) * SAMPLES):
                draw(position)
            if turn:  # the first turn warms
                times[name].append(time.thread_time() - started)
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        print(f"{name:14} {SAMPLES / middle:9,.0f} samples/s {middle / SAMPLES * 1e6:8.1f} us")
    peer = times.get("megatron-core")
    for name, seconds in times.items():
        if peer and seconds is not peer:
            ratios = sorted(their / our for our, their in zip(seconds, peer, strict=True))
            print(
                f"{name} / megatron-core: {statistics.median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})"
            )


if __name__ == "__main__":
    main()
