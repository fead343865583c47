"""Stage `filters`: columns of clean documents in, a decision for each document out.

`filters/UNIT.parquet` has a row for each row of `documents/UNIT.parquet`, in its order: `kept`,
`reason` (a key of `documents.REASONS`, the first that applies) and `failed`, all rules that the
document fails. In mode `annotate` all are kept and `failed` is the mark. Texts are not read (but by
`contamination`, which is a pass before), so other thresholds cost seconds; the thresholds that a
corpus gives itself come from a pass before, too.

What filters drop is in documents/ still, and no later stage sees it: see `text_column`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..indexed_dataset.atomic import atomic_path
from . import contamination
from .cleaner import same_language
from .config import PreprocessConfig
from .executors import Executor
from .filter_config import FilterConfig
from .filter_rules import rule_values
from .filter_thresholds import (
    Thresholds,
    add_up,
    count_values,
    enabled_rules,
    quantile_rules,
)
from .filter_verdicts import TEXT_BYTES
from .progress import Progress
from .stage import Marker, Stage, Unit, UnitResult, file_fingerprint, fingerprint, run_stage
from .statistics import STATISTICS, counts_of
from .text_column import FILTERS, flat, read_all_rows
from .url_block_list import UrlBlockList

logger = logging.getLogger(__name__)

VERSIONS = {"quantiles": 1, **contamination.VERSIONS, "filters": 2}
"""Raised by hand when a stage's output changes."""

CONTAMINATED = "contaminated"

