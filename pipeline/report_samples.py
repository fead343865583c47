"""Chosen verdicts in; the documents themselves, cut to a length that can be read, out.

The chosen ids are looked for in one pass over the id column of documents/ (16 bytes a document);
of the texts only the row groups that hold a chosen document are read, a bounded number however
large the corpus is. Documents that a reject file has an excerpt of are taken from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from .summary import ANY, KEPT, Summary
from .text_column import flat, id_words

SAMPLES_PER_REASON = 12
"""Documents shown of each reason, and of those kept."""

NUM_PAIRS = 24
"""Pairs of near duplicates shown side by side."""

TURN_CHARACTERS = 300
"""Of a conversation what is longer between two turns of the assistant is shown in part."""

MAX_TEXT_BYTES = 64_000
"""Bytes at the beginning of a document that are looked at."""

NEAR = "near_duplicate"

_FIXED = {"key", "kept", "cluster_id", "input_id", "source", "origin_file", "origin_offset",
          "language", "reason", "id", "duplicate_of", "text_bytes"}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One document, as the page shows it."""

    verdict: Mapping[str, Any]
    """Its row of the verdicts, ids in hex."""
    text: str | None
    """Its clean text, at most MAX_TEXT_BYTES of it; None where no file has it."""
    detail: str = ""
    """What a reject file says about it."""
    other: Mapping[str, Any] | None = None
    """The document that it is a copy of: columns of documents/, `text` cut likewise."""
    targets: Sequence[int] = ()
    """Of a conversation the bytes of its text that the assistant says: start, end, start, ..."""

    def parts(self, characters: int) -> list[tuple[str, str]]:
        """Return the beginning of the text in parts: (text, kind).

        Kinds are `text`, `target` (the assistant says it) and `gap` (something is left out): of a
        conversation long prompts are shown from both ends, so that the answers can be seen.
        """
        whole = self.text or ""
        if not self.targets:
            rest = [("", "gap")] if len(whole) > characters else []
            return [(whole[:characters], "text"), *rest]
        data = whole.encode()
        bounds = [0, *(min(place, len(data)) for place in self.targets), len(data)]
        found: list[tuple[str, str]] = []
        for number, (start, end) in enumerate(pairwise(bounds)):
            kind, text = ("text", "target")[number % 2], data[start:end].decode(errors="ignore")
            if characters <= 0:
                return [*found, ("", "gap")]
            if len(text) > TURN_CHARACTERS:
                found += [(text[: TURN_CHARACTERS // 2], kind), ("", "gap")]
                text = text[-TURN_CHARACTERS // 3 :]
            if text:
                found.append((text, kind))
            characters -= min(len(text), TURN_CHARACTERS)
        return found

    @property
    def facts(self) -> list[tuple[str, Any]]:
        """What the verdict says beside identity, place and size: (column, value)."""
        return [
            (name, value)
            for name, value in self.verdict.items()
            if name not in _FIXED and value is not None
        ]


def collect_samples(output: Path, summary: Summary) -> dict[str, list[Sample]]:
    """Return the samples of each reason (and of `kept`), spread over the languages.

    Args:
        output: folder of the run.
        summary: of all of it.
    """
    chosen: dict[str, list[dict[str, Any]]] = {}
    for reason in sorted({reason for reason, _ in summary.rows}):
        number = NUM_PAIRS if reason == NEAR else SAMPLES_PER_REASON
        chosen[reason] = _spread(summary, reason, number)
    rows = [row for rows in chosen.values() for row in rows]
    wanted = {row[name] for row in rows for name in ("id", "duplicate_of") if row[name]}
    found = _look_up(sorted((output / "documents").glob("*.parquet")), wanted)
    rejected = _rejected(sorted((output / "rejected").glob("*.jsonl")), rows)
    return {
        reason: [_sample(row, found, rejected.get(_place(row), {})) for row in rows]
        for reason, rows in chosen.items()
    }


def cut(text: bytes, size: int) -> str:
    """Return the first `size` bytes of UTF-8 text, without a torn character at the end."""
    return text[:size].decode("utf-8", errors="ignore")


def _spread(summary: Summary, reason: str, number: int) -> list[dict[str, Any]]:
    """Return rows of a reason by keyed hash, half of them from all documents alike.

    The other half goes round the languages: the first document of each, then the second.
    """
    everywhere = summary.rows.get((reason, ANY), [])
    chosen = {row["key"]: row for row in everywhere[: number // 2]}
    ranked = sorted(
        (rank, row["key"], language)
        for (name, language), rows in summary.rows.items()
        if name == reason and language != ANY
        for rank, row in enumerate(rows)
    )
    shown = {row["language"] for row in chosen.values()}
    ranked.sort(key=lambda entry: (entry[0], entry[2] in shown, entry[1]))
    rest = [summary.rows[reason, language][rank] for rank, _, language in ranked]
    for row in [*rest, *everywhere]:
        if len(chosen) < number:
            chosen.setdefault(row["key"], row)
    return list(chosen.values())


def _look_up(files: Sequence[Path], wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Return the columns of each wanted document by its id, of equal ids the first in the files."""
    left = {bytes.fromhex(one) for one in wanted}
    firsts = np.array(sorted(int.from_bytes(one[:8], "little") for one in left), np.uint64)
    found: dict[str, dict[str, Any]] = {}
    for path in files:
        if not left:
            break
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                ids = flat(file.read_row_group(group, columns=["id"])["id"])
                maybe = np.flatnonzero(np.isin(id_words(ids)[:, 0], firsts))
                places = {ids[place].as_py(): place for place in maybe[::-1].tolist()}
                here = sorted(places[one] for one in places.keys() & left)
                if here:
                    for row in _take(file, group, here):
                        left.discard(row["id"])
                        row["id"] = row["id"].hex()
                        found[row["id"]] = row
    return found


def _take(file: pq.ParquetFile, group: int, places: list[int]) -> Iterator[dict[str, Any]]:
    table = file.read_row_group(group)
    for place in places:
        row = table.slice(place, 1)
        text = bytes(memoryview(row["text"][0].as_buffer())[: MAX_TEXT_BYTES + 1])
        yield {
            **row.drop_columns(["text"]).to_pylist()[0],
            "text": cut(text, MAX_TEXT_BYTES),
            "is_cut": len(text) > MAX_TEXT_BYTES,
        }


def _rejected(
    files: Iterable[Path], rows: Sequence[Mapping[str, Any]]
) -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return what the reject files say about the chosen documents, by place."""
    wanted = {_place(row) for row in rows if row["reason"]}
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for line in chain.from_iterable(map(_lines, files)):
        if len(found) == len(wanted):
            break
        rejected = json.loads(line)
        if _place(rejected) in wanted:
            found[_place(rejected)] = rejected
    return found


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from file


def _sample(row: dict[str, Any], found: Mapping[str, Any], rejected: Mapping[str, Any]) -> Sample:
    document = found.get(row["id"] or "", {})
    text = document.get("text", rejected.get("excerpt"))
    return Sample(
        verdict=row,
        text=text,
        detail=str(rejected.get("detail") or ""),
        other=found.get(row["duplicate_of"] or "") if row["reason"] else None,
        targets=document.get("target_spans", ()),
    )


def _place(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["source"], row["origin_file"], row["origin_offset"]


__all__ = ["KEPT", "NEAR", "Sample", "collect_samples", "cut"]
