"""Stage `clean`: files of any kind in, clean documents and the list of rejected ones out.

Each unit of reading becomes `documents/UNIT.parquet` (columns of `documents.document_schema`) and,
if anything was dropped, `rejected/UNIT.jsonl`. Every document that was read is in one of the two:
the unit fails otherwise.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..indexed_dataset.atomic import atomic_path
from .batches import ReadBatch, Rejected
from .cleaner import Cleaner, added_fields
from .config import CleanConfig, PreprocessConfig
from .conversation_cleaner import ChatRecipe, ConversationCleaner, conversation_schema
from .documents import ROW_GROUP_TEXT_BYTES, UNKNOWN_LANGUAGE, document_schema
from .executors import Executor, advance
from .language import is_unknown, normalize_language
from .progress import Progress
from .sources import SourceFile, find_files
from .stage import Marker, Stage, Unit, UnitResult, file_fingerprint, run_stage
from .units import ReadUnit, fingerprints, plan_units, read_unit

logger = logging.getLogger(__name__)

VERSION = 4

MAX_UNKNOWN_LANGUAGES = 100
"""Codes that are no languages are named in the marker up to this number, then only counted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CleanUnit:
    """What one unit of the stage works on."""

    unit: ReadUnit
    config: CleanConfig
    output: Path
    chat: ChatRecipe | None = None
    """How rows are rendered, where they are conversations."""


def plan(config: PreprocessConfig) -> list[ReadUnit]:
    """Return the units that the sources make, without doing anything.

    Raises:
        ValueError, FileNotFoundError: the sources cannot be read as configured.
    """
    return plan_units(find_files(config.sources), config.clean.unit_bytes)


def run(
    config: PreprocessConfig,
    output: Path,
    executor: Executor,
    progress: Progress,
    planned: Sequence[ReadUnit] | None = None,
    chat: ChatRecipe | None = None,
) -> dict[str, Marker]:
    """Read and clean all sources; return the units' markers in the order of the documents.

    A marker's counts are `documents_in`, `bytes_in` (of the input files as they lie on disk),
    `blank_lines`, `rows` of [source, language, "clean" or the reason, documents, text bytes],
    `unknown_languages` and `notices`. `planned` is what `plan` returned, if it was called before.
    With `chat` the rows are conversations, rendered so.

    Raises:
        ValueError, FileNotFoundError: the sources cannot be read as configured.
        UnitError: a unit failed.
    """
    units = [
        Unit(
            name=unit.name,
            arguments=CleanUnit(unit=unit, config=config.clean, output=output, chat=chat),
            inputs=fingerprints(unit),
            size_bytes=unit.size_bytes,
        )
        for unit in (plan(config) if planned is None else planned)
    ]
    settings = asdict(replace(config.clean, unit_bytes=1)) | {
        "models": _models(config.clean)
    }  # the cut is in the units' names
    if chat is not None:
        settings["chat"] = _rendering(chat)
    stage = Stage(name="clean", version=VERSION, settings=settings, function=clean_unit)
    markers = run_stage(stage, units, output, executor, progress)
    _tell(markers.values())
    _tell_unused_columns(config, markers.values())
    return markers


def clean_unit(arguments: CleanUnit) -> UnitResult:
    """Read and clean one unit and write its two files."""
    unit, output = arguments.unit, arguments.output
    documents = output / "documents" / f"{unit.name}.parquet"
    rejected = output / "rejected" / f"{unit.name}.jsonl"
    rejected.unlink(missing_ok=True)  # of a run that was killed
    counts = _Counts()
    clean_batch: Cleaner | ConversationCleaner
    if arguments.chat is not None:
        clean_batch = ConversationCleaner(arguments.chat, arguments.config, unit.source.task)
        schema = conversation_schema(unit.source.columns)
    else:
        clean_batch = Cleaner(arguments.config)
        schema = document_schema(unit.source.columns)
        for one in added_fields(arguments.config):  # a file without documents has its columns too
            schema = schema.append(one)
    with (
        atomic_path(documents) as temporary,
        _RejectFile(rejected) as reject_file,
        _DocumentWriter(temporary, schema) as writer,
    ):
        for file, batch in read_unit(unit):
            table, dropped = clean_batch(file, batch)
            writer.write(table)
            reject_file.write(file, dropped)
            counts.add(file, batch, table, dropped)
            advance(batch.input_bytes)
    outputs = (documents, rejected) if reject_file.is_used else (documents,)
    found = counts.result(unit.name)
    found["redacted"] = clean_batch.redacted
    found["mismatches"] = [[*pair, n] for pair, n in sorted(clean_batch.mismatches.items())]
    return UnitResult(counts=found, outputs=outputs)


