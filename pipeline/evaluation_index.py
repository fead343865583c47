"""Rows of evaluation data in; the hashes that documents are searched for, in files, out.

```
work/evaluations/
  windows.npy    uint64[n]     hashes of all windows of `words`, ascending, each once
  bounds.npy     int64[n + 1]  entries of each window in entries.npy
  entries.npy    ENTRY[e]      where a window stands: the first KEPT_ROWS rows that have it
  anchors.npy    uint64[m]     hash of the last tokens of each shorter text, ascending
  wholes.npy     uint64[m]     hash of all tokens of it
  shorts.npy     ENTRY[m]      where it stands
  rows.npy       ROW[r]        file, number in it, and tokens of each row
```
All of it is mapped by the processes that search, which share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import kernels
from ..kernels.folding import TOKEN_WEIGHTS, WORD
from .array_files import save_array
from .config import CleanConfig
from .evaluation_files import EvaluationFile, read_rows
from .executors import advance
from .normalize import clean_text
from .stage import UnitResult
from .text_column import text_arrays

ENTRY = np.dtype([("row", "<i4"), ("last", "<i4"), ("length", "<i4")])
"""A run of tokens of a row: number in rows.npy, last token, how many tokens."""

ROW = np.dtype([("file", "<i4"), ("number", "<i8"), ("tokens", "<i8")])

KEPT_ROWS = 8
"""Places of one window that are kept: a passage that more rows share is reported of these."""

CHUNK_CHARACTERS = 4_000_000
"""Text that is hashed at once."""

FILES = ("windows", "bounds", "entries", "anchors", "wholes", "shorts", "rows")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexArguments:
    """The work of the one unit of the stage."""

    files: tuple[EvaluationFile, ...]
    words: int
    short_words: int
    clean: CleanConfig
    """Texts get the form that documents have."""
    index: Path
    """The folder to write to."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationIndex:
    """What `write_index` wrote, mapped."""

    windows: NDArray[np.uint64]
    bounds: NDArray[np.int64]
    entries: NDArray[np.void]
    anchors: NDArray[np.uint64]
    wholes: NDArray[np.uint64]
    shorts: NDArray[np.void]
    rows: NDArray[np.void]

    @classmethod
    def load(cls, folder: Path) -> EvaluationIndex:
        """Open the files in a folder."""
        return cls(**{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FILES})


def window_weights(words: int, short_words: int) -> tuple[int, int]:
    """Return what a window weighs, and what an anchor of a short text does."""
    return words * TOKEN_WEIGHTS[WORD], min(short_words, words) * TOKEN_WEIGHTS[WORD]


def write_index(arguments: IndexArguments) -> UnitResult:
    """Write the index of all evaluation files.

    The counts say of each file its rows, those with a text that can be found, and its texts.
    """
    builder = _Builder(*window_weights(arguments.words, arguments.short_words))
    counts = []
    for number, evaluation in enumerate(arguments.files):
        first, num_texts = len(builder.tokens), 0
        texts: list[str] = []
        rows: list[int] = []
        size = 0
        for row_number, found in read_rows(evaluation):
            row = builder.add_row(number, row_number)
            for text in found:
                clean = clean_text(text, arguments.clean)
                texts.append(clean)
                rows.append(row)
                size += len(clean)
                num_texts += 1
            if size >= CHUNK_CHARACTERS:
                builder.add_texts(texts, rows)
                texts, rows, size = [], [], 0
        builder.add_texts(texts, rows)
        own = builder.tokens[first:]
        counts.append([evaluation.name, len(own), sum(count > 0 for count in own), num_texts])
        if not any(own):
            raise ValueError(
                f"{evaluation.file.path} holds no text that could be looked for ({len(own)} rows): "
                "name its `fields`, or leave it out of filters.decontamination.evaluations"
            )
        advance(evaluation.file.size_bytes)
    arrays = builder.arrays()
    outputs = tuple(
        save_array(arguments.index / f"{name}.npy", array) for name, array in arrays.items()
    )
    return UnitResult(counts={"files": counts, "windows": len(arrays["windows"])}, outputs=outputs)


