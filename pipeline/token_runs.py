"""Sorted runs, the hand-over from tokenize to pack: token ids of one unit's documents, in order.

RUN.bin holds the tokens (EOD included), RUN.npy one row a document (`RUN_DTYPE`), RUN.json the
names that the numbers stand for, RUN.mask, where the documents have one, their loss mask. Rows, and
so the tokens, are sorted by language, source, placement key, file and offset: what pack takes out
is contiguous in each run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..indexed_dataset.atomic import atomic_path, write_atomically
from .array_files import save_array

RUN_DTYPE = np.dtype(
    [
        ("placement", "<u8"),  # keyed hash of the document's id: its place
        ("validation", "<u8"),  # keyed hash of its duplicate cluster: its side
        ("start", "<i8"),  # its first token in RUN.bin
        ("num_tokens", "<i8"),  # EOD included
        ("text_bytes", "<i8"),
        ("offset", "<i8"),  # row or byte offset in its file
        ("file", "<i4"),
        ("language", "<i4"),
        ("source", "<i4"),
        ("cluster_size", "<i4"),  # documents of its duplicate cluster, with itself
    ]
)

MASK_DTYPE = np.dtype(np.uint8)

BLOCK_TOKENS = 4 << 20
"""Tokens that are held in memory at a time while runs are sorted and merged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunNames:
    """RUN.json: what the numbers in RUN.npy stand for, and where each language begins."""

    languages: tuple[str, ...]
    sources: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    """(source, name relative to it)."""
    slices: tuple[tuple[str, str, int, int], ...]
    """(language, source, first row, row after the last)."""


class RunWriter:
    """Collects the documents of one unit in any order and writes them sorted.

    Args:
        path: RUN, without suffix.
        dtype: of the token ids.
        has_mask: documents come with a loss mask.

    Memory: the index (64 bytes a document); tokens wait in a file. Use as a context manager; a
    block left by an error writes nothing.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], *, has_mask: bool = False) -> None:
        self._path = path
        self._dtype = dtype
        self._rows: list[NDArray[Any]] = []
        self._num_tokens = 0
        self._languages: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._files: dict[tuple[str, str], int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        # One fixed name: what a killed process left is overwritten when its unit is done again.
        self._unsorted = path.with_name(f"{path.name}.unsorted")
        self._stream = open(self._unsorted, "wb")  # noqa: SIM115  (closed by __exit__)
        self._unsorted_mask = path.with_name(f"{path.name}.unsorted-mask")
        self._mask = open(self._unsorted_mask, "wb") if has_mask else None  # noqa: SIM115

    @property
    def index_files(self) -> tuple[Path, ...]:
        """RUN.npy and RUN.json: what `pack` plans by."""
        return run_files(self._path)[1:]

    @property
    def token_files(self) -> tuple[Path, ...]:
        """RUN.bin, and RUN.mask where there is one: as large as the data that `pack` writes."""
        tokens = run_files(self._path)[0]
        return (tokens,) if self._mask is None else (tokens, mask_file(self._path))

    def add(
        self,
        tokens: NDArray[Any],
        *,
        num_tokens: NDArray[np.int64],
        text_bytes: NDArray[np.int64],
        placement: NDArray[np.uint64],
        validation: NDArray[np.uint64],
        languages: Sequence[str],
        sources: Sequence[str],
        origin_files: Sequence[str],
        origin_offsets: NDArray[np.int64],
        cluster_sizes: NDArray[np.int64],
        loss_mask: NDArray[np.uint8] | None = None,
    ) -> None:
        """Add documents: their tokens back to back, and one value of everything else for each.

        `loss_mask` has one for each token; it is there where the writer has a mask.
        """
        assert (loss_mask is None) == (self._mask is None)
        rows = np.zeros(len(num_tokens), RUN_DTYPE)
        rows["num_tokens"] = num_tokens
        rows["start"] = self._num_tokens + np.cumsum(num_tokens) - num_tokens
        rows["text_bytes"] = text_bytes
        rows["placement"] = placement
        rows["validation"] = validation
        rows["offset"] = origin_offsets
        rows["cluster_size"] = np.minimum(cluster_sizes, np.iinfo(np.int32).max)
        rows["language"] = _numbers(self._languages, languages)
        rows["source"] = _numbers(self._sources, sources)
        rows["file"] = _numbers(self._files, list(zip(sources, origin_files, strict=True)))
        self._stream.write(np.ascontiguousarray(tokens, self._dtype).data)
        if self._mask is not None and loss_mask is not None:
            self._mask.write(np.ascontiguousarray(loss_mask, np.uint8).data)
        self._num_tokens += int(num_tokens.sum())
        self._rows.append(rows)

    def finish(self) -> None:
        """Sort and write the run."""
        self._stream.close()
        if self._mask is not None:
            self._mask.close()
        rows = np.concatenate([np.zeros(0, RUN_DTYPE), *self._rows])
        for field, table in (
            ("language", self._languages),
            ("source", self._sources),
            ("file", self._files),
        ):
            rows[field] = _ranks(list(table))[rows[field]]  # numbers in the order of the names
        keys = ("offset", "file", "placement", "source", "language")  # the last counts most
        rows = rows[np.lexsort([rows[key] for key in keys])]
        languages, sources = sorted(self._languages), sorted(self._sources)
        names = RunNames(
            languages=tuple(languages),
            sources=tuple(sources),
            files=tuple(sorted(self._files)),
            slices=_slices(rows, languages, sources),
        )
        bin_path, index_path, names_path = run_files(self._path)
        with atomic_path(bin_path) as temporary:
            _write_sorted(temporary, self._unsorted, rows, self._dtype)
        if self._mask is not None:
            with atomic_path(mask_file(self._path)) as temporary:
                _write_sorted(temporary, self._unsorted_mask, rows, MASK_DTYPE)
        rows["start"] = np.cumsum(rows["num_tokens"]) - rows["num_tokens"]
        save_array(index_path, rows)
        content = asdict(names)
        write_atomically(
            names_path, json.dumps(content, ensure_ascii=False, sort_keys=True).encode()
        )

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._stream, self._mask):
            with contextlib.suppress(OSError):  # its last bytes may not fit on a full disk
                if stream is not None:
                    stream.close()
        self._unsorted.unlink(missing_ok=True)
        self._unsorted_mask.unlink(missing_ok=True)


class Run:
    """A finished run, opened for reading.

    Args:
        path: RUN, without suffix.
    """

    def __init__(self, path: Path) -> None:
        _, index_path, names_path = run_files(path)
        raw = json.loads(names_path.read_bytes())
        self.names = RunNames(
            languages=tuple(raw["languages"]),
            sources=tuple(raw["sources"]),
            files=tuple((source, name) for source, name in raw["files"]),
            slices=tuple(
                (lang, source, first, last) for lang, source, first, last in raw["slices"]
            ),
        )
        self.rows: NDArray[Any] = np.load(
            index_path,
            mmap_mode="r" if self.names.slices else None,  # nothing to map in an empty run
        )
        """RUN_DTYPE[num_documents], in the file."""


def _write_sorted(path: Path, unsorted: Path, rows: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Copy what belongs to the tokens of documents in the order of their rows."""
    with open(path, "wb") as stream, open(unsorted, "rb") as source:
        for first, last in token_blocks(rows["num_tokens"], BLOCK_TOKENS):
            stream.write(read_tokens(source.fileno(), rows[first:last], dtype).data)