class _DocumentWriter:
    """Writes batches into row groups of about ROW_GROUP_TEXT_BYTES.

    The schema is that of the first batch: a user's hook says its types by what it returns.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []
        self._bytes = 0

    def __enter__(self) -> _DocumentWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._flush()
            if self._writer is None:
                self._open(self._schema)
        if self._writer is not None:
            self._writer.close()

    def write(self, batch: pa.RecordBatch) -> None:
        self._schema = batch.schema
        if len(batch) == 0:
            return
        self._pending.append(batch)
        self._bytes += batch.nbytes
        if self._bytes >= ROW_GROUP_TEXT_BYTES:
            self._flush()

    def _open(self, schema: pa.Schema) -> pq.ParquetWriter:
        names = {field.name for field in schema if field.type == pa.string()} - {"input_id"}
        self._writer = pq.ParquetWriter(
            self._path,
            schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=sorted(names),
            write_statistics=sorted(names & {"language", "source", "origin_file"}),
        )
        return self._writer

    def _flush(self) -> None:
        if self._pending:
            table = pa.Table.from_batches(self._pending)
            writer = self._writer or self._open(table.schema)
            writer.write_table(table, row_group_size=len(table))
            self._pending, self._bytes = [], 0


class _RejectFile:
    """Writes rejected documents as JSON lines, into a file that appears only if there are any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._atomic: Any = None

    def __enter__(self) -> _RejectFile:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._file is not None:
            self._file.close()
            self._atomic.__exit__(*error)

    @property
    def is_used(self) -> bool:
        """Whether anything was written."""
        return self._file is not None

    def write(self, file: SourceFile, rejected: Sequence[Rejected]) -> None:
        for one in rejected:
            if self._file is None:
                self._atomic = atomic_path(self._path)
                self._file = open(self._atomic.__enter__(), "wb")  # noqa: SIM115 - see __exit__
            row = {
                "id": one.id.hex() if one.id else None,
                "input_id": one.input_id,
                "source": file.source_name,
                "origin_file": file.origin_file,
                "origin_offset": one.origin_offset,
                "language": normalize_language(file.language or one.language or ""),
                "reason": one.reason,
                "detail": one.detail,
                "text_bytes": one.text_bytes,
                **({"excerpt": one.excerpt} if one.excerpt else {}),
            }
            self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


