"""Tokenize: kept documents in, one sorted run of token ids for each unit out.

Each document's ids end with EOD. What pack needs to place a document without reading its text
(keyed hashes, counts, language, source, origin) stands in the run's index.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..indexed_dataset.atomic import write_atomically
from .config import PreprocessConfig
from .executors import Executor, advance
from .kept_documents import read_kept
from .placement import keyed_hash
from .progress import Progress
from .stage import Marker, Stage, Unit, UnitResult, run_stage
from .text_column import id_words, text_arrays
from .token_runs import RunWriter
from .tokenizer import open_cached
from .train_tokenizer import TokenizerResult

logger = logging.getLogger(__name__)

VERSION = 2

_COLUMNS = ["id", "text", "language", "source", "origin_file", "origin_offset"]
_SLICE_BYTES = 4_000_000
"""Text that is encoded between two reports of progress."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizeArguments:
    """One unit's work."""

    unit: str
    output: Path
    tokenizer: Path
    eod: str
    seed: int


def run(
    config: PreprocessConfig,
    output: Path,
    verdict_markers: Mapping[str, Marker],
    tokenizer: TokenizerResult,
    executor: Executor,
    progress: Progress,
) -> dict[str, Marker]:
    """Tokenize the kept documents of every unit.

    Counts of a marker: `rows` [source, language, documents, tokens, text_bytes] of what was
    tokenized and `dropped` [source, language, "too_long", documents, text_bytes]; each document
    dropped here also stands in rejected/<unit>.tokenize.jsonl.
    """
    stage = Stage(
        name="tokenize",
        version=VERSION,
        settings={"seed": config.pack.seed, "eod": tokenizer.eod},
        function=tokenize_unit,
    )
    units = [
        Unit(
            name=name,
            arguments=TokenizeArguments(
                unit=name,
                output=output,
                tokenizer=tokenizer.folder,
                eod=tokenizer.eod,
                seed=config.pack.seed,
            ),
            inputs=(marker.fingerprint, tokenizer.fingerprint),
            size_bytes=sum(row[4] for row in marker.counts["rows"] if row[2] == "kept"),
        )
        for name, marker in verdict_markers.items()
    ]
    markers = run_stage(stage, units, output, executor, progress)
    dropped = sum(row[3] for marker in markers.values() for row in marker.counts["dropped"])
    if dropped:
        logger.warning(
            "%d documents that verdicts/ calls kept are too long for this tokenizer and were "
            "dropped: rejected/*.tokenize.jsonl names them",
            dropped,
        )
    return markers


def tokenize_unit(arguments: TokenizeArguments) -> UnitResult:
    """Encode the kept documents of one unit and write them as a sorted run."""
    output, unit = arguments.output, arguments.unit
    tokenizer = open_cached(str(arguments.tokenizer), arguments.eod)
    documents: Counter[tuple[str, str]] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    text_bytes: Counter[tuple[str, str]] = Counter()
    dropped: list[dict[str, Any]] = []
    with RunWriter(output / "work" / "runs" / unit, tokenizer.dtype) as writer:
        batches = read_kept(
            output / "documents" / f"{unit}.parquet",
            output / "verdicts" / f"{unit}.parquet",
            _COLUMNS,
        )
        for batch in batches:
            whole = batch.table.append_column("cluster_id", batch.cluster_ids)
            whole = whole.append_column("cluster_size", pa.array(batch.cluster_sizes))
            for table in _slices(whole):
                data, offsets = text_arrays(table["text"])
                sizes = np.diff(offsets)
                too_long = tokenizer.too_long(data, offsets)
                if too_long.any():
                    dropped += _describe(table, sizes, too_long, tokenizer.too_long_detail())
                    keep = pa.array(~too_long)
                    table = table.filter(keep)
                    data, offsets = text_arrays(table["text"])
                encoded, bounds = tokenizer.encode(data, offsets)
                ids = np.insert(encoded, bounds[1:], tokenizer.eod_id)
                names = table.select(["language", "source", "origin_file"]).to_pydict()
                own = id_words(table["id"])
                cluster = id_words(pc.coalesce(table["cluster_id"], table["id"]))  # null: its own
                num_tokens, num_bytes = np.diff(bounds) + 1, np.diff(offsets)
                writer.add(
                    ids,
                    num_tokens=num_tokens,
                    text_bytes=num_bytes,
                    placement=keyed_hash(own, arguments.seed, "placement"),
                    validation=keyed_hash(cluster, arguments.seed, "validation"),
                    languages=names["language"],
                    sources=names["source"],
                    origin_files=names["origin_file"],
                    origin_offsets=table["origin_offset"].to_numpy(),
                    cluster_sizes=table["cluster_size"].to_numpy(),
                )
                keys = list(zip(names["source"], names["language"], strict=True))
                documents.update(keys)
                _add(tokens, keys, num_tokens.tolist())
                _add(text_bytes, keys, num_bytes.tolist())
                advance(int(sizes.sum()))
        writer.finish()
    outputs = [*writer.outputs]
    if dropped:
        outputs.append(_write_dropped(output / "rejected" / f"{unit}.tokenize.jsonl", dropped))
    rows = [[*key, documents[key], tokens[key], text_bytes[key]] for key in sorted(documents)]
    return UnitResult(
        counts={"rows": rows, "dropped": _dropped_rows(dropped)}, outputs=tuple(outputs)
    )


def _add(
    sums: Counter[tuple[str, str]], keys: list[tuple[str, str]], values: Iterable[int]
) -> None:
    """Add a value for each (source, language)."""
    for key, value in zip(keys, values, strict=True):
        sums[key] += value


def _slices(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a batch into consecutive parts of about `_SLICE_BYTES` of text."""
    _, offsets = text_arrays(table["text"])
    first = 0
    while first < table.num_rows:
        last = int(np.searchsorted(offsets, offsets[first] + _SLICE_BYTES, side="right")) - 1
        last = min(max(last, first + 1), table.num_rows)
        yield table.slice(first, last - first)
        first = last


def _describe(
    table: pa.Table, sizes: NDArray[np.int64], which: NDArray[np.bool_], detail: str
) -> list[dict[str, Any]]:
    columns = ["source", "origin_file", "origin_offset", "language"]
    rows: list[dict[str, Any]] = table.select(columns).filter(pa.array(which)).to_pylist()
    for row, size in zip(rows, sizes[which].tolist(), strict=True):
        row |= {"reason": "too_long", "detail": detail, "text_bytes": size}
    return rows


def _dropped_rows(dropped: list[dict[str, Any]]) -> list[list[Any]]:
    keys = [(row["source"], row["language"]) for row in dropped]
    documents = Counter(keys)
    text_bytes: Counter[tuple[str, str]] = Counter()
    _add(text_bytes, keys, (row["text_bytes"] for row in dropped))
    return [[*key, "too_long", documents[key], text_bytes[key]] for key in sorted(documents)]


def _write_dropped(path: Path, dropped: list[dict[str, Any]]) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in dropped)
    write_atomically(path, "".join(lines).encode())
    return path
