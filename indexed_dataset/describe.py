"""Datasets in, a tree of text out: what is in them, before any accelerator is used."""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np

from .blend import BlendedDataset
from .blend_description import describe_blend, sample_line
from .paths import find_prefixes
from .reader import IndexedDataset
from .samples import SampleDataset
from .split import TokenSplit

_CHUNK_DOCUMENTS = 1 << 18
_MEDIAN_OF = 1 << 22  # documents whose lengths are kept: of more, every n-th


def describe(
    dataset: IndexedDataset | SampleDataset | BlendedDataset, num_samples: int | None = None
) -> str:
    """Return a tree of text with counts, and for a blend what each language will give.

    Args:
        dataset: what to describe.
        num_samples: samples the run will draw; default: `len(dataset)`.
    """
    if isinstance(dataset, IndexedDataset):
        return "\n".join(_prefix_lines(dataset))
    if isinstance(dataset, SampleDataset):
        count = len(dataset) if num_samples is None else num_samples
        return "\n".join((sample_line(dataset, count), *_indent(_split_lines(dataset.split))))
    count = len(dataset) if num_samples is None else num_samples
    return describe_blend(dataset, count)


def describe_prefix(prefix: str | os.PathLike[str]) -> str:
    """Return what one prefix holds: counts, lengths, tokenizer, languages and sources."""
    dataset = IndexedDataset(prefix)
    lines = _prefix_lines(dataset)
    facts = [f"{dataset.num_sequences:,} sequences"]
    if dataset.num_documents:
        shortest, longest, median, about = _lengths(dataset)
        facts.append(
            f"documents of {shortest:,} to {longest:,} tokens, {about}half of them of "
            f"{median:,} or more"
        )
    lines.insert(1, "  " + ", ".join(facts))
    if dataset.manifest is not None:
        manifest = dataset.manifest
        tokenizer = manifest.tokenizer or {}
        lines.insert(
            2,
            f"  vocabulary {_known(manifest.vocab_size)}, end of document {_known(manifest.eod_id)}"
            f", largest id {_known(manifest.max_token_id)}, tokenizer "
            f"{_known(tokenizer.get('fingerprint'))}",
        )
        lines.append(f"  written by gristmill {manifest.gristmill}, {manifest.split or 'no'} split")
    return "\n".join(lines)


def _lengths(dataset: IndexedDataset) -> tuple[int, int, int, str]:
    """Return the shortest, longest and median length, and "about " if that is of a part of them."""
    chunks = list(range(0, dataset.num_documents, _CHUNK_DOCUMENTS))
    every = -(-dataset.num_documents // _MEDIAN_OF)
    shortest, longest, kept = 2**63, 0, []
    for first in chunks:
        lengths = dataset.document_lengths_between(first, first + _CHUNK_DOCUMENTS)
        shortest, longest = min(shortest, int(lengths.min())), max(longest, int(lengths.max()))
        kept.append(lengths[-first % every :: every])
    return shortest, longest, int(np.median(np.concatenate(kept))), "about " * (every > 1)


def describe_folder(folder: str | os.PathLike[str]) -> str:
    """Return the groups of a folder with their counts, and the sum.

    Raises:
        IndexedDatasetError: a prefix that does not open, or a missing shard.
    """
    splits = {
        group: [IndexedDataset(prefix) for prefix in prefixes]
        for group, prefixes in find_prefixes(folder).items()
    }
    width = max([len(group) for group in splits] + [len("group")])
    lines = [f"{'group':{width}}  {'shards':>6}  {'documents':>13}  {'tokens':>17}  text bytes"]
    rows = [(group, len(shards), *_sums(shards)) for group, shards in splits.items()]
    every = [shard for shards in splits.values() for shard in shards]
    for group, shards, documents, tokens, text_bytes in (*rows, ("all", len(every), *_sums(every))):
        lines.append(
            f"{group:{width}}  {shards:>6,}  {documents:>13,}  {tokens:>17,}  {_known(text_bytes)}"
        )
    return "\n".join(lines)


def _sums(shards: list[IndexedDataset]) -> tuple[int, int, int | None]:
    """Return documents, tokens and (where all manifests tell) bytes of text."""
    sizes = [None if shard.manifest is None else shard.manifest.text_bytes for shard in shards]
    known = [size for size in sizes if size is not None]
    return (
        sum(shard.num_documents for shard in shards),
        sum(shard.num_tokens for shard in shards),
        sum(known) if len(known) == len(sizes) else None,
    )


def _known(value: int | str | None) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "unknown" if value is None else value


def _split_lines(split: TokenSplit) -> list[str]:
    if len(split.shards) == 1:
        return _prefix_lines(split.shards[0])
    size = "" if split.text_bytes is None else f", {split.text_bytes:,} bytes of text"
    head = f"{len(split.shards)} shards: {split.num_documents:,} documents{size}"
    return [head, *_indent(line for shard in split.shards for line in _prefix_lines(shard))]


def _prefix_lines(dataset: IndexedDataset) -> list[str]:
    manifest = dataset.manifest
    text_bytes = None if manifest is None else manifest.text_bytes
    size = "" if text_bytes is None else f", {text_bytes:,} bytes of text"
    origin = "no manifest" if manifest is None else f"documents {manifest.document_order}"
    lines = [
        f"{dataset.prefix}: {dataset.num_documents:,} documents, {dataset.num_tokens:,} tokens"
        f"{size} ({dataset.dtype.name}, {origin})"
    ]
    for noun, table in (
        ("language", {} if manifest is None else manifest.languages),
        ("source", {} if manifest is None else manifest.sources),
    ):
        for name, row in sorted(table.items()):
            lines.append(
                f"  {noun} {name}: {row['documents']:,} documents, {row['tokens']:,} tokens, "
                f"{row['text_bytes']:,} bytes of text"
            )
    return lines


def _indent(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]
