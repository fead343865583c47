"""`gristmill tokenize`: text files in, PREFIX.bin and PREFIX.idx in input order out.

The counterpart of Megatron's `preprocess_data.py`, with its bytes: nothing is cleaned, dropped or
moved. Files are cut into units that workers encode; the parent then joins them in order. A killed
run goes on where it stopped: finished units wait in PREFIX.work, which is removed at the end.
(The module has not the name of its function: importing it would hide the function.)
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..indexed_dataset import IndexedDatasetBuilder, PrefixExistsError
from ..indexed_dataset.atomic import atomic_path, write_atomically
from ..indexed_dataset.paths import prefix_paths, strip_suffix
from .array_files import save_array
from .batches import Piece, ReadBatch
from .config import SourceConfig
from .executors import LocalExecutor, advance
from .progress import Progress
from .sources import SourceFile, find_files
from .stage import Marker, Stage, Unit, UnitResult, run_stage
from .text_column import text_arrays
from .token_runs import BLOCK_TOKENS, token_blocks
from .tokenizer import Tokenizer, open_cached
from .units import ReadUnit, fingerprints, plan_units, read_unit

logger = logging.getLogger(__name__)

VERSION = 1

UNIT_BYTES = 64_000_000
"""Size of one work unit of a plain file; compressed files are one unit."""

MAX_UNIT_PIECES = 1_000

_ROW_DTYPE = np.dtype(
    [("num_tokens", "<i8"), ("text_bytes", "<i8"), ("file", "<i8"), ("offset", "<i8")]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeUnit:
    """One unit's work."""

    unit: ReadUnit
    folder: Path
    tokenizer: str
    eod: str
    num_keys: int
    append_eod: bool
    file_numbers: dict[str, int]


def tokenize_files(
    inputs: Sequence[str],
    output_prefix: str | os.PathLike[str],
    tokenizer: str,
    *,
    json_keys: Sequence[str] = ("text",),
    append_eod: bool = False,
    eod: str = "",
    workers: int = 0,
    overwrite: bool = False,
    unit_bytes: int = UNIT_BYTES,
    progress: Progress | None = None,
) -> list[Path]:
    """Tokenize files straight into indexed datasets; return their prefixes.

    Documents stand in the order of the inputs, and inside a folder or glob in the order of the
    file names. An empty text is a document without tokens (and without EOD), as in Megatron.
    What cannot be read stands in PREFIX.rejected.jsonl, with file and offset; with several keys a
    document that lacks one is left out of all, so that the datasets stay aligned.

    Args:
        inputs: files, folders, globs (.jsonl, .parquet, .arrow, .txt, also .gz and .zst).
        output_prefix: PREFIX; one key is written to PREFIX, several to PREFIX_KEY each.
        tokenizer: a tokenizer.json, a folder that holds one, or a hub id.
        json_keys: fields or columns to tokenize. Of the second and later ones, values that are
            not strings are tokenized as JSON.
        append_eod: end each document with the end-of-document token.
        eod: that token; empty: the tokenizer's own.
        workers: processes; 0: one for each usable CPU. Changes no byte.
        overwrite: replace prefixes that exist.
        unit_bytes: size of one work unit. Changes no byte.
        progress: what the user sees.

    Raises:
        PrefixExistsError: a prefix exists and `overwrite` is false; nothing was done.
        FileNotFoundError, ValueError: the inputs or the tokenizer cannot be used.
    """
    base = strip_suffix(output_prefix)
    keys = tuple(dict.fromkeys(json_keys))
    if not keys:
        raise ValueError("no JSON key to tokenize: name at least one, text is usual")
    prefixes = [Path(base if len(keys) == 1 else f"{base}_{key}") for key in keys]
    _refuse_existing(prefixes, overwrite)
    engine = Tokenizer(tokenizer, eod=eod)
    if append_eod:
        eod = engine.eod or ""
        _ = engine.eod_id  # an unknown EOD is an error now
    files = _files_in_order(inputs, keys)
    work = Path(f"{base}.work")
    stage = Stage(
        name="tokenize_files",
        version=VERSION,
        settings={"append_eod": append_eod, "eod": eod, "json_keys": keys},
        function=encode_unit,
    )
    numbers = {file.path: number for number, file in enumerate(files)}
    units = [
        Unit(
            name=unit.name,
            arguments=EncodeUnit(
                unit=unit,
                folder=work / "units",
                tokenizer=tokenizer,
                eod=eod,
                num_keys=len(keys),
                append_eod=append_eod,
                file_numbers={piece.file.path: numbers[piece.file.path] for piece in unit.pieces},
            ),
            inputs=(
                engine.fingerprint,
                *fingerprints(unit),
                *(str(numbers[piece.file.path]) for piece in unit.pieces),
            ),
            size_bytes=unit.size_bytes,
        )
        for unit in _plan(files, unit_bytes)
    ]
    with LocalExecutor(workers) as executor:
        markers = run_stage(stage, units, work, executor, progress or Progress())
    if not any(marker.counts["documents"] for marker in markers.values()):
        _report(base, work, markers)
        shutil.rmtree(work)
        raise ValueError(
            f"{', '.join(inputs)}: no document has the key{'s' * (len(keys) > 1)} "
            f"{', '.join(keys)}, so nothing was written. Name the right --json-keys, or see "
            f"{base}.rejected.jsonl if it exists"
        )
    for number, prefix in enumerate(prefixes):
        _join(
            prefix, work, markers, number, engine, overwrite,
            eod_id=engine.eod_id if append_eod else None,
            origin_files=[file.origin_file for file in files],
            config={"append_eod": append_eod, "json_key": keys[number]},
        )  # fmt: skip
    _report(base, work, markers)
    shutil.rmtree(work)
    return prefixes


