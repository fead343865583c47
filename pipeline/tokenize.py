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

from ..indexed_dataset.atomic import write_atomically
from .config import PreprocessConfig
from .conversation_tokens import ConversationEncoder
from .document_tokens import Dropped, Encoder, TextEncoder
from .documents import REASONS
from .executors import Executor, advance
from .kept_documents import read_kept
from .passage_cuts import Cuts, apply_cuts
from .placement import keyed_hash
from .progress import Progress
from .special_strings import describe_special
from .stage import Marker, Stage, Unit, UnitResult, run_stage
from .text_column import id_words, text_arrays
from .token_runs import RunWriter
from .tokenizer import SpecialStrings as SpecialStringsMode
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
    special_strings: SpecialStringsMode
    seed: int
    cuts: Path | None = None
    """Ranges of the unit's texts that are left out (`passages`)."""
    max_tokens: int | None = None
    """Of conversations: longer ones are dropped (0: none is). None: the documents are texts."""


def run(
    config: PreprocessConfig,
    output: Path,
    verdict_markers: Mapping[str, Marker],
    tokenizer: TokenizerResult,
    executor: Executor,
    progress: Progress,
    cuts: Mapping[str, Marker] | None = None,
) -> dict[str, Marker]:
    """Tokenize the kept documents of every unit, without what `passages` cuts from them.

    Counts of a marker: `rows` [source, language, documents, tokens, text_bytes] of what was
    tokenized, `cut` [source, language, documents, bytes] of repeated passages left out of it, and
    `dropped` [source, language, reason, documents, text_bytes]; each document dropped here also
    stands in rejected/<unit>.tokenize.jsonl. `special` counts the special tokens that texts
    spelled out, `targets` [source, language, tokens] those that a loss mask counts.
    """
    stage, units = plan(config, output, verdict_markers, tokenizer, cuts)
    markers = run_stage(stage, units, output, executor, progress)
    _tell(config, markers)
    return markers


def plan(
    config: PreprocessConfig,
    output: Path,
    verdict_markers: Mapping[str, Marker],
    tokenizer: TokenizerResult,
    cuts: Mapping[str, Marker] | None = None,
) -> tuple[Stage, list[Unit]]:
    """Return the stage and its units, for `run`, and to `restore` the runs' tokens."""
    cuts = cuts or {}
    max_tokens = None if config.kind == "text" else config.chat.max_tokens
    stage = Stage(
        name="tokenize",
        version=VERSION,
        settings={
            "seed": config.pack.seed,
            "eod": tokenizer.eod,
            "special_strings": config.tokenizer.special_strings,
            **({} if max_tokens is None else {"max_tokens": max_tokens}),
        },
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
                special_strings=config.tokenizer.special_strings,
                seed=config.pack.seed,
                cuts=output / "cuts" / f"{name}.parquet" if name in cuts else None,
                max_tokens=max_tokens,
            ),
            inputs=(
                marker.fingerprint,
                tokenizer.fingerprint,
                *(cuts[name].fingerprint for name in [name] if name in cuts),
            ),
            size_bytes=sum(row[4] for row in marker.counts["rows"] if row[2] == "kept"),
        )
        for name, marker in verdict_markers.items()
    ]
    return stage, units


def _tell(config: PreprocessConfig, markers: Mapping[str, Marker]) -> None:
    """Log which documents were dropped, and which special tokens the texts spell out."""
    dropped: Counter[str] = Counter()
    for marker in markers.values():
        for _, _, reason, count, _ in marker.counts["dropped"]:
            dropped[reason] += count
    for reason, count in sorted(dropped.items()):
        logger.warning(
            "%d documents that verdicts/ calls kept were dropped as %s (%s): "
            "rejected/*.tokenize.jsonl names them",
            count,
            reason,
            REASONS[reason],
        )
    special: Counter[str] = Counter()
    for marker in markers.values():
        special.update(marker.counts["special"])
    if special and config.kind != "text":
        became = {"as_text": "are encoded as text", "as_tokens": "became those tokens"}
        logger.warning(
            "control tokens that conversations spell out %s: %s (chat.special_strings)",
            became[config.chat.special_strings],
            describe_special(special),
        )
    elif special:
        logger.warning(
            "special tokens that texts spell out became those tokens: %s. With "
            'tokenizer.special_strings = "as_text" they are encoded as any other text',
            describe_special(special),
        )


