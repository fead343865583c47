"""A folder of prefixes in; its groups of opened shards that a sample can be drawn from, out."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from .paths import find_prefixes
from .reader import IndexedDataset

logger = logging.getLogger(__name__)


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
        shards = [IndexedDataset(prefix) for prefix in prefixes]
        filled = [shard for shard in shards if shard.num_tokens]
        num_tokens = sum(shard.num_tokens for shard in filled)
        if num_tokens < least_tokens:
            logger.warning(
                "%s has %d tokens, so no sample can be drawn from it: it is left out",
                Path(folder) / group,
                num_tokens,
            )
            continue
        if len(filled) < len(shards):
            empty = [Path(shard.prefix).name for shard in shards if not shard.num_tokens]
            logger.warning("%s: shards without tokens are left out: %s", group, ", ".join(empty))
        groups[group] = filled
    return groups
