"""Places that repeat others, and evaluation data, in; what is cut from a unit's documents, out.

`apply_cuts` is the other half: documents and their ranges in, texts without them out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..indexed_dataset.atomic import atomic_path
from .batches import text_array
from .passage_places import KINDS
from .passage_repeats import REPEAT
from .stage import UnitResult
from .text_column import text_arrays

CUTS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("origin_file", pa.string(), nullable=False),
        pa.field("origin_offset", pa.int64(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),  # of the document in documents/UNIT.parquet
        pa.field("start", pa.int64(), nullable=False),  # bytes of its clean text: from
        pa.field("end", pa.int64(), nullable=False),  # up to but not including
        pa.field("kind", pa.string(), nullable=False),  # one of passage_places.KINDS
    ]
)

_WHITE = b" \t\n\r\x0b\x0c"


@dataclass(frozen=True, kw_only=True, slots=True)
class CutsArguments:
    """One unit's work."""

    documents: Path
    unit: int
    """Its number in the files of `repeats`."""
    repeats: tuple[Path, ...]
    contaminated: Path | None
    """Ranges of the stage `contamination`, where they are to be cut."""
    cuts: Path
    """The file to write."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Ranges of one unit's documents, sorted, none overlapping another."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def load(cls, path: Path) -> Cuts:
        """Read what `write_cuts` wrote."""
        table = pq.read_table(path, columns=["row", "start", "end"])
        return cls(*(table[name].to_numpy() for name in ("row", "start", "end")))


def write_cuts(arguments: CutsArguments) -> UnitResult:
    """Write the ranges of one unit."""
    parts = [np.zeros(0, REPEAT)]
    for path in arguments.repeats:
        repeats = np.load(path, mmap_mode="r")
        units = repeats["unit"]
        first, last = np.searchsorted(units, [arguments.unit, arguments.unit + 1])
        parts.append(np.array(repeats[first:last]))
    if arguments.contaminated is not None:
        ranges = np.load(arguments.contaminated)
        part = np.zeros(len(ranges), REPEAT)
        for name in ("row", "start", "end"):
            part[name] = ranges[name]
        part["kind"] = KINDS.index("evaluation")
        parts.append(part)
    found = np.concatenate(parts)
    found = found[np.lexsort((found["kind"], found["end"], found["start"], found["row"]))]
    merged = _merge(found)
    columns = ["id", "origin_file", "origin_offset"]
    table = CUTS_SCHEMA.empty_table()
    if len(merged):
        documents = pq.read_table(arguments.documents, columns=columns)
        taken = documents.take(pa.array(merged["row"]))
        kinds = pa.array(KINDS).take(pa.array(merged["kind"]))
        table = pa.table(
            [
                *(taken[name] for name in columns),
                *(pa.array(merged[name].astype(np.int64)) for name in ("row", "start", "end")),
                kinds,
            ],
            schema=CUTS_SCHEMA,
        )
    with atomic_path(arguments.cuts) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    num_ranges: Counter[str] = Counter()
    num_bytes: Counter[str] = Counter()
    for number, kind in enumerate(KINDS):
        own = merged[merged["kind"] == number]
        num_ranges[kind] = len(own)
        num_bytes[kind] = int((own["end"].astype(np.int64) - own["start"]).sum())
    rows = [[kind, num_ranges[kind], num_bytes[kind]] for kind in KINDS if num_ranges[kind]]
    return UnitResult(counts={"rows": rows}, outputs=(arguments.cuts,))


def _merge(found: NDArray[np.void]) -> NDArray[np.void]:
    """Join ranges of a document that overlap or touch; the kind is that of the first."""
    if len(found) == 0:
        return found
    # One running number for (row, byte), so that the furthest end so far is a running maximum.
    base = found["row"].astype(np.float64)
    new_row = np.append([True], base[1:] != base[:-1])
    offset = (np.cumsum(new_row) - 1).astype(np.int64) << 33
    starts = found["start"].astype(np.int64) + offset
    reach = np.maximum.accumulate(found["end"].astype(np.int64) + offset)
    begins = np.append([True], starts[1:] > reach[:-1])
    places = np.flatnonzero(begins)
    merged = found[places].copy()
    merged["end"] = np.append(reach[places[1:] - 1], reach[-1]) - offset[places]
    return merged


def apply_cuts(
    table: pa.Table, rows: NDArray[np.int64], cuts: Cuts
) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return documents without the ranges that are cut, and the bytes that each has lost.

    Where a range is cut out between two characters that are not white space, a line feed takes its
    place; texts that were cut begin and end without white space.

    Args:
        table: documents with a `text`.
        rows: int64[n], ascending: row of each in documents/UNIT.parquet.
        cuts: of the unit.

    Returns:
        the table with other texts, and int64[n].
    """
    lost = np.zeros(table.num_rows, np.int64)
    firsts = np.searchsorted(cuts.rows, rows, side="left")
    lasts = np.searchsorted(cuts.rows, rows, side="right")
    changed = np.flatnonzero(lasts > firsts)
    if len(changed) == 0:
        return table, lost
    data, offsets = text_arrays(table["text"])
    view = memoryview(data)  # type: ignore[arg-type]  # numpy 2 arrays are buffers
    bounds = offsets.tolist()
    texts: list[bytes | memoryview] = [
        view[bounds[number] : bounds[number + 1]] for number in range(table.num_rows)
    ]
    for number in changed.tolist():
        text = texts[number]
        own = slice(firsts[number], lasts[number])
        texts[number] = _without(text, cuts.starts[own].tolist(), cuts.ends[own].tolist())
        lost[number] = len(text) - len(texts[number])
    place = table.schema.get_field_index("text")
    return table.set_column(place, table.schema.field(place), text_array(texts)), lost


def _without(text: bytes | memoryview, starts: list[int], ends: list[int]) -> bytes:
    left: list[bytes] = []
    before = 0
    for start, end in zip(starts, ends, strict=True):
        left.append(bytes(text[before:start]))
        before = end
        last = bytes(text[start - 1 : start]) if start else b"\n"
        after = bytes(text[end : end + 1]) or b"\n"
        if last not in _WHITE and after not in _WHITE:
            left.append(b"\n")
    left.append(bytes(text[before:]))
    return b"".join(left).strip(_WHITE)
