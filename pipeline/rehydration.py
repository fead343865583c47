"""Verdicts in; how often a document is drawn, by language and size of its duplicate cluster, out.

Deduplication throws away how often the web held a document, and that says something about it:
pages found a few times are better than those found once, pages found a thousand times are junk.
Rehydration gives it back as a weight (FineWeb2, arXiv 2506.20920, section 5): sizes of which the
filters remove at least as much as of the language as a whole are drawn once, the size of which they
remove least `max_repeats` times, sizes between in proportion. Nothing is copied: `pack` writes a
group of prefixes for each number of repetitions, and its manifests ask the blend for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .config import PreprocessConfig, RehydrationConfig
from .executors import Executor, advance
from .progress import Progress
from .stage import Marker, Stage, Unit, UnitResult, finished_units, run_stage
from .text_column import flat

VERSION = 1

SMOOTHING = 5
"""Neighbouring sizes whose removal rates are averaged."""

COPIES = ("exact_duplicate", "near_duplicate", "has_duplicates")
"""Reasons that dedup drops for: what is left of a cluster is judged, not its copies."""

Steps = tuple[tuple[int, int], ...]
"""(cluster size, repetitions from that size on), sizes ascending from 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How often documents are drawn."""

    languages: Mapping[str, Steps]
    """Of each language that has a schedule of its own."""
    default: Steps = ((1, 1),)
    """Of the others."""

    def repeats(self, language: str, sizes: NDArray[Any]) -> NDArray[np.int64]:
        """Return the repetitions of documents with the given cluster sizes: int64[n]."""
        steps = np.array(self.languages.get(language, self.default), np.int64)
        places = np.searchsorted(steps[:, 0], sizes, side="right") - 1
        repeats: NDArray[np.int64] = steps[np.maximum(places, 0), 1]
        return repeats


@dataclass(frozen=True, kw_only=True, slots=True)
class CountArguments:
    """One unit's work."""

    documents: Path
    verdicts: Path
    filter_column: str


def run(
    config: PreprocessConfig,
    output: Path,
    verdict_markers: Mapping[str, Marker],
    executor: Executor,
    progress: Progress,
) -> Schedule | None:
    """Return the schedule of the run; None where rehydration is off.

    Raises:
        ValueError: the filters removed nothing that was kept by dedup, so there is nothing to
            learn from.
    """
    settings = config.rehydration
    if settings.mode == "off":
        return None
    if settings.mode == "schedule":
        return Schedule(languages={}, default=settings.schedule)
    decided = finished_units(output, "filters")
    units = [
        Unit(
            name=name,
            arguments=CountArguments(
                documents=output / "documents" / f"{name}.parquet",
                verdicts=output / "verdicts" / f"{name}.parquet",
                filter_column=settings.filter_column,
            ),
            inputs=(
                marker.fingerprint,
                *(decided[unit].fingerprint for unit in [name] if unit in decided),
            ),
        )
        for name, marker in verdict_markers.items()
    ]
    stage = Stage(
        name="rehydration",
        version=VERSION,
        settings=settings.filter_column,
        function=count_clusters,
    )
    markers = run_stage(stage, units, output, executor, progress)
    counts: dict[str, dict[int, tuple[int, int]]] = {}
    for marker in markers.values():
        for language, size, documents, removed in marker.counts["rows"]:
            before = counts.setdefault(language, {}).get(size, (0, 0))
            counts[language][size] = before[0] + documents, before[1] + removed
    if not any(removed for sizes in counts.values() for _, removed in sizes.values()):
        where = (
            f"no document of column {settings.filter_column!r} is marked"
            if settings.filter_column
            else "no document is marked in filters/ or was dropped after dedup"
        )
        raise ValueError(
            f'rehydration.mode is "filters", but {where}, so there is nothing to learn from. Name '
            'the column that filters mark in rehydration.filter_column, or use mode "schedule"'
        )
    return Schedule(
        languages={
            language: learn_steps(sizes, settings) for language, sizes in sorted(counts.items())
        }
    )


def count_clusters(arguments: CountArguments) -> UnitResult:
    """Count a unit's documents that dedup kept, and those of them that the filters would remove.

    The marker's `rows` are [language, cluster size, documents, removed].
    """
    columns = ["id", "language", "reason", "cluster_id", "cluster_size"]
    verdicts = pq.read_table(arguments.verdicts, columns=columns).combine_chunks()
    reasons = flat(verdicts["reason"])
    is_copy = pc.is_in(reasons, pa.array(COPIES)).to_numpy(zero_copy_only=False)
    # What cleaning or an earlier filter dropped never had a cluster: it has no id of one.
    has_cluster = flat(verdicts["cluster_id"]).is_valid().to_numpy(zero_copy_only=False)
    counted = has_cluster & ~is_copy
    removed = reasons.is_valid().to_numpy(zero_copy_only=False)
    if arguments.documents.is_file():
        marks = _marks(arguments, verdicts)
        removed[: len(marks)] |= marks
    table = pa.table(
        {
            "language": verdicts["language"],
            "cluster_size": verdicts["cluster_size"],
            "removed": pa.array(removed),
        }
    ).filter(pa.array(counted))
    grouped = table.group_by(["language", "cluster_size"]).aggregate(
        [("removed", "count"), ("removed", "sum")]
    )
    names = ["language", "cluster_size", "removed_count", "removed_sum"]
    rows = sorted(list(row.values()) for row in grouped.select(names).to_pylist())
    advance(arguments.verdicts.stat().st_size)
    return UnitResult(counts={"rows": rows})


