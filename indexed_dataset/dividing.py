"""Divide: one prefix in, several with its documents in order out.

By number of shards, by tokens a shard, or by named shares. Cuts fall between documents. A part does
not know its bytes of text, languages and sources, because a prefix counts them only as a whole: the
manifests of the parts leave them out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .assembling import Assembly, Progress, assemble
from .chosen_documents import ChosenDocuments, read_chunks
from .errors import IndexedDatasetError, PrefixExistsError
from .manifest import DatasetManifest, SideStreamEntry
from .merging import moved_tokenizer
from .paths import prefix_paths, shard_name
from .reader import IndexedDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class DividedPart:
    """One of the new prefixes."""

    prefix: str
    """Its path without suffix."""
    manifest: DatasetManifest
    """What it holds."""


def divide(
    prefix: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    num_shards: int | None = None,
    max_tokens: int | None = None,
    shares: Mapping[str, float] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> tuple[DividedPart, ...]:
    """Write the documents of `prefix` into several prefixes; return them in order.

    Args:
        prefix: the dataset to divide; it stays as it is.
        output: what the new names start with.
        num_shards: that many prefixes of about equal numbers of tokens,
            `OUTPUT-00000-of-00004` and so on.
        max_tokens: as many prefixes as are needed for none to have more tokens (a longer document
            stands alone), named in the same way.
        shares: a name and a share of the tokens for each prefix, `OUTPUT-NAME`, in order; the
            manifest's `split` is the name. Shares count in proportion to their sum.
        overwrite: replace existing datasets.
        progress: called with the bytes written and the bytes in all.

    Raises:
        IndexedDatasetError: not exactly one way to divide is given, or a part would be empty.
        PrefixExistsError: one of the new prefixes exists; nothing is written then.
    """
    if sum(way is not None for way in (num_shards, max_tokens, shares)) != 1:
        raise IndexedDatasetError("give exactly one of num_shards, max_tokens and shares")
    dataset = IndexedDataset(prefix)
    if max_tokens is not None:
        bounds = _cut_by_size(dataset, max_tokens)
    else:
        weights = list(shares.values()) if shares is not None else [1.0] * (num_shards or 0)
        bounds = _cut_by_weight(dataset, weights)
    if any(stop <= start for start, stop in pairwise(bounds)):
        raise IndexedDatasetError(
            f"{dataset.prefix} has {dataset.num_documents} documents, too few for "
            f"{len(bounds) - 1} parts: one of them would have none. Ask for fewer"
        )
    count = len(bounds) - 1
    base = os.fspath(prefix_paths(output).bin.with_suffix(""))
    names = [f"{base}-{name}" for name in shares] if shares is not None else []
    names = names or [shard_name(base, shard, count) for shard in range(count)]
    if not overwrite:
        taken = [name for name in names if prefix_paths(name).idx.exists()]
        if taken:
            raise PrefixExistsError(
                f"the dataset {taken[0]} exists already, and nothing was written. Choose another "
                "output, remove its files, or allow overwriting"
            )
    manifests = [
        _part_manifest(dataset, output, shard, count, list(shares) if shares is not None else None)
        for shard in range(count)
    ]
    done = 0
    total = prefix_paths(dataset.prefix).bin.stat().st_size
    total += sum(dataset.num_tokens * np.dtype(s.dtype).itemsize for s in _streams(dataset))
    origin_files = () if dataset.manifest is None else dataset.manifest.origin_files
    has_origins = dataset.manifest is not None and prefix_paths(dataset.prefix).origin.exists()
    parts = []
    for shard, name in enumerate(names):

        def advance(num_bytes: int, of_part: int, before: int = done) -> None:
            if progress is not None:
                progress(before + num_bytes, total)

        chosen = ChosenDocuments(dataset, bounds[shard], bounds[shard + 1])
        numbers = [np.arange(len(origin_files))] if has_origins else None
        manifest = assemble(
            Assembly(parts=[chosen], manifest=manifests[shard], file_numbers=numbers),
            name,
            overwrite=overwrite,
            progress=advance,
        )
        widths = [dataset.dtype.itemsize]
        widths += [np.dtype(entry.dtype).itemsize for entry in _streams(dataset)]
        done += manifest.num_tokens * sum(widths)
        parts.append(DividedPart(prefix=name, manifest=manifest))
    return tuple(parts)


def _streams(dataset: IndexedDataset) -> list[SideStreamEntry]:
    return [] if dataset.manifest is None else list(dataset.manifest.side_streams.values())


def _cut_by_weight(dataset: IndexedDataset, weights: Sequence[float]) -> list[int]:
    """Return the first document of each part, and the end: each cut nearest after its share."""
    if not weights or min(weights) <= 0:
        raise IndexedDatasetError(
            f"the shares are {list(weights)}: give one or more, all greater than 0"
        )
    shares = np.cumsum(weights) / np.sum(weights)
    targets = np.ceil(shares[:-1] * dataset.num_tokens).astype(np.int64)
    bounds, tokens, documents = [0], 0, 0
    for chunk in read_chunks(ChosenDocuments(dataset, 0, dataset.num_documents)):
        ends = tokens + np.cumsum(chunk.document_tokens)
        here = targets[(targets > tokens) & (targets <= ends[-1])]
        bounds += (documents + 1 + np.searchsorted(ends, here)).tolist()
        tokens, documents = int(ends[-1]), documents + len(ends)
    bounds += [documents] * (len(weights) + 1 - len(bounds))
    # A long document may hold several cuts: each part still gets one document, while there are any.
    for place in range(1, len(weights)):
        bounds[place] = max(bounds[place], bounds[place - 1] + 1)
    for place in range(len(weights) - 1, 0, -1):
        bounds[place] = min(bounds[place], bounds[place + 1] - 1)
    return bounds


def _cut_by_size(dataset: IndexedDataset, max_tokens: int) -> list[int]:
    """Return the first document of each part, and the end: each part as full as it can be."""
    if max_tokens < 1:
        raise IndexedDatasetError(f"max_tokens is {max_tokens}: give 1 or more")
    bounds, tokens, documents, start = [0], 0, 0, 0  # `start`: tokens before the current part
    for chunk in read_chunks(ChosenDocuments(dataset, 0, dataset.num_documents)):
        ends = tokens + np.cumsum(chunk.document_tokens)
        while True:
            local = int(np.searchsorted(ends, start + max_tokens, side="right"))
            if local == len(ends):
                break
            if documents + local == bounds[-1]:
                local += 1  # a document that is longer stands alone
            bounds.append(documents + local)
            start = int(ends[local - 1]) if local else tokens
        tokens, documents = int(ends[-1]), documents + len(ends)
    return bounds if bounds[-1] == documents > 0 else [*bounds, documents]


def _part_manifest(
    dataset: IndexedDataset,
    output: str | os.PathLike[str],
    shard: int,
    num_shards: int,
    names: Sequence[str] | None,
) -> DatasetManifest:
    """Return what can be said of a part before it is written."""
    whole = dataset.manifest or DatasetManifest(
        dtype=dataset.dtype.name, num_documents=0, num_sequences=0, num_tokens=0
    )
    return replace(
        whole,
        text_bytes=None,
        languages={},
        sources={},
        tokenizer=moved_tokenizer(whole, dataset.prefix, output),
        split=whole.split if names is None else names[shard],
        shard=shard if names is None else 0,
        num_shards=num_shards if names is None else 1,
    )