def encode_unit(arguments: EncodeUnit) -> UnitResult:
    """Encode the documents of one unit, in order: for each key one .bin and one .npy."""
    name, folder = arguments.unit.name, arguments.folder
    tokenizer = open_cached(arguments.tokenizer, arguments.eod)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[list[NDArray[Any]]] = [[] for _ in range(arguments.num_keys)]
    rejected: list[dict[str, Any]] = []
    notices: list[str] = []
    outputs = [folder / f"{name}.{key}.bin" for key in range(arguments.num_keys)]
    num_documents = 0
    with _open_all(outputs) as streams:
        for file, batch in read_unit(arguments.unit):
            notices += batch.notices
            number = arguments.file_numbers[file.path]
            columns, offsets, dropped = _columns(batch, file, arguments.num_keys, tokenizer)
            rejected += dropped
            num_documents += len(offsets)
            for key, column in enumerate(columns):
                tokens, row = _encode(tokenizer, column, arguments.append_eod)
                row["file"], row["offset"] = number, offsets
                streams[key].write(tokens.data)
                rows[key].append(row)
            advance(batch.input_bytes)
    for key, parts in enumerate(rows):
        path = folder / f"{name}.{key}.npy"
        save_array(path, np.concatenate([np.zeros(0, _ROW_DTYPE), *parts]))
        outputs.append(path)
    path = folder / f"{name}.rejected.jsonl"
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rejected)
    write_atomically(path, "".join(lines).encode())
    outputs.append(path)
    counts = {"documents": num_documents, "rejected": len(rejected), "notices": notices}
    return UnitResult(counts=counts, outputs=tuple(outputs))


def _columns(
    batch: ReadBatch, file: SourceFile, num_keys: int, tokenizer: Tokenizer
) -> tuple[list[pa.Array], NDArray[np.int64], list[dict[str, Any]]]:
    """Return the text columns of a batch's good documents, their offsets, and the others."""
    documents = batch.documents
    # By place, not by name (see batches.read_schema): a carried column may be called `text` too.
    texts = [documents.column(1)]
    texts += [documents.column(4 + n).cast(pa.large_string()) for n in range(num_keys - 1)]
    offsets = documents.column(3).to_numpy()
    rejected = [(one.origin_offset, one.reason, one.detail) for one in batch.rejected]
    good = np.ones(len(offsets), np.bool_)
    for name, column in zip(file.source.columns, texts[1:], strict=True):
        missing = column.is_null().to_numpy(zero_copy_only=False)
        detail = f"no key {name!r}, or it is null"
        rejected += [(offset, "missing_text", detail) for offset in offsets[missing & good]]
        good &= ~missing
    for column in texts:
        refused = tokenizer.too_long(*text_arrays(pc.fill_null(column, "")))
        detail = tokenizer.too_long_detail()
        rejected += [(offset, "too_long", detail) for offset in offsets[refused & good]]
        good &= ~refused
    if not good.all():
        texts, offsets = [column.filter(pa.array(good)) for column in texts], offsets[good]
    rows = [
        {
            "origin_file": file.origin_file,
            "origin_offset": int(offset),
            "reason": reason,
            "detail": detail,
        }
        for offset, reason, detail in sorted(rejected)
    ]
    return texts, offsets, rows


