"""Files of evaluation data in; their rows, each with the texts that are looked for, out.

What cannot be read is an error, not a notice: evaluation data that is left out protects nothing.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow.parquet as pq
from pyarrow import ipc

from .config import SourceConfig
from .decontamination_config import EvaluationConfig
from .input_files import open_input
from .lines import DamagedFileError, read_lines, split_lines
from .sources import SourceFile, find_files

BATCH_ROWS = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationFile:
    """A file of evaluation data."""

    file: SourceFile
    fields: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name in reports: that of the set, and of the file in it."""
        return f"{self.file.source_name}/{self.file.origin_file}"

    def digest(self) -> str:
        """Return 32 hex digits of the content, the name, and the fields that are looked at."""
        digest = hashlib.blake2b(repr((self.name, self.fields)).encode(), digest_size=16)
        with open_input(self.file.input) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()


def find_evaluations(evaluations: Sequence[EvaluationConfig]) -> list[EvaluationFile]:
    """Return the files of all sets, in one order whatever the order that they are given in.

    Raises:
        ValueError, FileNotFoundError: a path holds nothing that can be read.
    """
    fields: dict[SourceConfig, tuple[str, ...]] = {}
    found: list[EvaluationFile] = []
    for one in evaluations:
        source = SourceConfig(path=one.path, name=one.name)
        fields[source] = one.fields
        found += [EvaluationFile(file=file, fields=one.fields) for file in find_files([source])]
    found.sort(key=lambda one: (one.name, one.fields, one.file.path))
    for first, second in itertools.pairwise(found):
        if first.name == second.name:
            raise ValueError(
                f"filters.decontamination.evaluations: {first.file.path} and {second.file.path} "
                f"are both {first.name!r} in reports: give the sets other names"
            )
    return found


def read_rows(evaluation: EvaluationFile) -> Iterator[tuple[int, list[str]]]:
    """Yield (row number, texts) of each row; blank lines have numbers and no row.

    Raises:
        ValueError: a row cannot be read, or no row has one of the fields.
    """
    seen: set[str] = set()
    missing = set(evaluation.fields)
    for number, row in _rows(evaluation.file):
        if isinstance(row, dict):
            seen.update(row)
            missing -= row.keys()
            values = [row.get(name) for name in evaluation.fields or row]
        else:
            values = [row]
        yield number, [text for value in values for text in _strings(value)]
    if missing and seen:
        raise ValueError(
            f"{evaluation.file.path}: no row has the field {sorted(missing)[0]!r} of "
            f"filters.decontamination.evaluations; there are {', '.join(sorted(seen))}"
        )


def _rows(file: SourceFile) -> Iterator[tuple[int, Any]]:
    if file.format == "parquet":
        with open_input(file.input) as opened, pq.ParquetFile(opened) as table:
            batches = table.iter_batches(BATCH_ROWS)
            yield from enumerate(row for batch in batches for row in batch.to_pylist())
    elif file.format == "arrow":
        yield from enumerate(row for batch in _arrow_batches(file) for row in batch)
    else:
        yield from _lines(file)


def _arrow_batches(file: SourceFile) -> Iterator[list[dict[str, Any]]]:
    with open_input(file.input) as opened:
        is_file = opened.read(6) == b"ARROW1"
    path = open_input(file.input) if file.is_remote else file.path
    if is_file:
        reader = ipc.open_file(path)
        for number in range(reader.num_record_batches):
            yield reader.get_batch(number).to_pylist()
    else:
        with ipc.open_stream(path) as stream:
            for batch in stream:
                yield batch.to_pylist()


def _lines(file: SourceFile) -> Iterator[tuple[int, Any]]:
    number = -1
    try:
        for block in read_lines(file.input, file.compression):
            if block.skipped_bytes:
                raise ValueError(
                    f"{file.path}: a line has {block.skipped_bytes:,} bytes, more than can be "
                    "read at once: cut it, or leave the file out of the evaluation data"
                )
            for _, line in split_lines(block):
                number += 1
                if not line or line.isspace():
                    continue
                if file.format == "text":
                    yield number, line.decode()
                    continue
                if number == 0 and line.lstrip()[:1] == b"[":  # one array of rows
                    yield from enumerate(_array(file))
                    return
                yield number, msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, DamagedFileError) as error:
        raise ValueError(
            f"{file.path}, row {number:,}: {error}. Evaluation data that is not read is not looked "
            "for: repair the file (a row of JSON a line, or one array), or leave it out of "
            "filters.decontamination.evaluations"
        ) from error


def _array(file: SourceFile) -> list[Any]:
    parts = [block.data + b"\n" for block in read_lines(file.input, file.compression)]
    rows = msgspec.json.decode(b"".join(parts))
    return rows if isinstance(rows, list) else [rows]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _strings(one)
