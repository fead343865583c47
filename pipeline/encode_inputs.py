"""Pieces of input files in, tasks for threads out; and a task in, its documents' tokens out.

A task is about `TASK_BYTES` of input: whole small pieces, which the thread reads itself, or
consecutive blocks of a large one, which are read (and decompressed) while the tasks are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..kernels import surround_documents
from .batches import Piece, ReadBatch
from .executors import UnitError
from .jsonl import JsonBlockReader, jsonl_blocks
from .lines import LineBlock
from .sources import SourceFile
from .special_strings import SpecialStrings
from .text_column import text_arrays
from .token_journal import EncodedKey, EncodedPart
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

    parts: list[EncodedPart]
    rejected: list[dict[str, Any]]
    notices: list[str]
    special: Counter[str]
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
    special: SpecialStrings
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
    result = Encoded(
        parts=[], rejected=[], notices=[], special=Counter(), input_bytes=0, position=task.position
    )
    num_input = 0
    for piece in task.pieces:
        try:
            for batch in _read(piece, _blocks(piece) if task.blocks is None else task.blocks):
                texts, offsets, dropped = _columns(batch, piece.file, encoding)
                number = np.full(len(offsets), encoding.file_numbers[piece.file.path])
                keys = [_encode(text, encoding, result.special) for text in texts]
                origins = np.stack([number, offsets], axis=1)
                result.parts.append(EncodedPart(keys=keys, origins=origins))
                result.rejected.extend(dropped)
                result.notices.extend(batch.notices)
                num_input += batch.input_bytes
        except Exception as error:
            raise UnitError(f"{piece.file.path}: {type(error).__name__}: {error}") from error
    return replace(result, input_bytes=num_input)


def _read(piece: Piece, blocks: Iterable[Block]) -> Iterator[ReadBatch]:
    reader = JsonBlockReader(piece) if piece.file.format == "jsonl" else None
    for block in blocks:
        if isinstance(block, ReadBatch):
            yield block
        else:
            assert reader is not None
            yield reader.read(block)


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
        full = pc.fill_null(column, "") if column.null_count else column
        refused = encoding.tokenizer.too_long(*text_arrays(full))
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


def _encode(column: pa.Array, encoding: Encoding, special: Counter[str]) -> EncodedKey:
    """Return the tokens of a column's texts, and count the special ones among them."""
    tokenizer = encoding.tokenizer
    data, offsets = text_arrays(column)
    tokens: NDArray[Any]
    num_bytes = int(offsets[-1] - offsets[0])
    tokens, bounds = tokenizer.encode(
        data,
        offsets,
        encoding.add_special_tokens,
        threads=encoding.threads if num_bytes >= 4 * TASK_BYTES else 1,
        is_utf8=True,
    )
    low, high = (int(tokens.min()), int(tokens.max())) if len(tokens) else (0, 0)
    if not 0 <= low <= high < tokenizer.vocab_size:
        raise ValueError(
            f"an id is outside of the tokenizer's vocabulary of {tokenizer.vocab_size}: this is an "
            "error in gristmill, not in the input"
        )
    special.update(encoding.special.count(tokens, low, high, num_documents=len(offsets) - 1))
    lengths = np.diff(bounds)
    if encoding.before is not None or encoding.after is not None:
        before, after = (-1 if id is None else id for id in (encoding.before, encoding.after))
        tokens, lengths = surround_documents(tokens, lengths, before, after)
    is_empty = len(tokens) == 0
    added = [id for id in (encoding.before, encoding.after) if id is not None]
    return EncodedKey(
        tokens=tokens,
        lengths=lengths.astype(np.int32),
        text_bytes=num_bytes,
        max_token_id=None if is_empty else max(high, *added) if added else high,
    )
