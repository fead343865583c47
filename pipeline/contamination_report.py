"""Matches of documents and evaluation rows in; what report.json and the pages say of them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from .config import PreprocessConfig
from .contamination import FOLDER, is_on
from .stage import Marker, finished_units

MAX_EXAMPLES = 20
"""Matches of which the report shows the passage."""

_EXAMPLE = (
    "source", "origin_file", "origin_offset", "language", "evaluation_file", "evaluation_row",
    "share", "longest_run", "passage",
)  # fmt: skip


def describe(
    config: PreprocessConfig, output: Path, markers: Mapping[str, Marker]
) -> dict[str, Any]:
    """Return what was found of each evaluation file; nothing where decontamination is off.

    Returns:
        `action`, `words`, `min_share`; `files`: of each its `rows`, `searched_rows` (those with a
        text), `documents` that match it and `rows_found`; `examples`: matches of different
        documents and rows, the largest shares first.
    """
    settings = config.filters.decontamination
    if not is_on(settings):
        return {}
    index = finished_units(output, "evaluations")["index"]
    documents: dict[str, int] = {}
    for marker in markers.values():
        for name, count in marker.counts.get("contaminated", []):
            documents[name] = documents.get(name, 0) + count
    found: dict[str, set[int]] = {}
    examples: list[dict[str, Any]] = []
    for unit in sorted(markers):
        path = output / FOLDER / f"{unit}.parquet"
        if not path.is_file():
            continue
        table = pq.read_table(path, columns=["evaluation_file", "evaluation_row", "share"])
        for name, row in zip(
            table["evaluation_file"].to_pylist(), table["evaluation_row"].to_pylist(), strict=True
        ):
            found.setdefault(name, set()).add(row)
        if table.num_rows:
            best = np.argsort(-table["share"].to_numpy(), kind="stable")[: 10 * MAX_EXAMPLES]
            whole = pq.read_table(path, columns=list(_EXAMPLE)).take(best)
            examples = _best(examples + whole.to_pylist())
    return {
        "action": settings.action,
        "words": settings.words,
        "min_share": settings.min_share,
        "files": [
            {
                "file": name,
                "rows": rows,
                "searched_rows": used,
                "documents": documents.get(name, 0),
                "rows_found": len(found.get(name, ())),
            }
            for name, rows, used, _ in index.counts["files"]
        ],
        "examples": examples,
    }


def _best(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the examples of the largest shares: one of a document, one of an evaluation row."""
    chosen: list[dict[str, Any]] = []
    seen: set[tuple[Any, ...]] = set()
    for one in sorted(examples, key=lambda one: (-one["share"], -one["longest_run"])):
        names = (
            (one["origin_file"], one["origin_offset"]),
            (one["evaluation_file"], one["evaluation_row"], ""),
        )
        if not seen.intersection(names) and len(chosen) < MAX_EXAMPLES:
            seen.update(names)
            chosen.append(one)
    return chosen
