"""A training loop of any framework that takes numpy arrays: batches by consumed samples.

    python examples/plain_numpy.py runs/demo/data/train --steps 3

The only state is one whole number, the samples consumed so far. Stop after any step, start again
with `--consumed-samples`, with another number of processes if you like: the order is the same.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray

from gristmill.indexed_dataset import (
    BlendedDataset,
    SampleDataset,
    describe,
    find_prefixes,
    temperature_weights,
)

ARRAYS = ("tokens", "labels", "loss_mask", "position_ids", "dataset_id")


def batch_at(
    blend: BlendedDataset, consumed_samples: int, batch_size: int, rank: int, num_ranks: int
) -> dict[str, NDArray[np.generic]]:
    """Return this rank's part of the global batch that follows `consumed_samples`."""
    samples = [blend.sample(consumed_samples + i) for i in range(rank, batch_size, num_ranks)]
    return {name: np.stack([sample[name] for sample in samples]) for name in ARRAYS}  # type: ignore[literal-required]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder with .bin/.idx prefixes, one group per language")
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--alpha", type=float, default=0.5, help="1: as is, 0: all languages alike")
    parser.add_argument("--consumed-samples", type=int, default=0)
    arguments = parser.parse_args()

    datasets = [
        SampleDataset(prefixes, arguments.sequence_length, seed=1234)
        for prefixes in find_prefixes(arguments.folder).values()
    ]
    weights = temperature_weights([d.num_tokens for d in datasets], arguments.alpha)
    blend = BlendedDataset(datasets, weights)
    print(describe(blend, num_samples=arguments.steps * arguments.batch_size))

    consumed = arguments.consumed_samples
    for _ in range(arguments.steps):
        batch = batch_at(blend, consumed, arguments.batch_size, rank=0, num_ranks=1)
        consumed += arguments.batch_size
        languages = [blend.names[i] for i in batch["dataset_id"]]
        print(f"{consumed} samples: tokens {batch['tokens'].shape} of {', '.join(languages)}")


if __name__ == "__main__":
    main()
