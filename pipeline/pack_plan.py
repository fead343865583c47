"""What pack will write: the runs' indexes in, one planned prefix for each shard out.

Which group a document belongs to, on which side it falls and in which shard it lies follows from
its language and source, its keyed hashes, and sums over its group.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..indexed_dataset.paths import shard_name
from .config import PackConfig
from .stage import Marker
from .token_runs import Run

SHARED_GROUP = "other"
WHOLE_GROUP = "all"

_KEYS = 1 << 64
_UNSAFE = re.compile(r"[^\w-]", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPrefix:
    """One prefix: which documents it takes, and what it is called."""

    split: Literal["train", "validation"]
    group: str
    shard: int
    num_shards: int
    members: tuple[tuple[str, str], ...]
    """(language, source) of its documents."""
    runs: tuple[str, ...]
    """Runs that hold some of them."""
    validation_below: int
    """A document is held out when its validation key is below this (0 to 2**64)."""
    keys: tuple[int, int]
    """Its placement keys: from, up to but not including (0 to 2**64)."""
    num_tokens: int
    """About so many (exact when the group has one shard), for the progress bar."""

    @property
    def prefix(self) -> str:
        """Path relative to the data folder, without suffix."""
        return f"{self.split}/{shard_name(self.group, self.shard, self.num_shards)}"


@dataclass(slots=True)
class _Group:
    members: set[tuple[str, str]] = field(default_factory=set)
    runs: dict[str, None] = field(default_factory=dict)
    num_documents: int = 0
    num_tokens: int = 0
    held_documents: list[int] = field(default_factory=lambda: [0] * 64)
    """Documents that would be held out after so many halvings of the share."""
    held_tokens: list[int] = field(default_factory=lambda: [0] * 64)


def plan_prefixes(
    config: PackConfig, runs_folder: Path, tokenize_markers: Mapping[str, Marker]
) -> list[PlannedPrefix]:
    """Plan every prefix, in a fixed order. The runs' indexes are read once.

    Args:
        config: grouping, validation and shards.
        runs_folder: holds the runs of the tokenize stage.
        tokenize_markers: their markers by unit name.
    """
    group_of = assign_groups(config, tokenize_markers)
    groups: dict[str, _Group] = {}
    for name in tokenize_markers:
        run = Run(runs_folder / name)
        for language, source, first, last in run.names.slices:
            group = groups.setdefault(group_of[language, source], _Group())
            group.members.add((language, source))
            group.runs[name] = None
            rows = run.rows[first:last]
            group.num_documents += len(rows)
            group.num_tokens += int(rows["num_tokens"].sum())
            _count_held_out(group, rows["validation"], rows["num_tokens"], config)
    planned: list[PlannedPrefix] = []
    for name, group in sorted(groups.items()):
        fits = (tokens <= config.validation_max_tokens for tokens in group.held_tokens)
        halvings = list(fits).index(True)  # after 63 halvings of the share nothing is held out
        below = _threshold(config) >> halvings
        sides: tuple[tuple[Literal["train", "validation"], int, int], ...] = (
            (
                "train",
                group.num_documents - group.held_documents[halvings],
                group.num_tokens - group.held_tokens[halvings],
            ),
            ("validation", group.held_documents[halvings], group.held_tokens[halvings]),
        )
        for split, num_documents, num_tokens in sides:
            if num_documents == 0:
                continue
            num_shards = -(-num_tokens // config.max_shard_tokens)
            for shard in range(num_shards):
                planned.append(
                    PlannedPrefix(
                        split=split,
                        group=name,
                        shard=shard,
                        num_shards=num_shards,
                        members=tuple(sorted(group.members)),
                        runs=tuple(group.runs),
                        validation_below=below,
                        keys=(
                            -(-shard * _KEYS // num_shards),
                            -(-(shard + 1) * _KEYS // num_shards),
                        ),
                        num_tokens=num_tokens // num_shards,
                    )
                )
    return planned


def assign_groups(
    config: PackConfig, tokenize_markers: Mapping[str, Marker]
) -> dict[tuple[str, str], str]:
    """Return the group of each (language, source); small ones share `other`.

    Raises:
        ValueError: two groups would have the same file name.
    """
    documents: Counter[tuple[str, ...]] = Counter()
    pairs: set[tuple[str, str]] = set()
    for marker in tokenize_markers.values():
        for source, language, num_documents, *_ in marker.counts["rows"]:
            pairs.add((language, source))
            documents[_group_key(config, language, source)] += num_documents
    names: dict[str, tuple[str, ...]] = {}
    for key in sorted(documents):
        name = _group_name(key)
        if documents[key] >= config.min_documents and names.setdefault(name, key) != key:
            raise ValueError(
                f"the groups {'/'.join(key)} and {'/'.join(names[name])} would both be written to "
                f"files named {name}: rename one of the sources"
            )
    groups = {}
    for language, source in sorted(pairs):
        key = _group_key(config, language, source)
        small = documents[key] < config.min_documents and key != ()
        groups[language, source] = SHARED_GROUP if small else _group_name(key)
    return groups


def _group_key(config: PackConfig, language: str, source: str) -> tuple[str, ...]:
    values = {"language": language, "source": source}
    return tuple(values[name] for name in config.group_by)


def _group_name(key: Sequence[str]) -> str:
    """Return a group's file name: letters, digits, _ and - of its language or source."""
    return _UNSAFE.sub("_", "-".join(key)) if key else WHOLE_GROUP


def _threshold(config: PackConfig) -> int:
    return int(config.validation_fraction * _KEYS)


def _count_held_out(
    group: _Group,
    validation: NDArray[np.uint64],
    num_tokens: NDArray[np.int64],
    config: PackConfig,
) -> None:
    for halvings in range(64):
        held = held_out(validation, _threshold(config) >> halvings)
        if not held.any():
            return
        validation, num_tokens = validation[held], num_tokens[held]
        group.held_documents[halvings] += len(validation)
        group.held_tokens[halvings] += int(num_tokens.sum())


def held_out(validation: NDArray[np.uint64], below: int) -> NDArray[np.bool_]:
    """Return which documents are held out: bool[n] for validation keys uint64[n]."""
    if below <= 0:
        return np.zeros(len(validation), np.bool_)
    return validation <= np.uint64(below - 1)
