"""A run that is about to begin in; nothing, or why it would not fit on this machine, out.

Most runs have room for many times their size, which the sizes of the input files tell. Only where
they do not is a sample run through the stages, as `--plan` does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from .dedup_components import components_memory
from .plan_needs import Needs, Room, refuse_memory, worker_memory
from .progress import size_text
from .units import ReadUnit

logger = logging.getLogger(__name__)

COMPRESSED = 8
"""Bytes of text in a byte of a compressed file or a column file, at most."""

DISK_A_TEXT_BYTE = 8
"""Bytes of disk for a byte of text, at most: half of it for documents and dedup even where these
are short, the rest for tokens of four bytes, twice."""

DOCUMENT_BYTES = 100
"""Text of one document, at least, on average."""


def refuse_without_space(
    units: Sequence[ReadUnit],
    output: Path,
    workers: int,
    estimate: Callable[[], Needs | None],
    learnt_bytes: int = 0,
) -> None:
    """Do nothing if the run has room.

    Args:
        units: what is read.
        output: where it writes; files of an earlier call there count as its own.
        workers: processes on this machine; 0: they are elsewhere.
        estimate: says what it needs, by a sample; called where sizes alone do not tell.
        learnt_bytes: text that a tokenizer is trained on, at most.

    Raises:
        NoRoomError: it has not.
    """
    texts = [_text_bytes(unit) for unit in units]
    if not sum(texts):
        return  # streams: nobody knows
    room = Room.of(output)
    if workers:
        busy = min(workers, len(units))
        refuse_memory(worker_memory(max(texts), min(learnt_bytes, sum(texts))), busy, room)
    memory = components_memory(sum(texts) // DOCUMENT_BYTES)
    is_enough = room.memory_bytes is None or not workers or memory <= room.memory_bytes
    if is_enough and DISK_A_TEXT_BYTE * sum(texts) <= room.disk_bytes:
        return
    logger.info(
        "the input is large beside the %s of disk here: looking by a sample whether the run fits "
        "(--no-check-space leaves that out)",
        size_text(room.disk_bytes),
    )
    try:
        needs = estimate()
    except ValueError as error:
        logger.warning("whether the run fits cannot be told by a sample: %s", error)
        return
    if needs is not None:
        needs.refuse_without(room, output)


def _text_bytes(unit: ReadUnit) -> int:
    """Return the text of a unit, at most."""
    return sum(
        piece.size_bytes
        * (COMPRESSED if piece.file.compression or piece.file.format in ("parquet", "arrow") else 1)
        for piece in unit.pieces
    )