def _encode(
    tokenizer: Tokenizer, column: pa.Array, append_eod: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the tokens of a column's texts and their rows, file and offset not yet filled in."""
    data, offsets = text_arrays(column)
    tokens: NDArray[Any]
    tokens, bounds = tokenizer.encode(data, offsets)
    rows = np.zeros(len(column), _ROW_DTYPE)
    rows["num_tokens"], rows["text_bytes"] = np.diff(bounds), np.diff(offsets)
    if append_eod:
        filled = rows["num_tokens"] > 0  # Megatron gives an empty document no EOD
        tokens = np.insert(tokens, bounds[1:][filled], tokenizer.eod_id)
        rows["num_tokens"] += filled
    return tokens, rows


def _join(
    prefix: Path,
    work: Path,
    markers: Mapping[str, Marker],
    key: int,
    tokenizer: Tokenizer,
    overwrite: bool,
    *,
    eod_id: int | None,
    origin_files: list[str],
    config: dict[str, Any],
) -> None:
    """Write one prefix from the units' files, in order."""
    builder = IndexedDatasetBuilder(
        prefix, vocab_size=tokenizer.vocab_size, overwrite=overwrite, empty_documents="no_sequence"
    )
    text_bytes = 0
    with builder:
        for unit in markers:
            rows = np.load(work / "units" / f"{unit}.{key}.npy")
            text_bytes += int(rows["text_bytes"].sum())
            with open(work / "units" / f"{unit}.{key}.bin", "rb") as stream:
                for first, last in token_blocks(rows["num_tokens"], BLOCK_TOKENS):
                    block = rows[first:last]
                    tokens = np.fromfile(stream, tokenizer.dtype, int(block["num_tokens"].sum()))
                    origins = np.stack([block["file"], block["offset"]], axis=1)
                    builder.add_documents(tokens, block["num_tokens"], origins=origins)
        builder.finalize(
            text_bytes=text_bytes,
            eod_id=eod_id,
            tokenizer={"fingerprint": tokenizer.fingerprint},
            document_order="input",
            origin_files=origin_files,
            config=config,
            stages={"tokenize_files": VERSION},
        )


def _report(base: str, work: Path, markers: Mapping[str, Marker]) -> None:
    """Write PREFIX.rejected.jsonl if anything was rejected, and tell the user."""
    path = Path(f"{base}.rejected.jsonl")
    num_rejected = sum(marker.counts["rejected"] for marker in markers.values())
    num_documents = sum(marker.counts["documents"] for marker in markers.values())
    for marker in markers.values():
        for notice in marker.counts["notices"]:
            logger.warning("%s", notice)
    if num_rejected == 0:
        path.unlink(missing_ok=True)  # of an earlier run with the same prefix
    else:
        with atomic_path(path) as temporary, temporary.open("wb") as target:
            for unit in markers:
                target.write((work / "units" / f"{unit}.rejected.jsonl").read_bytes())
        logger.warning("%d documents were rejected: %s says which and why", num_rejected, path)
    logger.info("%d documents were tokenized into %s", num_documents, base)


def _refuse_existing(prefixes: Sequence[Path], overwrite: bool) -> None:
    for prefix in prefixes:
        if prefix_paths(prefix).idx.exists() and not overwrite:
            raise PrefixExistsError(
                f"the dataset {prefix} exists already, and nothing was done. Choose another "
                "prefix, remove its files, or allow overwriting (--overwrite)"
            )


def _files_in_order(inputs: Sequence[str], keys: Sequence[str]) -> list[SourceFile]:
    """Return the files of all inputs, in their order, each once and with a name of its own."""
    found: dict[str, SourceFile] = {}
    for path in inputs:
        for file in find_files([SourceConfig(path=path, text_key=keys[0], language_keys=())]):
            if file.path in found:
                logger.warning("%s is named twice: it is read once", file.path)
            # The keys are given past the check of SourceConfig.columns, which may not be `text`.
            source = replace(file.source, columns=tuple(keys[1:]))
            found.setdefault(file.path, replace(file, source=source))
    files = list(found.values())
    if len({file.origin_file for file in files}) < len(files):
        common = os.path.commonpath([file.path for file in files])
        files = [
            replace(file, origin_file=os.path.relpath(file.path, common).replace(os.sep, "/"))
            for file in files
        ]
    return files


def _plan(files: Sequence[SourceFile], unit_bytes: int) -> list[ReadUnit]:
    """Return units that read the files in their order: parts of large ones, several small ones."""
    pieces: list[list[Piece]] = []
    size = 0
    for file in files:
        for unit in plan_units([file], unit_bytes):
            is_full = size + unit.size_bytes > unit_bytes or (
                pieces and len(pieces[-1]) >= MAX_UNIT_PIECES
            )
            if not pieces or is_full:
                pieces.append([])
                size = 0
            pieces[-1] += unit.pieces
            size += unit.size_bytes
    return [
        ReadUnit(name=f"{number:06d}", pieces=tuple(group)) for number, group in enumerate(pieces)
    ]


@contextlib.contextmanager
def _open_all(paths: Sequence[Path]) -> Iterator[list[IO[bytes]]]:
    """Open files that appear when the block ends well."""
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(atomic_path(path)) for path in paths]
        yield [stack.enter_context(path.open("wb")) for path in temporary]
