"""Documents and verdicts as the stages before tokenize leave them, made from texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.pipeline.documents import VERDICT_SCHEMA, document_schema
from gristmill.pipeline.stage import Marker
from gristmill.pipeline.tokenizer import Tokenizer
from gristmill.pipeline.train_tokenizer import TokenizerResult, special_tokens, train_bpe


@dataclass(frozen=True)
class Row:
    """One document that was read: kept, or dropped for a reason (by clean or by dedup)."""

    text: str
    language: str = "eng_Latn"
    source: str = "web"
    file: str = "a.jsonl"
    offset: int = 0
    reason: str | None = None
    cluster: str | None = None
    by_clean: bool = False


def digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _write_units(
    output: Path, units: dict[str, list[Row]], rows_per_group: int
) -> dict[str, Marker]:
    markers = {}
    for name, rows in units.items():
        documents = [
            {
                "id": digest(row.text),
                "input_id": None,
                "text": row.text,
                "language": row.language,
                "source": row.source,
                "origin_file": row.file,
                "origin_offset": row.offset,
            }
            for row in rows
            if not row.by_clean
        ]
        verdicts = [
            {
                "id": None if row.by_clean else digest(row.text),
                "input_id": None,
                "source": row.source,
                "origin_file": row.file,
                "origin_offset": row.offset,
                "language": row.language,
                "kept": row.reason is None,
                "reason": row.reason,
                "cluster_id": digest(row.cluster) if row.cluster else None,
                "cluster_size": 1,
                "duplicate_of": None,
                "jaccard": None,
                "text_bytes": len(row.text.encode()),
            }
            for row in rows
        ]
        for folder, table in (
            ("documents", pa.Table.from_pylist(documents, schema=document_schema())),
            ("verdicts", pa.Table.from_pylist(verdicts, schema=VERDICT_SCHEMA)),
        ):
            (output / folder).mkdir(parents=True, exist_ok=True)
            pq.write_table(
                table, output / folder / f"{name}.parquet", row_group_size=rows_per_group
            )
        counts: dict[tuple[str, str, str], list[int]] = {}
        for row in rows:
            entry = counts.setdefault((row.source, row.language, row.reason or "kept"), [0, 0])
            entry[0] += 1
            entry[1] += len(row.text.encode())
        listed = [[*key, *values] for key, values in sorted(counts.items())]
        fingerprint = hashlib.blake2b(repr(rows).encode(), digest_size=16).hexdigest()
        markers[name] = Marker(
            unit=name, fingerprint=fingerprint, counts={"rows": listed}, outputs=()
        )
    return markers


WriteUnits = Callable[[Path, dict[str, list[Row]]], dict[str, Marker]]


@pytest.fixture(scope="session")
def make_row() -> type[Row]:
    return Row


@pytest.fixture(scope="session")
def write_units() -> WriteUnits:
    """Return a function that writes documents/ and verdicts/ and returns the verdict markers."""

    def write(output: Path, units: dict[str, list[Row]]) -> dict[str, Marker]:
        return _write_units(output, units, rows_per_group=7)

    return write


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TokenizerResult:
    """A tokenizer of 350 ids, as the stage before tokenize hands it on."""
    eod = "<|endoftext|>"
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [f"document number {n} of the web" for n in range(50)]
    content = train_bpe(texts, vocab_size=350, special_tokens=special_tokens(eod))
    (folder / "tokenizer.json").write_text(content)
    fingerprint = Tokenizer(str(folder)).fingerprint
    return TokenizerResult(folder=folder, fingerprint=fingerprint, eod=eod)