def tokenize_unit(arguments: TokenizeArguments) -> UnitResult:
    """Encode the kept documents of one unit and write them as a sorted run."""
    output, unit = arguments.output, arguments.unit
    tokenizer = open_cached(str(arguments.tokenizer), arguments.eod, arguments.special_strings)
    encode: Encoder = TextEncoder(tokenizer)
    if arguments.max_tokens is not None:
        encode = ConversationEncoder(tokenizer, arguments.max_tokens)
    special: Counter[str] = Counter()
    documents: Counter[tuple[str, str]] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    targets: Counter[tuple[str, str]] = Counter()
    text_bytes: Counter[tuple[str, str]] = Counter()
    cut_documents: Counter[tuple[str, str]] = Counter()
    cut_bytes: Counter[tuple[str, str]] = Counter()
    dropped: list[dict[str, Any]] = []
    cuts = Cuts.load(arguments.cuts) if arguments.cuts else None
    path = output / "work" / "runs" / unit
    has_mask = arguments.max_tokens is not None
    with RunWriter(path, tokenizer.dtype, has_mask=has_mask) as writer:
        batches = read_kept(
            output / "documents" / f"{unit}.parquet",
            output / "verdicts" / f"{unit}.parquet",
            [*_COLUMNS, *encode.columns],
        )
        for batch in batches:
            whole, lost = batch.table, np.zeros(batch.table.num_rows, np.int64)
            if cuts is not None:
                whole, lost = apply_cuts(whole, batch.rows, cuts)
            whole = whole.append_column("lost", pa.array(lost))
            whole = whole.append_column("cluster_id", batch.cluster_ids)
            whole = whole.append_column("cluster_size", pa.array(batch.cluster_sizes))
            for part in _slices(whole):
                encoded = encode(part)
                table, num_tokens = encoded.table, encoded.num_tokens
                for one in encoded.dropped:
                    dropped += _describe(part, one)
                special += encoded.special
                names = table.select(["language", "source", "origin_file"]).to_pydict()
                own = id_words(table["id"])
                if has_mask:  # what shares a prompt, or a context, is on one side
                    cluster = id_words(table["together_id"])
                else:
                    # A document without a cluster is one by itself.
                    cluster = id_words(pc.coalesce(table["cluster_id"], table["id"]))
                num_bytes = np.diff(text_arrays(table["text"])[1])
                writer.add(
                    encoded.ids,
                    num_tokens=num_tokens,
                    text_bytes=num_bytes,
                    placement=keyed_hash(own, arguments.seed, "placement"),
                    validation=keyed_hash(cluster, arguments.seed, "validation"),
                    languages=names["language"],
                    sources=names["source"],
                    origin_files=names["origin_file"],
                    origin_offsets=table["origin_offset"].to_numpy(),
                    cluster_sizes=table["cluster_size"].to_numpy(),
                    loss_mask=encoded.loss_mask,
                )
                keys = list(zip(names["source"], names["language"], strict=True))
                documents.update(keys)
                _add(tokens, keys, num_tokens.tolist())
                _add(text_bytes, keys, num_bytes.tolist())
                if encoded.loss_mask is not None and len(keys):
                    starts = np.cumsum(num_tokens) - num_tokens
                    sums = np.add.reduceat(encoded.loss_mask.astype(np.int64), starts)
                    _add(targets, keys, sums.tolist())
                losses = table["lost"].to_pylist()
                cut_documents.update(key for key, loss in zip(keys, losses, strict=True) if loss)
                _add(cut_bytes, keys, losses)
                advance(int(np.diff(text_arrays(part["text"])[1]).sum()))
        writer.finish()
    outputs = [*writer.index_files]
    if dropped:
        outputs.append(_write_dropped(output / "rejected" / f"{unit}.tokenize.jsonl", dropped))
    rows = [[*key, documents[key], tokens[key], text_bytes[key]] for key in sorted(documents)]
    cut = [[*key, cut_documents[key], cut_bytes[key]] for key in sorted(cut_documents)]
    counts = {
        "rows": rows,
        "dropped": _dropped_rows(dropped),
        "cut": cut,
        "special": dict(sorted(special.items())),
    }
    if has_mask:
        counts["targets"] = [[*key, targets[key]] for key in sorted(targets)]
    return UnitResult(counts=counts, outputs=tuple(outputs), scratch=writer.token_files)


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


def _describe(table: pa.Table, dropped: Dropped) -> list[dict[str, Any]]:
    """Return what a reject file says of some documents; their size is that before any cut."""
    columns = ["id", "source", "origin_file", "origin_offset", "language"]
    sizes = np.diff(text_arrays(table["text"])[1]) + table["lost"].to_numpy()
    rows: list[dict[str, Any]] = table.select(columns).filter(pa.array(dropped.which)).to_pylist()
    found = zip(rows, sizes[dropped.which].tolist(), dropped.details, strict=True)
    for row, size, detail in found:
        row["id"] = row["id"].hex()
        row |= {"reason": dropped.reason, "detail": detail, "text_bytes": size}
    return rows


def _dropped_rows(dropped: list[dict[str, Any]]) -> list[list[Any]]:
    documents: Counter[tuple[str, str, str]] = Counter()
    text_bytes: Counter[tuple[str, str, str]] = Counter()
    for row in dropped:
        key = row["source"], row["language"], row["reason"]
        documents[key] += 1
        text_bytes[key] += row["text_bytes"]
    return [[*key, documents[key], text_bytes[key]] for key in sorted(documents)]


def _write_dropped(path: Path, dropped: list[dict[str, Any]]) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in dropped)
    write_atomically(path, "".join(lines).encode())
    return path
