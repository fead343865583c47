"""The Hugging Face `Trainer`: a transformers model trained on a blend, saved as transformers saves.

    python examples/huggingface_trainer.py runs/demo/data/train --steps 3

Hugging Face models shift the labels themselves, so they get the tokens as labels, with -100 where
nothing is to be learned. The order lies in the dataset: the Trainer must not shuffle again.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

from gristmill.indexed_dataset import BlendedDataset, Sample, SampleDataset, find_prefixes


class InOrder(Trainer):
    """A Trainer that takes the samples in the order of the dataset."""

    def _get_train_sampler(self, *_: Any) -> torch.utils.data.Sampler[int]:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def collate(samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Return what a transformers model takes, int64[B, S] each."""
    tokens = torch.from_numpy(np.stack([sample["tokens"] for sample in samples]))
    # A label is the next token, and so is masked at the place of the token that it is.
    counts = np.stack([sample["loss_mask"] for sample in samples])[:, :-1] > 0
    labels = tokens.clone()
    labels[:, 1:].masked_fill_(torch.from_numpy(~counts), -100)
    return {"input_ids": tokens, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder with .bin/.idx prefixes, one group per language")
    parser.add_argument("--output", default="runs/huggingface")
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()

    datasets = [
        SampleDataset(prefixes, arguments.sequence_length, seed=1234)
        for prefixes in find_prefixes(arguments.folder).values()
    ]
    blend = BlendedDataset(datasets, num_samples=arguments.steps * arguments.batch_size)
    manifest = datasets[0].split.manifests[0]
    config = LlamaConfig(
        vocab_size=manifest.vocab_size or manifest.max_token_id + 1,
        eos_token_id=manifest.eod_id,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    settings = TrainingArguments(
        output_dir=arguments.output,
        per_device_train_batch_size=arguments.batch_size,
        max_steps=arguments.steps,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        remove_unused_columns=False,  # `collate` turns our names into the model's
        use_cpu=not torch.cuda.is_available(),
    )
    set_seed(0)  # the Trainer seeds only after the model has its weights
    trainer = InOrder(
        model=LlamaForCausalLM(config), args=settings, train_dataset=blend, data_collator=collate
    )
    trainer.train()
    trainer.save_model()
    for record in trainer.state.log_history:
        if "loss" in record:
            print(f"step {record['step']}  loss {record['loss']:.4f}")


if __name__ == "__main__":
    main()
