"""A folder of prefixes in; its groups of opened shards that a sample can be drawn from, out."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .object_store import is_url, join_path
from .paths import find_prefixes
from .reader import IndexedDataset

logger = logging.getLogger(__name__)

_OPENED_TOGETHER = 16


def open_groups(
    folder: str | os.PathLike[str], *, least_tokens: int = 1
) -> dict[str, list[IndexedDataset]]:
    """Return group -> its shards in order, for a blend or for validation.

    Shards without tokens, and groups of fewer than `least_tokens` tokens, give no sample: they are
    left out with a warning that names them.

    Raises:
        PrefixNotFoundError: no such folder, or a shard is missing.
        IndexedDatasetError: a prefix that does not open.
    """
    groups = {}
    for group, prefixes in find_prefixes(folder).items():
        shards = _open_all(prefixes)
        filled = [shard for shard in shards if shard.num_tokens]
        num_tokens = sum(shard.num_tokens for shard in filled)
        if num_tokens < least_tokens:
            logger.warning(
                "%s has %d tokens, so no sample can be drawn from it: it is left out",
                join_path(folder, group),
                num_tokens,
            )
            continue
        if len(filled) < len(shards):
            empty = [Path(shard.prefix).name for shard in shards if not shard.num_tokens]
            logger.warning("%s: shards without tokens are left out: %s", group, ", ".join(empty))
        groups[group] = filled
    return groups


def _open_all(prefixes: Sequence[str]) -> list[IndexedDataset]:
    """Open prefixes; those of an object store, where each waits for answers, some at a time."""
    if len(prefixes) == 1 or not is_url(prefixes[0]):
        return [IndexedDataset(prefix) for prefix in prefixes]
    with ThreadPoolExecutor(_OPENED_TOGETHER) as pool:
        return list(pool.map(IndexedDataset, prefixes))
