"""One unit's verdicts and documents in; what the report page shows of them out, small and additive.

A summary holds histograms of every numeric column and the rows with the smallest keyed hashes of
each reason, and of each (reason, language). Both add up: the page of a run does not depend on how
its documents were spread over units, and its size not on how many there are. Columns are taken from
the files' own schemas, so a stage that adds one has it shown.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..indexed_dataset.atomic import write_atomically
from .executors import advance
from .histogram import count_by_group
from .placement import keyed_hash
from .stage import UnitResult
from .text_column import flat, id_words, read_row_groups

KEPT = "kept"
"""Stands for the reason of a document that was not dropped."""

ROWS_PER_REASON = 24
"""Documents that a summary remembers of each reason, from all languages."""

ROWS_PER_LANGUAGE = 3
"""The same of each (reason, language)."""

ANY = ""
"""Stands for all languages together."""

MAX_LICENCES = 100
"""Different licences counted by name; what comes after them is counted together."""

LICENCE_COLUMNS = ("licence", "license")
"""Carried columns that say a document's licence."""

_PLACES = {"origin_offset"}
"""Numbers that say where a document is, not what it is like."""

Buckets = Counter[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SummaryArguments:
    """One unit's work."""

    documents: Path | None
    verdicts: Path
    summary: Path
    """The file to write."""


@dataclass(kw_only=True, slots=True)
class Summary:
    """What is known of some units together."""

    by_reason: dict[str, dict[str, Buckets]] = field(default_factory=dict)
    """Column of the verdicts -> reason (or `kept`) -> bucket -> documents."""
    by_language: dict[str, dict[str, Buckets]] = field(default_factory=dict)
    """Column -> language -> bucket -> documents kept (verdicts), documents (documents/)."""
    columns: dict[str, Buckets] = field(default_factory=dict)
    """Numeric column of documents/ -> bucket -> documents."""
    licences: dict[str, Counter[str]] = field(default_factory=dict)
    """Source -> what its documents say of their licence -> documents."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    """(reason, language or ANY) -> the first verdicts by keyed hash."""

    def add(self, other: Summary) -> None:
        """Add the summary of other units."""
        for mine, theirs in (
            (self.by_reason, other.by_reason),
            (self.by_language, other.by_language),
        ):
            for column, groups in theirs.items():
                for group, buckets in groups.items():
                    mine.setdefault(column, {}).setdefault(group, Counter()).update(buckets)
        for column, buckets in other.columns.items():
            self.columns.setdefault(column, Counter()).update(buckets)
        for source, names in other.licences.items():
            self.licences.setdefault(source, Counter()).update(names)
        for key, rows in other.rows.items():
            self.add_rows(key, rows)

    def add_rows(self, key: tuple[str, str], rows: list[dict[str, Any]]) -> None:
        """Add verdicts of a (reason, language or ANY), and keep the first of all."""
        number = ROWS_PER_REASON if key[1] == ANY else ROWS_PER_LANGUAGE
        unique: dict[int, dict[str, Any]] = {}
        for row in sorted([*self.rows.get(key, []), *rows], key=_place):
            unique.setdefault(row["key"], row)
        self.rows[key] = list(unique.values())[:number]

    def to_json(self) -> str:
        """Return the text of a summary file."""
        value = {
            "by_reason": self.by_reason,
            "by_language": self.by_language,
            "columns": self.columns,
            "licences": self.licences,
            "rows": [[*key, rows] for key, rows in sorted(self.rows.items())],
        }
        return json.dumps(value, sort_keys=True, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Summary:
        """Read a summary back."""
        value = json.loads(text)
        return cls(
            by_reason=_grouped(value["by_reason"]),
            by_language=_grouped(value["by_language"]),
            columns={name: _buckets(one) for name, one in value["columns"].items()},
            licences={name: Counter(one) for name, one in value["licences"].items()},
            rows={(reason, language): rows for reason, language, rows in value["rows"]},
        )


def summarize(arguments: SummaryArguments) -> UnitResult:
    """Write the summary of one unit."""
    summary = Summary()
    with pq.ParquetFile(arguments.verdicts) as file:
        columns = _numeric(file.schema_arrow)
        share = arguments.verdicts.stat().st_size // max(file.num_row_groups, 1)
        for group in range(file.num_row_groups):
            _add_verdicts(summary, file.read_row_group(group), columns)
            advance(share)
    if arguments.documents is not None:
        schema = pq.read_schema(arguments.documents)
        columns = _numeric(schema)
        licences = [name for name in LICENCE_COLUMNS if name in schema.names]
        if columns or licences:
            wanted = ["source", "language", *columns, *licences]
            for table in read_row_groups(arguments.documents, wanted):
                _add_documents(summary, table, columns, licences)
    write_atomically(arguments.summary, summary.to_json().encode())
    return UnitResult(outputs=(arguments.summary,))


def _numeric(schema: pa.Schema) -> list[str]:
    """Return the columns that a histogram can be made of."""
    return [
        field.name
        for field in schema
        if field.name not in _PLACES
        and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type))
    ]


def _add_verdicts(summary: Summary, table: pa.Table, columns: list[str]) -> None:
    if table.num_rows == 0:
        return
    reasons, reason_codes = _codes(pc.fill_null(table["reason"], KEPT))
    languages, language_codes = _codes(table["language"])
    kept = table["kept"].to_numpy()
    for column in columns:
        values = _floats(table[column])
        found = summary.by_reason.setdefault(column, {})
        for code, buckets in count_by_group(reason_codes, values).items():
            found.setdefault(reasons[code], Counter()).update(buckets)
        found = summary.by_language.setdefault(column, {})
        for code, buckets in count_by_group(language_codes[kept], values[kept]).items():
            found.setdefault(languages[code], Counter()).update(buckets)
    keys = _sample_keys(table)
    names = [(reason, language) for reason in reasons for language in languages]
    by_language = _smallest(reason_codes * len(languages) + language_codes, keys, ROWS_PER_LANGUAGE)
    for group, places in by_language:
        summary.add_rows(names[group], _rows(table, places, keys))
    for group, places in _smallest(reason_codes, keys, ROWS_PER_REASON):
        summary.add_rows((reasons[group], ANY), _rows(table, places, keys))


def _rows(
    table: pa.Table, places: NDArray[np.int64], keys: NDArray[np.uint64]
) -> list[dict[str, Any]]:
    """Return rows of the verdicts as JSON holds them, each with its keyed hash."""
    rows = table.take(pa.array(places)).to_pylist()
    return [
        _plain(row) | {"key": key} for row, key in zip(rows, keys[places].tolist(), strict=True)
    ]


def _sample_keys(table: pa.Table) -> NDArray[np.uint64]:
    """Return the keyed hash that each row is chosen by: uint64[n].

    Copies have that of the document kept in their place, so that of the copies of one document one
    is shown; rows without an id (no text could be read) have one of their place.
    """
    ids = flat(pc.coalesce(table["duplicate_of"], table["id"]))
    missing = ids.is_null().to_numpy(zero_copy_only=False)
    words = np.zeros((len(ids), 2), np.uint64)
    words[~missing] = id_words(ids.drop_null())
    if missing.any():
        rows = table.filter(pa.array(missing))
        files, codes = _codes(rows["origin_file"])
        digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in files]
        words[missing, 0] = np.frombuffer(b"".join(digests), "<u8")[codes]
        words[missing, 1] = rows["origin_offset"].to_numpy().astype(np.uint64)
    return keyed_hash(words, 0, "report_sample")


def _smallest(
    groups: NDArray[np.int64], keys: NDArray[np.uint64], number: int
) -> Iterable[tuple[int, NDArray[np.int64]]]:
    """Yield each group with the rows of its smallest keys, one row a key."""
    order = np.lexsort((keys, groups))
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (np.diff(groups[order]) != 0) | (np.diff(keys[order]) != 0)
    order = order[is_first]  # stable: the first row of each key
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield int(groups[order[start]]), order[start : min(end, start + number)]


def _place(row: Mapping[str, Any]) -> tuple[int, str, str, int]:
    return row["key"], row["source"], row["origin_file"], row["origin_offset"]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON holds it: ids in hex, numbers that are none as null."""

    def value(item: Any) -> Any:
        if isinstance(item, bytes):
            return item.hex()
        if isinstance(item, float) and not np.isfinite(item):
            return None
        return item

    return {name: value(item) for name, item in row.items()}


def _add_documents(
    summary: Summary, table: pa.Table, columns: list[str], licences: list[str]
) -> None:
    languages, codes = _codes(table["language"])
    for column in columns:
        values = _floats(table[column])
        found = summary.by_language.setdefault(column, {})
        everything = summary.columns.setdefault(column, Counter())
        for code, buckets in count_by_group(codes, values).items():
            found.setdefault(languages[code], Counter()).update(buckets)
            everything.update(buckets)
    if licences:
        said = pc.fill_null(pc.coalesce(*(table[name] for name in licences)), "")
        counted = pa.table({"source": table["source"], "licence": said})
        grouped = counted.group_by(["source", "licence"]).aggregate([([], "count_all")])
        for row in sorted(grouped.to_pylist(), key=lambda row: (row["source"], row["licence"])):
            names = summary.licences.setdefault(row["source"], Counter())
            is_new = row["licence"] not in names
            name = "..." if is_new and len(names) >= MAX_LICENCES else row["licence"]
            names[name] += row["count_all"]


def _codes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Return the distinct values of a column and int64[n], which of them each row has."""
    encoded = flat(column).dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """Return a numeric column as float64[n], NaN for null."""
    values: NDArray[np.float64] = flat(pc.cast(column, pa.float64(), safe=False)).to_numpy(
        zero_copy_only=False
    )
    return values


def _grouped(value: dict[str, dict[str, dict[str, int]]]) -> dict[str, dict[str, Buckets]]:
    return {
        column: defaultdict(Counter, {group: _buckets(one) for group, one in groups.items()})
        for column, groups in value.items()
    }


def _buckets(value: dict[str, int]) -> Buckets:
    return Counter({int(code): count for code, count in value.items()})
