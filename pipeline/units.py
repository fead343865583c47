"""Files in, units of reading out: large files in several parts, small files many to a unit.

Units depend on the files and on `clean.unit_bytes` alone, never on the number of workers or the
order in which files are given. Their names sort as their documents count: by priority, file, place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .batches import BatchBuilder, Piece, ReadBatch
from .columnar import parquet_pieces, read_arrow, read_parquet
from .config import SourceConfig
from .hub import read_hub
from .jsonl import read_jsonl
from .plaintext import read_text
from .sources import SourceFile
from .stage import file_fingerprint, fingerprint

SMALL_FILE_BYTES = 1_000_000
"""Smaller files share units: a hundred thousand tiny files are not as many units."""

MAX_UNIT_FILES = 1_000
MAX_NAME_BYTES = 120


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadUnit:
    """Pieces of files with the same source settings, read one after the other."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def source(self) -> SourceConfig:
        """The settings that all pieces share (paths may differ)."""
        return self.pieces[0].file.source

    @property
    def size_bytes(self) -> int:
        """Bytes of input."""
        return sum(piece.size_bytes for piece in self.pieces)


def plan_units(files: Sequence[SourceFile], unit_bytes: int) -> list[ReadUnit]:
    """Return the units that together read every file once, in order of their names."""
    units: list[ReadUnit] = []
    group: list[SourceFile] = []
    limited: dict[SourceConfig, list[SourceFile]] = {}
    small_bytes = min(SMALL_FILE_BYTES, unit_bytes // 8)

    def close_group() -> None:
        if group:
            units.append(_unit([_whole(file) for file in group]))
            group.clear()

    for file in files:
        pieces = _split(file, unit_bytes)  # also of small files: it checks their columns
        if file.source.max_documents and file.format != "hub":
            # "The first n documents" have an order: one unit reads all files until it has them.
            limited.setdefault(file.source, []).append(file)
        elif file.format != "hub" and file.size_bytes < small_bytes:
            if group and (
                _settings(file) != _settings(group[-1])
                or len(group) >= MAX_UNIT_FILES
                or sum(one.size_bytes for one in group) + file.size_bytes > unit_bytes // 4
            ):
                close_group()
            group.append(file)
        else:
            close_group()
            units += [_unit([piece]) for piece in pieces]
    close_group()
    units += [_unit([_whole(file) for file in those]) for those in limited.values()]
    return sorted(units, key=lambda unit: unit.name)


def read(piece: Piece) -> Iterator[ReadBatch]:
    """Yield the documents of a piece, whatever its format."""
    file = piece.file
    if file.size_bytes == 0 and file.format != "hub":
        builder = BatchBuilder(file.source.columns)
        builder.notices.append(f"{file.origin_file} is empty: it has no documents")
        yield builder.take()
        return
    readers = {
        "jsonl": read_jsonl,
        "parquet": read_parquet,
        "arrow": read_arrow,
        "text": read_text,
        "hub": read_hub,
    }
    yield from readers[file.format](piece)


def read_unit(unit: ReadUnit) -> Iterator[tuple[SourceFile, ReadBatch]]:
    """Yield the batches of a unit with the file that each is from; stops at `max_documents`."""
    left = unit.source.max_documents
    limited = left > 0
    for piece in unit.pieces:
        for batch in read(piece):
            if limited and batch.documents_in > left:
                batch = _head(batch, left)
            yield piece.file, batch
            left -= batch.documents_in
            if limited and left <= 0:
                return


def fingerprints(unit: ReadUnit) -> tuple[str, ...]:
    """Return what a unit's output depends on, beside the stage's own settings."""
    parts = [fingerprint(_settings(unit.pieces[0].file))]
    for piece in unit.pieces:
        file = piece.file
        if file.format == "hub":
            content = fingerprint(file.origin_file, file.source.revision)
        else:
            content = input_fingerprint(file)
        parts.append(fingerprint(content, file.format, file.language, piece.start, piece.end))
    return tuple(parts)


def input_fingerprint(file: SourceFile) -> str:
    """Return what tells one content of an input file from another: nothing in it is read."""
    if file.is_remote:
        return fingerprint(file.origin_file, file.size_bytes, file.version)
    return file_fingerprint(Path(file.path), file.origin_file)


def _settings(file: SourceFile) -> dict[str, object]:
    """Return what a source says about its documents, not where they lie."""
    source = file.source
    return {
        "name": file.source_name,
        "priority": source.priority,
        "text_key": source.text_key,
        "id_key": source.id_key,
        "language_keys": source.language_keys,
        "columns": source.columns,
        "text_unit": source.text_unit,
        "task": asdict(source.task),
        "max_documents": source.max_documents,
    }


def _whole(file: SourceFile) -> Piece:
    return Piece(file=file, size_bytes=file.size_bytes)


def _split(file: SourceFile, unit_bytes: int) -> list[Piece]:
    by_lines = file.format == "jsonl" or (file.format == "text" and file.source.text_unit == "line")
    if file.format == "parquet":
        return parquet_pieces(file, unit_bytes)
    if not by_lines or file.compression or file.size_bytes <= unit_bytes:
        return [_whole(file)]
    size = file.size_bytes
    return [
        Piece(
            file=file,
            start=start,
            end=min(start + unit_bytes, size),
            size_bytes=min(unit_bytes, size - start),
        )
        for start in range(0, size, unit_bytes)
    ]


def _unit(pieces: Sequence[Piece]) -> ReadUnit:
    first = pieces[0]
    name = (
        f"{first.file.source.priority:04d}-{_file_name(first.file.origin_file)}-{first.start:012d}"
    )
    return ReadUnit(name=name, pieces=tuple(pieces))


def _file_name(origin_file: str) -> str:
    """Return the file's name as part of another: folders joined by +, unlike names kept apart."""
    name = re.sub(r"[^\w.=@+-]", "_", origin_file.replace("/", "+"))
    is_faithful = name.replace("+", "/") == origin_file and not name.startswith(".")
    if is_faithful and len(name.encode()) <= MAX_NAME_BYTES:
        return name
    digest = hashlib.blake2b(origin_file.encode(), digest_size=4).hexdigest()
    short = name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return f"{short}.{digest}"


def _head(batch: ReadBatch, num_documents: int) -> ReadBatch:
    """Return the batch's first documents, rejected ones counted in."""
    offsets = batch.documents.column("origin_offset").to_pylist()
    last = sorted([*offsets, *(one.origin_offset for one in batch.rejected)])[num_documents - 1]
    return replace(
        batch,
        documents=batch.documents.slice(0, sum(offset <= last for offset in offsets)),
        rejected=tuple(one for one in batch.rejected if one.origin_offset <= last),
        documents_in=num_documents,
    )
