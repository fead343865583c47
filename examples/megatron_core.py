"""Megatron: its own datasets over our files, by the blend that gristmill would draw.

    python examples/megatron_core.py runs/demo/data/train --sequence-length 256

In a Megatron-LM job give `--data-path $(gristmill inspect runs/demo/data --megatron data-args)`
instead; this is the same in a few lines of megatron-core. Needs no GPU. The order of samples is
Megatron's; `build_megatron_blend` gives the same samples without Megatron.
"""

from __future__ import annotations

import argparse
import types

import torch
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import get_blend_from_list

from gristmill.indexed_dataset import IndexedDataset, find_prefixes, temperature_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder with .bin/.idx prefixes")
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--cache", required=True, help="folder for the index files of Megatron")
    arguments = parser.parse_args()

    prefixes = [p for group in find_prefixes(arguments.folder).values() for p in group]
    datasets = [IndexedDataset(prefix) for prefix in prefixes]
    weights = temperature_weights([dataset.num_tokens for dataset in datasets], alpha=0.7)
    blend = [str(word) for pair in zip(weights, prefixes, strict=True) for word in pair]

    manifest = datasets[0].manifest
    assert manifest is not None
    assert manifest.vocab_size is not None
    # All that Megatron's dataset asks of a tokenizer are ids, and the manifest knows them.
    tokenizer = types.SimpleNamespace(
        eod=manifest.eod_id, pad=None, vocab_size=manifest.vocab_size, unique_identifiers={}
    )
    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=arguments.sequence_length,
        blend=get_blend_from_list(blend),
        split="1",
        path_to_cache=arguments.cache,
        tokenizer=tokenizer,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    # Megatron's builder meets its other ranks; here it is alone.
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    builder = BlendedMegatronDatasetBuilder(
        GPTDataset, [arguments.samples, 1, 1], lambda: True, config
    )
    train, _, _ = builder.build()
    # Megatron rounds the share of each prefix up, so the blend is a little longer than asked.
    print(
        f"Megatron reads {len(train)} samples from {len(prefixes)} prefixes "
        f"({arguments.samples} were asked for)"
    )
    for i in range(3):
        tokens = train[i]["tokens"]
        total = int(tokens.sum())
        print(f"sample {i}: dataset {train[i]['dataset_id']}, {len(tokens)} tokens of sum {total}")


if __name__ == "__main__":
    main()
