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
from .rehydration import Schedule, Steps
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
    repeat: int = 1
    """How often the blend is asked to draw its documents in the time of one epoch."""
    repeats: tuple[int, ...] = ()
    """Documents whose schedule says one of these are taken; (): all."""
    steps: tuple[tuple[str, Steps], ...] = ()
    """The schedule of each language."""

    @property
    def prefix(self) -> str:
        """Path relative to the data folder, without suffix."""
        return f"{self.split}/{shard_name(self.group, self.shard, self.num_shards)}"


@dataclass(slots=True)
class _Class:
    """Documents of a group that are drawn equally often."""

    num_documents: int = 0
    num_tokens: int = 0
    held_documents: list[int] = field(default_factory=lambda: [0] * 64)
    """Documents that would be held out after so many halvings of the share."""
    held_tokens: list[int] = field(default_factory=lambda: [0] * 64)


@dataclass(slots=True)
class _Group:
    members: set[tuple[str, str]] = field(default_factory=set)
    runs: dict[str, None] = field(default_factory=dict)
    classes: dict[int, _Class] = field(default_factory=dict)
    """Repetitions -> its documents."""

    def held_tokens(self, halvings: int) -> int:
        return sum(one.held_tokens[halvings] for one in self.classes.values())


def plan_prefixes(
    config: PackConfig,
    runs_folder: Path,
    tokenize_markers: Mapping[str, Marker],
    schedule: Schedule | None = None,
) -> list[PlannedPrefix]:
    """Plan every prefix, in a fixed order. The runs' indexes are read once.

    With a schedule, the documents of a group that are to be drawn r times stand in a group of their
    own, NAME-xr; where they are fewer than `min_documents` they join those drawn next less often.
    Validation takes no part in it: its documents are scored once.

    Args:
        config: grouping, validation and shards.
        runs_folder: holds the runs of the tokenize stage.
        tokenize_markers: their markers by unit name.
        schedule: how often documents are drawn; None: all alike.

    Raises:
        ValueError: two groups would have the same file name.
    """
    group_of = assign_groups(config, tokenize_markers)
    groups: dict[str, _Group] = {}
    for name in tokenize_markers:
        run = Run(runs_folder / name)
        for language, source, first, last in run.names.slices:
            group_name = group_of[language, source]
            group = groups.setdefault(group_name, _Group())
            group.members.add((language, source))
            group.runs[name] = None
            rows = run.rows[first:last]
            repeats = np.ones(len(rows), np.int64)
            if schedule is not None and group_name != SHARED_GROUP:
                repeats = schedule.repeats(language, rows["cluster_size"])
            for repeat in np.unique(repeats).tolist():
                own = rows[repeats == repeat]
                one = group.classes.setdefault(repeat, _Class())
                one.num_documents += len(own)
                one.num_tokens += int(own["num_tokens"].sum())
                _count_held_out(one, own["validation"], own["num_tokens"], config)
    planned: list[PlannedPrefix] = []
    for name, group in sorted(groups.items()):
        planned += _plan_group(config, name, group, schedule)
    names = [prefix.prefix for prefix in planned]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"two groups would be written to {name}: a source or language is named as another "
                "one's repeated documents are. Rename the source"
            )
    return planned


def _plan_group(
    config: PackConfig, name: str, group: _Group, schedule: Schedule | None
) -> list[PlannedPrefix]:
    # After 63 halvings of the share nothing is held out.
    halvings = next(n for n in range(64) if group.held_tokens(n) <= config.validation_max_tokens)
    sides: list[tuple[Literal["train", "validation"], int, tuple[int, ...], int, int]] = []
    for repeat, joined in _joined(group, halvings, config.min_documents):
        documents = sum(
            group.classes[r].num_documents - group.classes[r].held_documents[halvings]
            for r in joined
        )
        tokens = sum(
            group.classes[r].num_tokens - group.classes[r].held_tokens[halvings] for r in joined
        )
        sides.append(("train", repeat, joined, documents, tokens))
    held = sum(one.held_documents[halvings] for one in group.classes.values())
    sides.append(("validation", 1, (), held, group.held_tokens(halvings)))
    languages = sorted({language for language, _ in group.members})
    steps: tuple[tuple[str, Steps], ...] = ()
    if schedule is not None and name != SHARED_GROUP:
        steps = tuple(
            (language, schedule.languages.get(language, schedule.default)) for language in languages
        )
    planned = []
    for split, repeat, joined, num_documents, num_tokens in sides:
        if num_documents == 0:
            continue
        num_shards = -(-num_tokens // config.max_shard_tokens)
        for shard in range(num_shards):
            planned.append(
                PlannedPrefix(
                    split=split,
                    group=name if repeat == 1 else f"{name}-x{repeat}",
                    shard=shard,
                    num_shards=num_shards,
                    members=tuple(sorted(group.members)),
                    runs=tuple(group.runs),
                    validation_below=_threshold(config) >> halvings,
                    keys=(
                        -(-shard * _KEYS // num_shards),
                        -(-(shard + 1) * _KEYS // num_shards),
                    ),
                    num_tokens=num_tokens // num_shards,
                    repeat=repeat,
                    repeats=joined if steps else (),
                    steps=steps if joined else (),
                )
            )
    return planned


def _joined(group: _Group, halvings: int, min_documents: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return the repetitions of each train group, and those of the documents that it takes."""
    found: list[tuple[int, tuple[int, ...]]] = []
    waiting: list[int] = []
    documents = 0
    for repeat in sorted(group.classes, reverse=True):
        one = group.classes[repeat]
        waiting.append(repeat)
        documents += one.num_documents - one.held_documents[halvings]
        if documents >= min_documents or repeat == min(group.classes):
            found.append((repeat, tuple(sorted(waiting))))
            waiting, documents = [], 0
    return found[::-1]


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
    group: _Class,
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