DECISION_SCHEMA = pa.schema(
    [
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("reason", pa.string()),  # null when kept
        pa.field("failed", pa.list_(pa.dictionary(pa.int32(), pa.string())), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterArguments:
    """What one unit of the stages gets."""

    documents: Path
    config: FilterConfig
    thresholds: dict[str, dict[str, float]]
    """Language -> rule -> threshold, where it is known by now."""
    decisions: Path
    """The file to write."""
    matches: Path | None = None
    """The unit's file of the stage `contamination`, where it is on."""


def is_on(config: FilterConfig) -> bool:
    """Say whether anything is to be decided."""
    return bool(
        enabled_rules(config)
        or config.min_language_score
        or config.language_scores
        or config.keep_languages
        or config.drop_language_mismatch
        or config.url_block_list
        or contamination.is_on(config.decontamination)
        or config.scores
    )


def needed_columns(config: PreprocessConfig) -> PreprocessConfig:
    """Return the config with the columns of `clean.annotate` on that the filters need."""
    annotate = config.clean.annotate
    if is_on(config.filters):
        annotate = replace(annotate, text_bytes=True)
    if enabled_rules(config.filters):
        annotate = replace(annotate, statistics=True)
    return replace(config, clean=replace(config.clean, annotate=annotate))


def run(
    config: PreprocessConfig,
    output: Path,
    clean_markers: Mapping[str, Marker],
    executor: Executor,
    progress: Progress,
) -> dict[str, Marker]:
    """Decide about all clean documents; return markers that stand for both stages together.

    They have the outputs of both, clean's counts with what the filters dropped in `rows`, and
    `marked` ([language, rule, documents]), `thresholds` (language -> rule -> value, null: off) and
    `contaminated` ([evaluation file, documents]). Without filters they are clean's.
    """
    filters = config.filters
    documents = {
        name: output / "documents" / f"{name}.parquet"
        for name, marker in clean_markers.items()
        if f"documents/{name}.parquet" in dict(marker.outputs)
    }
    if not is_on(filters):
        documents = {}  # what an earlier run decided is removed
    block_lists = [file_fingerprint(Path(path), path) for path in filters.url_block_list]

    fingerprints: dict[str, tuple[str, ...]] = {
        name: (marker.fingerprint,) for name, marker in clean_markers.items()
    }
    found = {name: (path, clean_markers[name].fingerprint) for name, path in documents.items()}
    searched = contamination.run(config, output, found, executor, progress)
    for name, marker in searched.items():
        fingerprints[name] += (marker.fingerprint,)

    def units(inputs: Mapping[str, tuple[str, ...]], thresholds: dict[str, Any]) -> list[Unit]:
        return [
            Unit(
                name=name,
                arguments=FilterArguments(
                    documents=path,
                    config=filters,
                    thresholds=thresholds,
                    decisions=output / FILTERS / f"{name}.parquet",
                    matches=(
                        output / contamination.FOLDER / f"{name}.parquet"
                        if name in searched
                        else None
                    ),
                ),
                inputs=inputs[name],
                size_bytes=path.stat().st_size,
            )
            for name, path in documents.items()
        ]

    rules = quantile_rules(filters)
    stage = Stage(
        name="quantiles",
        version=VERSIONS["quantiles"],
        settings=[[rule.name for rule in rules], filters.c4.any_ending],
        function=count_unit,
    )
    cleaned = {name: (marker.fingerprint,) for name, marker in clean_markers.items()}
    counted = run_stage(stage, units(cleaned, {}) if rules else [], output, executor, progress)
    histograms = add_up(marker.counts["histograms"] for marker in counted.values())
    languages = {row[1] for marker in clean_markers.values() for row in marker.counts["rows"]}
    stop_words = config.clean.annotate.stop_words
    find = Thresholds(filters, histograms, stop_words)
    thresholds = find.table(enabled_rules(filters), languages)
    stage = Stage(
        name="filters",
        version=VERSIONS["filters"],
        settings=[_settings(filters), block_lists, repr(thresholds)],
        function=decide_unit,
    )
    decided = run_stage(stage, units(fingerprints, thresholds), output, executor, progress)
    plain = {
        language: {rule: None if value != value else value for rule, value in by_rule.items()}
        for language, by_rule in thresholds.items()
        if by_rule
    }
    return {
        name: (
            _joined(marker, decided[name], searched.get(name), plain) if name in decided else marker
        )
        for name, marker in clean_markers.items()
    }


def _settings(config: FilterConfig) -> dict[str, Any]:
    """Return what decisions depend on beside their inputs: evaluation data is one of these."""
    action = config.decontamination.action
    return asdict(config) | {"decontamination": action, "url_block_list": None}


def _joined(
    clean: Marker, decided: Marker, searched: Marker | None, thresholds: Mapping[str, Any]
) -> Marker:
    rows = [row for row in clean.counts["rows"] if row[2] != "clean"] + decided.counts["rows"]
    before = sum(row[3] for row in clean.counts["rows"])
    if sum(row[3] for row in rows) != before:
        raise RuntimeError(
            f"{before} documents came to the filters and {sum(row[3] for row in rows)} are "
            f"accounted for: this is an error in gristmill (unit {clean.unit})"
        )
    return Marker(
        unit=clean.unit,
        fingerprint=fingerprint(clean.fingerprint, decided.fingerprint),
        counts={
            **clean.counts,
            "rows": sorted(rows),
            "marked": decided.counts["marked"],
            "thresholds": thresholds,
            "contaminated": searched.counts["contaminated"] if searched else [],
        },
        outputs=clean.outputs + (searched.outputs if searched else ()) + decided.outputs,
    )


def count_unit(arguments: FilterArguments) -> UnitResult:
    """Count the values of the rules that take their thresholds from the corpus."""
    rules = quantile_rules(arguments.config)
    any_ending = arguments.config.c4.any_ending
    parts = []
    for table in read_all_rows(arguments.documents, ["language", STATISTICS]):
        counts = counts_of(table[STATISTICS], _count_names(rules, any_ending))
        languages = np.array(table["language"].to_pylist(), object)
        found = count_values(rules, counts, languages, any_ending)
        parts.append(_as_lists(found))
    return UnitResult(counts={"histograms": _as_lists(add_up(parts))})


def _as_lists(histograms: Mapping[str, Mapping[str, Mapping[int, int]]]) -> dict[str, Any]:
    return {
        language: {rule: [[n, bins[n]] for n in sorted(bins)] for rule, bins in by_rule.items()}
        for language, by_rule in histograms.items()
    }


def _count_names(rules: Any, any_ending: bool) -> list[str]:
    names = {name for rule in rules for name in rule.counts}
    if any_ending:
        names |= {f"{name}_any_ending" for name in names if name.startswith("c4_")}
    return sorted(names)


def decide_unit(arguments: FilterArguments) -> UnitResult:
    """Write the decisions about the documents of one unit."""
    decider = _Decider(arguments)
    outcomes: Counter[tuple[str, str, str]] = Counter()
    text_bytes: Counter[tuple[str, str, str]] = Counter()
    marked: Counter[tuple[str, str]] = Counter()
    with (
        atomic_path(arguments.decisions) as temporary,
        pq.ParquetWriter(temporary, DECISION_SCHEMA, compression="zstd") as writer,
    ):
        for table in read_all_rows(arguments.documents, decider.columns):
            decisions, failed = decider(table)
            writer.write_table(decisions, row_group_size=max(len(decisions), 1))
            languages = table["language"].to_pylist()
            sizes = table[TEXT_BYTES].to_numpy()
            for source, language, reason, size in zip(
                table["source"].to_pylist(),
                languages,
                decisions["reason"].to_pylist(),
                sizes.tolist(),
                strict=True,
            ):
                key = source, language, reason or "clean"
                outcomes[key] += 1
                text_bytes[key] += size
            for name, fails in failed.items():
                for index in np.flatnonzero(fails).tolist():
                    marked[languages[index], name] += 1
    rows = [[*key, outcomes[key], text_bytes[key]] for key in sorted(outcomes)]
    marks = [[*key, count] for key, count in sorted(marked.items())]
    return UnitResult(counts={"rows": rows, "marked": marks}, outputs=(arguments.decisions,))


class _Decider:
    """Decides about tables of documents."""

    def __init__(self, arguments: FilterArguments) -> None:
        self._config, self._thresholds = arguments.config, arguments.thresholds
        self._rules = enabled_rules(self._config)
        self._count_names = _count_names(self._rules, self._config.c4.any_ending)
        self._blocked = UrlBlockList.read(self._config.url_block_list)
        self._contaminated = (
            contamination.contaminated_rows(arguments.matches) if arguments.matches else None
        )
        self._first_row = 0  # of the next table in documents/UNIT.parquet
        file = pq.read_metadata(arguments.documents)
        names = file.schema.to_arrow_schema().names
        self.columns = ["id", "source", "language", TEXT_BYTES]
        for column in self._wanted():
            if column not in names and file.num_rows:
                raise ValueError(
                    f"{arguments.documents} has no column {column!r}, which the filters look at: "
                    "add it to the `columns` of the source, or to what clean adds "
                    "(clean.language.documents, clean.annotate)"
                )
            self.columns.append(column)

    def _wanted(self) -> list[str]:
        config = self._config
        columns = [STATISTICS] if self._rules else []
        if config.min_language_score or config.language_scores:
            columns.append("language_score")
        if config.drop_language_mismatch:
            columns.append("identified_language")
        if config.url_block_list:
            columns.append(config.url_column)
        return [*columns, *config.scores]

    def __call__(self, table: pa.Table) -> tuple[pa.Table, dict[str, NDArray[np.bool_]]]:
        """Return the decisions about a table, and which documents fail each rule."""
        failed = {name: fails for name, fails in self._failures(table).items() if fails.any()}
        self._first_row += table.num_rows
        reasons = np.full(table.num_rows, None, object)
        dropped = np.zeros(len(reasons), np.bool_)
        for name in reversed(failed):
            is_mark = name == CONTAMINATED and self._config.decontamination.action != "drop"
            if self._config.mode == "drop" and not is_mark:
                reasons[failed[name]] = name.partition(".")[0]
                dropped |= failed[name]
        names = list(failed)
        matrix = np.array([failed[name] for name in names]).reshape(len(names), table.num_rows)
        documents, rules = np.nonzero(matrix.T)
        offsets = np.searchsorted(documents, np.arange(table.num_rows + 1)).astype(np.int32)
        marks = pa.DictionaryArray.from_arrays(
            pa.array(rules.astype(np.int32)), pa.array(names, pa.string())
        )
        return (
            pa.table(
                {
                    "id": table["id"],
                    "kept": pa.array(~dropped),
                    "reason": pa.array(reasons.tolist(), pa.string()),
                    "failed": pa.ListArray.from_arrays(pa.array(offsets), marks),
                }
            ).cast(DECISION_SCHEMA),
            failed,
        )

    def _failures(self, table: pa.Table) -> dict[str, NDArray[np.bool_]]:
        """Return which documents fail what, in the order of reasons."""
        config = self._config
        languages = np.array(table["language"].to_pylist(), object)
        failed: dict[str, NDArray[np.bool_]] = {}
        if config.keep_languages:
            failed["other_language"] = ~np.isin(languages, config.keep_languages)
        if config.drop_language_mismatch:
            failed["language_mismatch"] = np.array(
                [
                    one is not None and not same_language(one, language)
                    for one, language in zip(
                        table["identified_language"].to_pylist(), languages, strict=True
                    )
                ],
                np.bool_,
            )
        if config.min_language_score or config.language_scores:
            least = [
                config.language_scores.get(one, config.min_language_score) for one in languages
            ]
            scores = _floats(table["language_score"], 1.0)  # not identified: not doubted
            failed["language_score"] = scores < np.array(least, np.float32)
        if config.url_block_list:
            urls = table[config.url_column].to_pylist()
            failed["url_blocked"] = np.array([self._blocked.blocks(url) for url in urls], np.bool_)
        failed |= self._rule_failures(table, languages)
        for column, least_score in config.scores.items():
            failed[f"low_score.{column}"] = _floats(table[column], np.nan) < least_score
        if self._contaminated is not None:
            rows = np.arange(self._first_row, self._first_row + table.num_rows)
            failed[CONTAMINATED] = np.isin(rows, self._contaminated)
        return failed

    def _rule_failures(
        self, table: pa.Table, languages: NDArray[np.object_]
    ) -> dict[str, NDArray[np.bool_]]:
        if not self._rules:
            return {}
        counts = counts_of(table[STATISTICS], self._count_names)
        present, numbers = np.unique(languages.astype(str), return_inverse=True)
        failed = {}
        for rule in self._rules:
            values = rule_values(rule, counts, self._config.c4.any_ending)
            by_language = [self._thresholds[language][rule.name] for language in present.tolist()]
            failed[rule.name] = rule.fails(values, np.array(by_language)[numbers])
        return failed


def _floats(column: pa.ChunkedArray, null: float) -> NDArray[np.float64]:
    values = flat(column)
    filled = values.fill_null(null) if values.null_count else values
    return np.asarray(filled.to_numpy(zero_copy_only=False), np.float64)
