"""Markers of cleaning and filters flow in, what report.json says about them flows out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .stage import Marker


def curation_counts(markers: Mapping[str, Marker]) -> dict[str, Any]:
    """Add up what happened to texts and which rules documents failed.

    Returns:
        `redacted`: kind -> addresses replaced; `mismatches`: rows of [given language, identified
        language, documents]; `failed`: language -> rule -> documents that fail it, whether they
        were dropped for it or not; `thresholds`: language -> rule -> the value that the rule
        compares with there, null where it is off.
    """
    redacted: Counter[str] = Counter()
    mismatches: Counter[tuple[str, str]] = Counter()
    failed: dict[str, Counter[str]] = {}
    thresholds: dict[str, dict[str, float | None]] = {}
    for marker in markers.values():
        redacted.update(marker.counts.get("redacted", {}))
        for given, identified, documents in marker.counts.get("mismatches", []):
            mismatches[given, identified] += documents
        for language, rule, documents in marker.counts.get("marked", []):
            failed.setdefault(language, Counter())[rule] += documents
        thresholds = marker.counts.get("thresholds", thresholds)  # each has those of the run
    return {
        "redacted": dict(sorted(redacted.items())),
        "mismatches": [[*pair, count] for pair, count in sorted(mismatches.items())],
        "failed": {name: dict(sorted(rules.items())) for name, rules in sorted(failed.items())},
        "thresholds": thresholds,
    }
