"""Failures and thresholds of filter rules, by language, in; the rows of the report's table out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .filter_rules import RULE_NAMES

MAX_LANGUAGES = 6
"""Languages named of one rule."""


@dataclass(frozen=True, slots=True)
class RuleRow:
    """One rule in the table."""

    name: str
    documents: int
    """That fail it."""
    threshold: str
    """Of most languages; empty where the rule compares with none."""
    note: str
    """Languages with other thresholds, and those with most failures."""


def rule_rows(curation: Mapping[str, Any]) -> list[RuleRow]:
    """Return a row for each rule that is on or that documents fail, in the order of rules."""
    failed: dict[str, Counter[str]] = {}
    for language, by_rule in curation.get("failed", {}).items():
        for name, documents in by_rule.items():
            failed.setdefault(name, Counter())[language] = documents
    thresholds: dict[str, dict[str, float | None]] = {}
    for language, values in curation.get("thresholds", {}).items():
        for name, value in values.items():
            thresholds.setdefault(name, {})[language] = value
    places = {name: place for place, name in enumerate(RULE_NAMES)}
    names = sorted({*failed, *thresholds}, key=lambda name: (places.get(name, len(places)), name))
    return [_row(name, failed.get(name, Counter()), thresholds.get(name, {})) for name in names]


def _row(name: str, failed: Counter[str], thresholds: Mapping[str, float | None]) -> RuleRow:
    common, threshold, others = None, "", []
    if thresholds:
        counted = Counter(thresholds.values())
        common = min(counted, key=lambda value: (-counted[value], str(value)))
        threshold = _written(common)
        others = [
            f"{language} {_written(value)}"
            for language, value in sorted(thresholds.items())
            if value != common
        ]
    most = [f"{language} {count:,}" for language, count in failed.most_common(MAX_LANGUAGES)]
    parts = [_some("other thresholds", others), _some("failures", most, len(failed))]
    return RuleRow(name, failed.total(), threshold, "; ".join(part for part in parts if part))


def _some(what: str, items: list[str], number: int = 0) -> str:
    if not items:
        return ""
    more = max(number, len(items)) - min(MAX_LANGUAGES, len(items))
    named = ", ".join(items[:MAX_LANGUAGES])
    return f"{what}: {named}" + (f", and {more} more languages" if more else "")


def _written(value: float | None) -> str:
    return "off" if value is None else f"{value:.4g}"
