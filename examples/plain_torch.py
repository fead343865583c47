"""Any PyTorch trainer: a `DataLoader` over a blend, worker processes included.

    python examples/plain_torch.py runs/demo/data/train --steps 3 --workers 2

Datasets are plain map-style ones: `len` and `[i]`. They pickle as their paths, so workers may fork
or spawn. `labels` are shifted already; a Hugging Face model shifts by itself and gets
`labels = tokens` with -100 where `loss_mask` is 0.
"""

from __future__ import annotations

import argparse

import torch
from torch.utils.data import DataLoader

from gristmill.indexed_dataset import (
    BlendedDataset,
    Sample,
    SampleDataset,
    find_prefixes,
    temperature_weights,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder with .bin/.idx prefixes, one group per language")
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--consumed-samples", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--start-method", choices=("fork", "spawn"), default="fork")
    arguments = parser.parse_args()

    datasets = [
        SampleDataset(prefixes, arguments.sequence_length, seed=1234)
        for prefixes in find_prefixes(arguments.folder).values()
    ]
    weights = temperature_weights([d.num_tokens for d in datasets], alpha=0.5)
    total = arguments.consumed_samples + arguments.steps * arguments.batch_size
    blend = BlendedDataset(datasets, weights, num_samples=total)

    # The order is part of the dataset, so the sampler only counts on from what was consumed.
    loader: DataLoader[Sample] = DataLoader(
        blend,  # type: ignore[arg-type] # a map-style dataset by what it does, not by inheritance
        batch_size=arguments.batch_size,
        sampler=range(arguments.consumed_samples, total),
        num_workers=arguments.workers,
        multiprocessing_context=arguments.start_method if arguments.workers else None,
    )
    vocab_size = 1 + max(
        m.max_token_id or 0 for dataset in datasets for m in dataset.split.manifests
    )
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(vocab_size, 16), torch.nn.Linear(16, vocab_size))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for batch in loader:
        losses = torch.nn.functional.cross_entropy(
            model(batch["tokens"]).flatten(0, 1), batch["labels"].flatten(), reduction="none"
        )
        mask = batch["loss_mask"].flatten()
        loss = (losses * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        languages = [blend.names[i] for i in batch["dataset_id"]]
        checksum = int(batch["tokens"].sum())
        print(f"loss {loss.item():.4f} on tokens of sum {checksum} from {', '.join(languages)}")


if __name__ == "__main__":
    main()
