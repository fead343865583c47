"""Takedown: a list of documents that must go in, where they came from and what they count out.

A dataset knows its documents by origin (input file and offset); ids stand in a run's verdicts. So a
line of the list is looked up there. An exact copy of a named document holds the same text, so when
the named one was removed as a copy, the one that was kept in its place goes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..indexed_dataset import DocumentFacts, DocumentNotFoundError

_COLUMNS = [
    *("id", "input_id", "source", "origin_file", "origin_offset", "language", "kept", "reason"),
    *("duplicate_of", "text_bytes"),
]


@dataclass(frozen=True, slots=True)
class Takedown:
    """Documents that must go."""

    drop: dict[tuple[str, int], DocumentFacts | None] = field(default_factory=dict)
    """By origin file and offset: what is known of each."""
    absent: list[tuple[str, str]] = field(default_factory=list)
    """Lines of the list whose documents never came into a dataset, and the reason."""
    unknown: list[str] = field(default_factory=list)
    """Lines that no verdict knows."""


def read_takedown(path: Path, verdicts: Sequence[Path]) -> Takedown:
    """Look up the documents that a file names.

    Args:
        path: one document a line: a document id (32 hex digits), an id of the input, or the
            origin file, a tab and the row or byte offset.
        verdicts: folders of verdict files (Parquet) of the runs that made the datasets. Without
            any, only origins can be named, and nothing is known of them.

    Raises:
        DocumentNotFoundError: ids are named, and there are no verdicts to look them up in.
        UnicodeDecodeError, OSError: the file cannot be read.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    names = list(dict.fromkeys(line for line in lines if line))
    origins = {name: origin for name in names if (origin := _origin(name)) is not None}
    ids = {name for name in names if name not in origins}
    if not any(verdicts):
        if ids:
            raise DocumentNotFoundError(
                f"{path} names documents by id ({min(ids)}), which only the verdicts of the run "
                "that wrote the datasets can look up: give its folder with --verdicts, or name "
                "origin file and offset, with a tab between"
            )
        return Takedown(drop=dict.fromkeys(origins.values()))
    takedown = Takedown()
    wanted_origins = {origin: name for name, origin in origins.items()}
    found, kept_ids = set[str](), dict[bytes, str]()
    absent: dict[str, str] = {}
    for row in _rows(verdicts, ids, {file for file, _ in wanted_origins}):
        origin = row["origin_file"], row["origin_offset"]
        hex_id = row["id"].hex() if row["id"] is not None else ""
        hits = {hex_id, row["input_id"]} & ids
        if origin in wanted_origins:
            hits.add(wanted_origins[origin])
        found |= hits
        for name in hits:
            if row["kept"]:
                takedown.drop[origin] = _facts(row)
            elif row["reason"] == "exact_duplicate":
                kept_ids[row["duplicate_of"]] = name
            else:
                absent[name] = row["reason"]
    for row in _rows(verdicts, {identifier.hex() for identifier in kept_ids}, set()):
        if row["kept"] and row["id"] in kept_ids:
            takedown.drop[row["origin_file"], row["origin_offset"]] = _facts(row)
    takedown.absent.extend(sorted(absent.items()))
    takedown.unknown.extend(name for name in names if name not in found)
    return takedown


def _origin(line: str) -> tuple[str, int] | None:
    file, tab, offset = line.rpartition("\t")
    return (file, int(offset)) if tab and offset.isdecimal() else None


def _facts(row: dict[str, Any]) -> DocumentFacts:
    return DocumentFacts(row["language"], row["source"], row["text_bytes"])


def _rows(folders: Sequence[Path], ids: set[str], files: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the verdicts with one of these ids, or from one of these origin files."""
    binary = [bytes.fromhex(name) for name in ids if _is_document_id(name)]
    values = {
        "id": pa.array(binary, pa.binary(16)),
        "input_id": pa.array(sorted(ids), pa.string()),
        "origin_file": pa.array(sorted(files), pa.string()),
    }
    if not ids and not files:
        return
    for folder in folders:
        for path in sorted(folder.glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(columns=_COLUMNS):
                masks = [pc.is_in(batch[name], chosen) for name, chosen in values.items()]
                mask = pc.or_(pc.or_(masks[0], masks[1]), masks[2])
                yield from batch.filter(mask).to_pylist()


def _is_document_id(name: str) -> bool:
    return len(name) == 32 and not set(name) - set("0123456789abcdef")
