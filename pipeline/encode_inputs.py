"""Pieces of input files in, tasks for threads out; and a task in, its documents' tokens out.

A task is about `TASK_BYTES` of input: whole small pieces, which the thread reads itself, or
consecutive blocks of a large one, which are read (and decompressed) while the tasks are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .batches import BatchBuilder, Piece, ReadBatch, join_batches
from .executors import UnitError
from .jsonl import JsonBlockReader, jsonl_blocks
from .lines import LineBlock
from .sources import SourceFile
from .text_column import text_arrays
from .token_journal import EncodedKey
from .tokenizer import Tokenizer
from .units import read

TASK_BYTES = 4 << 20
"""Input of one task; a compressed piece below a quarter of it is read where it is encoded."""

Block = LineBlock | ReadBatch


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Input that one thread encodes."""

    pieces: tuple[Piece, ...]
    """Whole pieces; or one, of which `blocks` are a part."""
    blocks: tuple[Block, ...] | None
    position: tuple[int, int]
    """Where the next task begins: (piece, blocks of it)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """What became of a task."""

    keys: list[EncodedKey]
    origins: NDArray[np.int64]
    """int64[num_documents, 2]: number of the file, and offset."""
    rejected: list[dict[str, Any]]
    notices: tuple[str, ...]
    input_bytes: int
    position: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How documents become tokens."""

    tokenizer: Tokenizer
    num_keys: int
    file_numbers: dict[str, int]
    before: int | None
    """Id put before each document that is not empty."""
    after: int | None
    """Id put behind each document that is not empty."""
    add_special_tokens: bool
    threads: int
    """What one huge document may use."""


def plan_tasks(pieces: Sequence[Piece], start: tuple[int, int] = (0, 0)) -> Iterator[Task]:
    """Yield the tasks that read the pieces from `start` on, in order."""
    small: list[Piece] = []
    size = 0
    for number, piece in enumerate(pieces):
        if number < start[0]:
            continue
        skip = start[1] if number == start[0] else 0
        if skip == 0 and _weight(piece) <= TASK_BYTES:
            small.append(piece)
            size += _weight(piece)
            if size >= TASK_BYTES:
                yield Task(pieces=tuple(small), blocks=None, position=(number + 1, 0))
                small, size = [], 0
            continue
        if small:
            yield Task(pieces=tuple(small), blocks=None, position=(number, 0))
            small, size = [], 0
        yield from _large(number, piece, skip)
    if small:
        yield Task(pieces=tuple(small), blocks=None, position=(len(pieces), 0))


def _weight(piece: Piece) -> int:
    """Return about how much text a piece has."""
    is_packed = piece.file.compression or piece.file.format == "parquet"
    return piece.size_bytes * (4 if is_packed else 1)


def _large(number: int, piece: Piece, skip: int) -> Iterator[Task]:
    """Yield a large piece in tasks, but for its first `skip` blocks."""
    blocks: list[Block] = []
    size = count = 0
    for block in _blocks(piece):
        count += 1
        if count <= skip:
            continue
        blocks.append(block)
        size += len(block.data) if isinstance(block, LineBlock) else block.documents.nbytes
        if size >= TASK_BYTES:
            yield Task(pieces=(piece,), blocks=tuple(blocks), position=(number, count))
            blocks, size = [], 0
    yield Task(pieces=(piece,), blocks=tuple(blocks), position=(number + 1, 0))


def _blocks(piece: Piece) -> Iterator[Block]:
    if piece.file.format == "jsonl" and piece.file.size_bytes:
        yield from jsonl_blocks(piece)
    else:
        yield from read(piece)