class _Builder:
    """Collects windows and short texts."""

    def __init__(self, weight: int, anchor_weight: int) -> None:
        self._weight, self._anchor_weight = weight, anchor_weight
        self._places: list[tuple[int, int]] = []
        self.tokens: list[int] = []
        """Tokens of each row so far."""
        self._windows: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
        self._entries: list[NDArray[np.void]] = [np.zeros(0, ENTRY)]
        self._anchors: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
        self._wholes: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
        self._shorts: list[NDArray[np.void]] = [np.zeros(0, ENTRY)]

    def add_row(self, file: int, number: int) -> int:
        """Return the number of a new row."""
        self._places.append((file, number))
        self.tokens.append(0)
        return len(self.tokens) - 1

    def add_texts(self, texts: Sequence[str], rows: Sequence[int]) -> None:
        """Add texts of rows; the tokens of a row's texts are numbered through."""
        if not texts:
            return
        data, offsets = text_arrays(pa.array(texts, pa.large_string()))
        hashes, lasts, lengths, bounds, totals = kernels.text_windows(data, offsets, self._weight)
        ends, _, _, end_bounds, _ = kernels.text_windows(data, offsets, self._anchor_weight)
        has_any = bounds[1:] > bounds[:-1]
        final = np.maximum(bounds[1:] - 1, 0)
        counts = np.zeros(len(texts), np.int64)
        counts[has_any] = lasts[final[has_any]] + 1
        bases = np.zeros(len(texts), np.int64)
        for index, (row, count) in enumerate(zip(rows, counts.tolist(), strict=True)):
            bases[index] = self.tokens[row]
            self.tokens[row] += count
        text_of = np.repeat(np.arange(len(texts)), np.diff(bounds))
        entries = np.zeros(len(hashes), ENTRY)
        entries["row"] = np.asarray(rows)[text_of]
        entries["last"] = bases[text_of] + lasts
        entries["length"] = lengths
        is_long = (totals >= self._weight)[text_of]
        self._windows.append(hashes[is_long])
        self._entries.append(entries[is_long])
        self._wholes.append(hashes[~is_long])
        self._shorts.append(entries[~is_long])
        is_short = has_any & (totals < self._weight)
        self._anchors.append(ends[end_bounds[1:][is_short] - 1])

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays of the index."""
        hashes, entries = _sorted(np.concatenate(self._windows), np.concatenate(self._entries))
        firsts, rank = _ranks(hashes)
        kept = rank < KEPT_ROWS
        bounds = np.append(np.cumsum(kept) - kept, kept.sum())[np.append(firsts, len(hashes))]
        wholes = np.concatenate(self._wholes)
        shorts = np.concatenate(self._shorts)
        anchors = np.concatenate(self._anchors)
        order = np.lexsort((shorts["last"], shorts["row"], wholes))
        order = order[_ranks(wholes[order])[1] < KEPT_ROWS]  # four letters are answers of all rows
        order = order[np.argsort(anchors[order], kind="stable")]
        rows = np.zeros(len(self.tokens), ROW)
        if len(rows):
            places = np.array(self._places, np.int64)
            rows["file"], rows["number"] = places.T
        rows["tokens"] = self.tokens
        return {
            "windows": hashes[firsts],
            "bounds": bounds.astype(np.int64),
            "entries": entries[kept],
            "anchors": anchors[order],
            "wholes": wholes[order],
            "shorts": shorts[order],
            "rows": rows,
        }


def _sorted(
    hashes: NDArray[np.uint64], entries: NDArray[np.void]
) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
    order = np.lexsort((entries["last"], entries["row"], hashes))
    return hashes[order], entries[order]


def _ranks(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where equal hashes begin, and the place of each among its equals; they are sorted."""
    is_first = np.append([True], hashes[1:] != hashes[:-1])[: len(hashes)]
    firsts = np.flatnonzero(is_first)
    return firsts, np.arange(len(hashes)) - firsts[np.cumsum(is_first) - 1]
