"""The validation prefixes in; their conversations as JSON lines out, in the order of the documents.

Evaluation generates answers from `data/heldout.jsonl` and compares them with the assistant's: line
i holds the conversation of the i-th document of the validation prefixes, in the order of their
names, with its task, source and language.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..indexed_dataset import IndexedDataset
from ..indexed_dataset.atomic import write_atomically
from ..indexed_dataset.origins import read_origins
from ..indexed_dataset.paths import prefix_paths
from .executors import Executor, advance
from .progress import Progress
from .stage import Marker, Stage, Unit, UnitResult, run_stage

VERSION = 1

HELDOUT = "heldout.jsonl"

_COLUMNS = ["origin_file", "origin_offset", "source", "language", "conversation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldoutArguments:
    """The work of the one unit."""

    output: Path
    prefixes: tuple[str, ...]
    """Validation prefixes below data/, sorted."""
    units: tuple[str, ...]


def run(
    output: Path,
    cleaned: Mapping[str, Marker],
    packed: Mapping[str, Marker],
    executor: Executor,
    progress: Progress,
) -> None:
    """Write `data/heldout.jsonl`."""
    held = {
        marker.counts["prefix"]: marker
        for marker in packed.values()
        if marker.counts["split"] == "validation"
    }
    unit = Unit(
        name="heldout",
        arguments=HeldoutArguments(
            output=output, prefixes=tuple(sorted(held)), units=tuple(cleaned)
        ),
        inputs=tuple(marker.fingerprint for marker in (*held.values(), *cleaned.values())),
        size_bytes=sum((output / "documents" / f"{n}.parquet").stat().st_size for n in cleaned),
    )
    stage = Stage(name="heldout", version=VERSION, settings=[], function=write_heldout)
    run_stage(stage, [unit], output, executor, progress)


def write_heldout(arguments: HeldoutArguments) -> UnitResult:
    """Look the held-out documents up and write their conversations."""
    output = arguments.output
    places: dict[tuple[str, int], int] = {}
    for prefix in arguments.prefixes:
        dataset = IndexedDataset(output / "data" / prefix)
        assert dataset.manifest is not None
        files = dataset.manifest.origin_files
        origins = prefix_paths(dataset.prefix).origin
        for file, offset in read_origins(origins, dataset.num_documents, 0, dataset.num_documents):
            places[files[file], int(offset)] = len(places)
    lines: list[bytes] = [b""] * len(places)
    names = pa.array(sorted({file for file, _ in places}), pa.string())
    for unit in arguments.units:
        path = output / "documents" / f"{unit}.parquet"
        with pq.ParquetFile(path) as documents:
            for group in range(documents.num_row_groups):
                table = documents.read_row_group(group, columns=_COLUMNS)
                table = table.filter(pc.is_in(table["origin_file"], value_set=names))
                keys = zip(
                    table["origin_file"].to_pylist(),
                    table["origin_offset"].to_pylist(),
                    strict=True,
                )
                found = [(row, places[key]) for row, key in enumerate(keys) if key in places]
                rows = table.take(pa.array([row for row, _ in found], pa.int64())).to_pylist()
                for (_, place), row in zip(found, rows, strict=True):
                    lines[place] = _line(row)
        advance(path.stat().st_size)
    assert all(lines), "a held-out document is not in documents/"
    path = output / "data" / HELDOUT
    write_atomically(path, b"".join(lines))
    return UnitResult(counts={"conversations": len(lines)}, outputs=(path,))


def _line(row: Mapping[str, Any]) -> bytes:
    value = json.loads(row["conversation"])
    value |= {"source": row["source"], "language": row["language"]}
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