def _marks(arguments: CountArguments, verdicts: pa.Table) -> NDArray[np.bool_]:
    """Return which of a unit's documents carry a mark; they are the first rows of its verdicts."""
    columns = pq.read_schema(arguments.documents).names
    decisions = arguments.documents.parent.parent / "filters" / arguments.documents.name
    name = arguments.filter_column
    if name and name not in columns:
        raise ValueError(
            f"{arguments.documents} has no column {name!r} (rehydration.filter_column); it has "
            f"{', '.join(columns)}"
        )
    table = pq.read_table(arguments.documents, columns=["id", *([name] if name else [])])
    if decisions.is_file():
        decided = pq.read_table(decisions, columns=["kept", "failed"])
        if not name:
            table = table.append_column("failed", decided["failed"])
        table = table.filter(decided["kept"])  # verdicts begin with what the filters kept
    assert flat(table["id"]).equals(flat(verdicts["id"]).slice(0, table.num_rows)), "row order"
    if not name and not decisions.is_file():
        return np.zeros(table.num_rows, np.bool_)
    column = table[name or "failed"]
    return np.array([value not in _UNMARKED for value in column.to_pylist()], np.bool_)


_UNMARKED: tuple[Any, ...] = (None, False, "", "[]", "false", [])
"""Values of a filter's column in documents that it would keep."""


def learn_steps(counts: Mapping[int, tuple[int, int]], config: RehydrationConfig) -> Steps:
    """Return the repetitions of each cluster size from what filters remove of it.

    Args:
        counts: cluster size -> (documents, those of them that the filters remove).
        config: `max_repeats` and `min_documents`.

    Example: with max_repeats = 5, sizes 1, 2 and 3 of which 60 %, 20 % and 40 % are removed (after
    smoothing), 50 % in all, are drawn 1, 5 and 2 times.
    """
    total = sum(documents for documents, _ in counts.values())
    overall = sum(removed for _, removed in counts.values()) / total
    firsts, documents, removed = _bins(counts, config.min_documents)
    rates = _smoothed(documents, removed)
    lowest = min(rates)
    steps: list[tuple[int, int]] = []
    for first, rate in zip(firsts, rates, strict=True):
        # Rounded as decimals are on paper, half up: the same on every machine.
        share = (overall - rate) / (overall - lowest) if rate < overall else 0.0
        repeats = int(1 + share * (config.max_repeats - 1) + 0.5)
        if not steps or steps[-1][1] != repeats:
            steps.append((first, repeats))
    steps[0] = (1, steps[0][1])
    return tuple(steps)


def _bins(
    counts: Mapping[int, tuple[int, int]], min_documents: int
) -> tuple[list[int], list[int], list[int]]:
    """Put neighbouring sizes together; return first size, documents and removed of each bin."""
    firsts: list[int] = []
    documents: list[int] = []
    removed: list[int] = []
    for size in sorted(counts):
        if not documents or documents[-1] >= min_documents:
            firsts.append(size)
            documents.append(0)
            removed.append(0)
        documents[-1] += counts[size][0]
        removed[-1] += counts[size][1]
    if len(documents) > 1 and documents[-1] < min_documents:  # the largest sizes are few
        firsts.pop()
        documents[-2:] = [documents[-2] + documents[-1]]
        removed[-2:] = [removed[-2] + removed[-1]]
    return firsts, documents, removed


def _smoothed(documents: Sequence[int], removed: Sequence[int]) -> list[float]:
    """Return the removal rate of each bin, averaged over its neighbours; the first stays alone.

    Documents without a copy are most of a corpus and unlike all others.
    """
    rates = [lost / count for lost, count in zip(removed, documents, strict=True)]
    half = SMOOTHING // 2
    smooth = rates[:1]
    for place in range(1, len(rates)):
        window = rates[max(1, place - half) : place + half + 1]
        smooth.append(sum(window) / len(window))
    return smooth


def describe_groups(packed: Mapping[str, Marker]) -> list[dict[str, Any]]:
    """Return group, repeat, documents and tokens of each train group, from pack's markers."""
    groups: dict[str, dict[str, Any]] = {}
    for marker in packed.values():
        counts = marker.counts
        if counts["split"] == "train":
            row = {
                "group": counts["group"],
                "repeat": counts["repeat"],
                "documents": 0,
                "tokens": 0,
            }
            row = groups.setdefault(counts["group"], row)
            row["documents"] += counts["documents"]
            row["tokens"] += counts["tokens"]
    return [groups[name] for name in sorted(groups)]


def describe(schedule: Schedule | None) -> dict[str, list[list[int]]]:
    """Return a schedule as report.json holds it: language (`*`: all others) -> steps."""
    if schedule is None:
        return {}
    found = {language: schedule.languages[language] for language in sorted(schedule.languages)}
    if not found:
        found["*"] = schedule.default
    value: dict[str, list[list[int]]] = json.loads(json.dumps(found))
    return value