def encode_task(task: Task, encoding: Encoding) -> Encoded:
    """Read and encode one task.

    Raises:
        UnitError: names the file and what went wrong.
    """
    parts: list[tuple[SourceFile, ReadBatch]] = []
    for piece in task.pieces:
        try:
            batches = _read(piece, _blocks(piece) if task.blocks is None else task.blocks)
            parts.append((piece.file, batches))
        except Exception as error:
            raise UnitError(f"{piece.file.path}: {type(error).__name__}: {error}") from error
    columns: list[list[pa.Array]] = [[] for _ in range(encoding.num_keys)]
    origins, rejected = [np.zeros((0, 2), np.int64)], []
    for file, batch in parts:
        texts, offsets, dropped = _columns(batch, file, encoding)
        for key, text in enumerate(texts):
            columns[key].append(text)
        number = np.full(len(offsets), encoding.file_numbers[file.path])
        origins.append(np.stack([number, offsets], axis=1))
        rejected += dropped
    try:
        keys = [_encode(pa.chunked_array(c, pa.large_string()), encoding) for c in columns]
    except Exception as error:
        where = ", ".join(dict.fromkeys(file.path for file, _ in parts))
        raise UnitError(f"{where}: {type(error).__name__}: {error}") from error
    return Encoded(
        keys=keys,
        origins=np.concatenate(origins),
        rejected=rejected,
        notices=tuple(notice for _, batch in parts for notice in batch.notices),
        input_bytes=sum(batch.input_bytes for _, batch in parts),
        position=task.position,
    )


def _read(piece: Piece, blocks: Any) -> ReadBatch:
    reader = JsonBlockReader(piece) if piece.file.format == "jsonl" else None
    batches = []
    for block in blocks:
        if isinstance(block, LineBlock):
            assert reader is not None
            block = reader.read(block)
        batches.append(block)
    return join_batches(batches or [BatchBuilder(piece.file.source.columns).take()])


def _columns(
    batch: ReadBatch, file: SourceFile, encoding: Encoding
) -> tuple[list[pa.Array], NDArray[np.int64], list[dict[str, Any]]]:
    """Return the text columns of a batch's good documents, their offsets, and the others."""
    documents = batch.documents
    # By place, not by name (see batches.read_schema): a carried column may be called `text` too.
    texts = [documents.column(1)]
    texts += [documents.column(4 + n).cast(pa.large_string()) for n in range(encoding.num_keys - 1)]
    offsets = documents.column(3).to_numpy()
    rejected = [(one.origin_offset, one.reason, one.detail) for one in batch.rejected]
    good = np.ones(len(offsets), np.bool_)
    for name, column in zip(file.source.columns, texts[1:], strict=True):
        missing = column.is_null().to_numpy(zero_copy_only=False)
        detail = f"no key {name!r}, or it is null"
        rejected += [(offset, "missing_text", detail) for offset in offsets[missing & good]]
        good &= ~missing
    for column in texts:
        refused = encoding.tokenizer.too_long(*text_arrays(pc.fill_null(column, "")))
        detail = encoding.tokenizer.too_long_detail()
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


def _encode(column: pa.ChunkedArray, encoding: Encoding) -> EncodedKey:
    """Return the tokens of a column's texts."""
    tokenizer = encoding.tokenizer
    data, offsets = text_arrays(column)
    tokens: NDArray[Any]
    tokens, bounds = tokenizer.encode(data, offsets, encoding.add_special_tokens)
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < tokenizer.vocab_size:
        raise ValueError(
            f"an id is outside of the tokenizer's vocabulary of {tokenizer.vocab_size}: this is an "
            "error in gristmill, not in the input"
        )
    lengths = np.diff(bounds)
    for token, is_after in ((encoding.before, False), (encoding.after, True)):
        if token is not None:
            tokens, lengths = _surround(tokens, lengths, token, is_after)
    return EncodedKey(
        tokens=tokens,
        lengths=lengths.astype(np.int32),
        text_bytes=int(offsets[-1] - offsets[0]),
        max_token_id=int(tokens.max()) if len(tokens) else None,
    )


def _surround(
    tokens: NDArray[Any], lengths: NDArray[np.int64], token: int, is_after: bool
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Put a token before or behind each document that has tokens: Megatron gives others no EOD."""
    is_filled = lengths > 0
    ends = np.cumsum(lengths)
    places = (ends if is_after else ends - lengths)[is_filled]
    places += np.arange(len(places))
    result = np.empty(len(tokens) + len(places), tokens.dtype)
    is_text = np.ones(len(result), np.bool_)
    is_text[places] = False
    result[places] = token
    result[is_text] = tokens
    return result, lengths + is_filled