@dataclass(slots=True)
class _Counts:
    """Adds up what a unit's marker says."""

    documents_in: int = 0
    bytes_in: int = 0
    blank_lines: int = 0
    notices: list[str] = field(default_factory=list)
    documents: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    text_bytes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    unknown_languages: Counter[str] = field(default_factory=Counter)
    filled_columns: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        file: SourceFile,
        batch: ReadBatch,
        clean: pa.RecordBatch,
        dropped: Sequence[Rejected],
    ) -> None:
        self.documents_in += batch.documents_in
        self.bytes_in += batch.input_bytes
        self.blank_lines += batch.blank_lines
        self.notices += batch.notices
        text = clean.column("text")
        sizes = np.diff(np.frombuffer(text.buffers()[1], np.int64)[text.offset :][: len(text) + 1])
        for language, size in zip(
            clean.column("language").to_pylist(), sizes.tolist(), strict=True
        ):
            self.documents[file.source_name, language, "clean"] += 1
            self.text_bytes[file.source_name, language, "clean"] += size
        for one in dropped:
            language = normalize_language(file.language or one.language or "")
            self.documents[file.source_name, language, one.reason] += 1
            self.text_bytes[file.source_name, language, one.reason] += one.text_bytes
        for column in file.source.columns:
            filled = len(clean) - clean.column(column).null_count
            self.filled_columns[column] += filled
        if UNKNOWN_LANGUAGE in {key[1] for key in self.documents}:
            self._count_unknown(file, batch)

    def _count_unknown(self, file: SourceFile, batch: ReadBatch) -> None:
        codes = Counter(batch.documents.column("language").to_pylist())
        if file.language:
            codes = Counter({file.language: batch.documents_in})
        for code, count in codes.items():
            if code and is_unknown(code):
                is_new = code not in self.unknown_languages
                if is_new and len(self.unknown_languages) >= MAX_UNKNOWN_LANGUAGES:
                    code = "..."
                self.unknown_languages[code] += count

    def result(self, name: str) -> dict[str, Any]:
        counted = sum(self.documents.values())
        if counted != self.documents_in:
            raise RuntimeError(
                f"{self.documents_in} documents were read, but {counted} are accounted for: this "
                f"is an error in gristmill, not in the input (unit {name})"
            )
        rows = [
            [*key, count, self.text_bytes[key]] for key, count in sorted(self.documents.items())
        ]
        return {
            "documents_in": self.documents_in,
            "bytes_in": self.bytes_in,
            "blank_lines": self.blank_lines,
            "rows": rows,
            "unknown_languages": dict(sorted(self.unknown_languages.items())),
            "filled_columns": dict(sorted(self.filled_columns.items())),
            "notices": self.notices,
        }


def _rendering(chat: ChatRecipe) -> dict[str, Any]:
    """Return what conversations are rendered with, but for what other stages do with them."""
    return asdict(replace(chat, name="", config=replace(chat.config, template="", max_tokens=0)))


def _models(config: CleanConfig) -> list[str]:
    """Return the fingerprints of the user's models: other files give other columns."""
    paths = [config.language.model, *(scorer.model for scorer in config.annotate.scorers)]
    return [file_fingerprint(Path(path), Path(path).name) for path in paths if path]


def _tell(markers: Iterable[Marker]) -> None:
    """Log what units noticed, also those of an earlier run: it holds for the output as it is."""
    unknown: Counter[str] = Counter()
    without = 0
    for marker in markers:
        rows = marker.counts["rows"]
        without += sum(row[3] for row in rows if row[1:3] == [UNKNOWN_LANGUAGE, "clean"])
        without -= sum(marker.counts["unknown_languages"].values())
        for notice in marker.counts["notices"]:
            logger.warning("%s", notice)
        unknown.update(marker.counts["unknown_languages"])
    if without > 0:
        logger.warning(
            "%d documents say no language and are %s: name their `language_keys`, put {language} "
            "into the path, set the `language` of their source, or have it identified "
            '(clean.language.documents = "missing")',
            without,
            UNKNOWN_LANGUAGE,
        )
    for code, count in sorted(unknown.items()):
        logger.warning(
            "language code %r is no language that we know: %d documents are %s (set `language` or "
            "`language_keys` of their source)",
            code,
            count,
            UNKNOWN_LANGUAGE,
        )


def _tell_unused_columns(config: PreprocessConfig, markers: Iterable[Marker]) -> None:
    filled: Counter[str] = Counter()
    for marker in markers:
        filled.update(marker.counts["filled_columns"])
    for name in dict.fromkeys(_columns(config)):
        if not filled[name]:
            logger.warning("no document has a value in column %r, which is carried through", name)


def _columns(config: PreprocessConfig) -> Iterator[str]:
    for source in config.sources:
        yield from source.columns