def mask_file(path: Path) -> Path:
    """Return RUN.mask."""
    return path.with_name(path.name + ".mask")


def run_files(path: Path) -> tuple[Path, Path, Path]:
    """Return RUN.bin, RUN.npy and RUN.json."""
    first, second, third = (path.with_name(path.name + end) for end in (".bin", ".npy", ".json"))
    return first, second, third


def token_blocks(num_tokens: NDArray[np.int64], max_tokens: int) -> Iterator[tuple[int, int]]:
    """Cut documents into consecutive blocks (first, last) of `max_tokens` tokens at most.

    A document that is longer alone is a block of its own.
    """
    ends = np.cumsum(num_tokens)
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + max_tokens, side="right"))
        last = max(last, first + 1)
        yield first, last
        first = last


def read_tokens(
    descriptor: int,
    rows: NDArray[Any],
    dtype: np.dtype[Any],
    out: NDArray[Any] | None = None,
    places: NDArray[np.int64] | None = None,
) -> NDArray[Any]:
    """Read the tokens of documents from an open RUN.bin (or its unsorted likeness).

    Args:
        descriptor: of the file; of RUN.mask with its dtype.
        rows: RUN_DTYPE[n]; `start` and `num_tokens` are used.
        dtype: of the tokens.
        out: array to read into; default: a new one of the right size.
        places: int64[n], where in `out` each document begins; default: back to back.

    Raises:
        ValueError: the file ends before its last token.
    """
    if places is None:
        places = np.cumsum(rows["num_tokens"]) - rows["num_tokens"]
    if out is None:
        out = np.empty(int(rows["num_tokens"].sum()), dtype)
    view = out.view(np.uint8).data
    size = dtype.itemsize
    spans = zip(
        (rows["start"] * size).tolist(),
        (rows["num_tokens"] * size).tolist(),
        (places * size).tolist(),
        strict=True,
    )
    # Plain reads, not a memory map: mapped pages would count as this process's memory.
    for start, length, place in spans:
        while length > 0:
            num_read = os.preadv(descriptor, [view[place : place + length]], start)
            if num_read == 0:
                raise ValueError(
                    "a file of token runs (work/runs) is shorter than its index says: it was "
                    "altered. Remove the folder work/tokenize and run again"
                )
            start, length, place = start + num_read, length - num_read, place + num_read
    return out


def _numbers(table: dict[Any, int], names: Sequence[Any]) -> list[int]:
    """Return the number of each name; a new one gets the next."""
    return [table.setdefault(name, len(table)) for name in names]


def _ranks(names: list[Any]) -> NDArray[np.int32]:
    """Return the place of each name among the sorted ones."""
    ranks = np.zeros(len(names), np.int32)
    for rank, number in enumerate(sorted(range(len(names)), key=names.__getitem__)):
        ranks[number] = rank
    return ranks


def _slices(
    rows: NDArray[Any], languages: list[str], sources: list[str]
) -> tuple[tuple[str, str, int, int], ...]:
    """Return where each (language, source) stands in sorted rows."""
    pairs = rows["language"].astype(np.int64) * max(len(sources), 1) + rows["source"]
    bounds = [*np.flatnonzero(np.diff(pairs, prepend=-1)).tolist(), len(rows)]
    return tuple(
        (languages[rows["language"][first]], sources[rows["source"][first]], first, last)
        for first, last in itertools.pairwise(bounds)
    )
