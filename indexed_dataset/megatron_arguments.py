"""A blend in; Megatron's --data-path, --data-args-path or --per-split-data-args-path out.

Megatron knows prefixes and weights only: a group of shards becomes its prefixes, which share its
weight by their tokens. Caps on epochs and phases have no counterpart there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction

from .blend import BlendedDataset
from .errors import IndexedDatasetError
from .split import TokenSplit


def data_arguments(blend: BlendedDataset) -> list[tuple[str, str]]:
    """Return (weight, prefix) of every shard; the weights add up to 1, nearly.

    Raises:
        IndexedDatasetError: a path with white space, at which Megatron would cut it.
    """
    found = []
    total = sum(map(Fraction, blend.tree.weights))
    for dataset, weight in zip(blend.datasets, blend.tree.weights, strict=True):
        if not weight:
            continue
        for prefix, num_tokens in _prefixes(dataset.split):
            share = Fraction(weight) / total * Fraction(num_tokens, dataset.split.num_tokens)
            found.append((f"{float(share):.12g}", prefix))
    return found


def data_arguments_text(blend: BlendedDataset) -> str:
    """Return one line `WEIGHT PREFIX` for each shard: a file for --data-args-path.

    Its words are also those of `--data-path $(cat FILE)`.
    """
    return "".join(f"{weight} {prefix}\n" for weight, prefix in data_arguments(blend))


def per_split_arguments(blend: BlendedDataset, validation: Mapping[str, TokenSplit]) -> str:
    """Return the JSON of --per-split-data-args-path: train as the blend, valid by its tokens."""
    tokens = sum(split.num_tokens for split in validation.values())
    valid = [
        (f"{num_tokens / tokens:.12g}", prefix)
        for split in validation.values()
        for prefix, num_tokens in _prefixes(split)
    ]
    splits = {"train": data_arguments(blend), "valid": valid}
    words = {name: [word for pair in pairs for word in pair] for name, pairs in splits.items()}
    return json.dumps({**words, "test": None}, indent=1) + "\n"


def _prefixes(split: TokenSplit) -> list[tuple[str, int]]:
    """Return (prefix, tokens) of the shards that have any."""
    for shard in split.shards:
        if any(letter.isspace() for letter in shard.prefix):
            raise IndexedDatasetError(
                f"the path {shard.prefix!r} has white space in it: Megatron would take it for two. "
                "Move the data, or link to it from a folder without white space"
            )
    return [(shard.prefix, shard.num_tokens) for shard in split.shards if shard.num_tokens]
