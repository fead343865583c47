r"""LitGPT: a `DataModule` over a blend, for `litgpt pretrain`.

    PYTHONPATH=examples litgpt pretrain pythia-14m --data litgpt_data_module.Gristmill \
        --data.data_path runs/demo/data --train.tie_embeddings false --train.lr_warmup_steps 10 \
        --train.max_tokens 1_000_000

LitGPT's trainer takes batches of S + 1 ids and cuts tokens and labels out of them itself, so a
sample is put together again here. It knows no loss mask; of samples in order `stable` all labels
count but those of a dataset smaller than one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from litgpt.data import DataModule
from torch.utils.data import DataLoader

from gristmill.indexed_dataset import (
    BlendedDataset,
    Sample,
    SampleDataset,
    find_prefixes,
    temperature_weights,
)


@dataclass
class Gristmill(DataModule):  # type: ignore[misc] # untyped
    """The train and validation prefixes of one data folder.

    Args:
        data_path: folder with train/ and validation/, as `gristmill preprocess` writes it.
        alpha: temperature of the languages' shares; 1: as they come, 0: all alike.
        seed: of the order of samples.
        consumed_samples: where to go on; the whole state of the data.
    """

    data_path: str | Path
    alpha: float = 0.7
    seed: int = 1234
    consumed_samples: int = 0
    num_workers: int = 0

    batch_size: int = field(init=False, repr=False, default=1)
    sequence_length: int = field(init=False, repr=False, default=2048)

    def __post_init__(self) -> None:
        super().__init__()

    def connect(
        self,
        tokenizer: Any = None,
        batch_size: int = 1,
        max_seq_length: int | None = None,
        **_: Any,
    ) -> None:
        """Take over what LitGPT's trainer decides."""
        self.batch_size = batch_size
        self.sequence_length = max_seq_length or self.sequence_length

    def train_dataloader(self) -> DataLoader[torch.Tensor]:
        """Return batches of int64[batch_size, S + 1], from `consumed_samples` on."""
        datasets = [
            SampleDataset(prefixes, self.sequence_length, seed=self.seed)
            for prefixes in find_prefixes(Path(self.data_path) / "train").values()
        ]
        weights = temperature_weights([d.num_tokens for d in datasets], self.alpha)
        return self._loader(BlendedDataset(datasets, weights), self.consumed_samples)

    def val_dataloader(self) -> DataLoader[torch.Tensor]:
        """Return every whole validation window once, language after language."""
        datasets = [
            SampleDataset(prefixes, self.sequence_length, order="sequential")
            for prefixes in find_prefixes(Path(self.data_path) / "validation").values()
        ]
        samples = [d[i] for d in datasets for i in range(len(d)) if d[i]["loss_mask"].all()]
        return self._loader(samples, 0)

    def _loader(
        self, samples: BlendedDataset | list[Sample], first: int
    ) -> DataLoader[torch.Tensor]:
        return DataLoader(
            samples,  # type: ignore[arg-type] # a map-style dataset by what it does
            batch_size=self.batch_size,
            sampler=range(first, len(samples)),
            num_workers=self.num_workers,
            collate_fn=stack,
            drop_last=True,
        )


def stack(samples: Sequence[Sample]) -> torch.Tensor:
    """Return int64[batch_size, S + 1]: the tokens of each sample and its last label."""
    rows = [torch.cat((torch.tensor(s["tokens"]), torch.tensor(s["labels"][-1:]))) for s in samples]
    return torch.stack(rows)
