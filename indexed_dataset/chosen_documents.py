"""Documents of a prefix, chunk by chunk: a range of them less those to drop in, their shape out.

What merging and dividing have in common reads an index this way: never mapped, so that memory
stays small whatever its size, and checked entry by entry, so that damage is not copied on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptIndexError, TruncatedDataError
from .format import HEADER_BYTES
from .origins import read_origins
from .paths import prefix_paths
from .reader import IndexedDataset

CHUNK_DOCUMENTS = 1 << 16
"""Documents looked at in one go."""


@dataclass(frozen=True, slots=True)
class ChosenDocuments:
    """The documents [first, stop) of a dataset, without those in `dropped`."""

    dataset: IndexedDataset
    first: int
    stop: int
    dropped: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """int64[n], numbers of documents, rising."""


class Chunk(NamedTuple):
    """The chosen ones of up to `CHUNK_DOCUMENTS` documents."""

    lengths: NDArray[np.int32]
    """int32[sequences], tokens of each."""
    counts: NDArray[np.int32]
    """int32[documents], sequences of each."""
    document_tokens: NDArray[np.int64]
    """int64[documents], tokens of each."""
    modes: NDArray[np.int8] | None
    """int8[sequences] of a multimodal dataset."""
    spans: NDArray[np.int64]
    """int64[n, 2], first token in the .bin and number of tokens of each run of documents."""
    origins: NDArray[np.int64] | None
    """int64[documents, 2], where they were asked for."""


def read_chunks(chosen: ChosenDocuments, *, with_origins: bool = False) -> Iterator[Chunk]:
    """Yield the shape of the chosen documents, in order.

    Raises:
        CorruptIndexError: an entry contradicts its neighbours.
        TruncatedDataError: the .idx or the .origin is shorter than it was.
    """
    dataset = chosen.dataset
    paths, itemsize = prefix_paths(dataset.prefix), dataset.dtype.itemsize
    num = dataset.num_sequences
    bounds_at = HEADER_BYTES + 12 * num
    entries = partial(_entries, paths.idx)
    has_modes = is_multimodal(dataset)
    for first in range(chosen.first, chosen.stop, CHUNK_DOCUMENTS):
        stop = min(first + CHUNK_DOCUMENTS, chosen.stop)
        bounds = entries("<i8", bounds_at + 8 * first, stop - first + 1)
        low, high = int(bounds[0]), int(bounds[-1])
        counts = np.diff(bounds)
        if not 0 <= low <= high <= num or (counts < 0).any():
            raise _corrupt(paths.idx, f"the bounds of the documents {first} to {stop}")
        lengths = entries("<i4", HEADER_BYTES + 4 * low, high - low)
        # The entry before is read too, so that chunks are checked against one another.
        before = max(low - 1, 0)
        pointers = entries("<i8", HEADER_BYTES + 4 * num + 8 * before, high - before)
        sizes = np.concatenate([entries("<i4", HEADER_BYTES + 4 * before, low - before), lengths])
        ends = np.cumsum(sizes, dtype=np.int64) * itemsize + (pointers[0] if len(pointers) else 0)
        if (sizes < 0).any() or (len(ends) and (pointers[1:] != ends[:-1]).any()):
            raise _corrupt(paths.idx, f"the sequences {before} to {high}")
        start = int(ends[0]) if before < low else int(pointers[0]) if len(pointers) else 0
        stop_byte = int(ends[-1]) if len(ends) else start
        if start % itemsize or not 0 <= start <= stop_byte <= dataset.num_tokens * itemsize:
            raise _corrupt(paths.idx, f"the sequences {low} to {high}")
        token_ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        edges = start // itemsize + token_ends[bounds - low]
        keep = np.ones(stop - first, np.bool_)
        keep[chosen.dropped[slice(*np.searchsorted(chosen.dropped, [first, stop]))] - first] = False
        of_sequence = np.repeat(keep, counts)
        modes_at = bounds_at + 8 * (dataset.num_documents + 1) + low
        modes = _entries(paths.idx, "i1", modes_at, high - low, has_modes)
        origins = None
        if with_origins:
            num_documents = dataset.num_documents
            origins = read_origins(paths.origin, num_documents, first, stop - first)[keep]
        yield Chunk(
            lengths=lengths[of_sequence],
            counts=counts[keep].astype(np.int32),
            document_tokens=np.diff(edges)[keep],
            modes=modes[of_sequence] if has_modes else None,
            spans=_runs(keep, edges),
            origins=origins,
        )


def is_multimodal(dataset: IndexedDataset) -> bool:
    """Return whether the dataset has sequence modes."""
    size = prefix_paths(dataset.prefix).idx.stat().st_size
    plain = HEADER_BYTES + 12 * dataset.num_sequences + 8 * (dataset.num_documents + 1)
    return size > plain


def _runs(keep: NDArray[np.bool_], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (first token, tokens) of each run of kept documents.

    Example: keep [1, 1, 0, 1] of documents with the edges [0, 2, 5, 6, 9] are [[0, 5], [6, 3]].
    """
    changes = np.flatnonzero(np.diff(np.concatenate([[0], keep.astype(np.int8), [0]])))
    starts, ends = edges[changes[::2]], edges[changes[1::2]]
    return np.stack([starts, ends - starts], axis=1)


def _entries(path: Path, dtype: str, offset: int, count: int, wanted: bool = True) -> NDArray[Any]:
    if not wanted or count == 0:
        return np.zeros(0, dtype)
    values = np.fromfile(path, dtype, count, offset=offset)
    if len(values) != count:
        raise TruncatedDataError(
            f"{path} ended early at byte {offset}: it was cut off. Copy or write the dataset again"
        )
    return values


def _corrupt(path: Path, what: str) -> CorruptIndexError:
    return CorruptIndexError(
        f"{path}: {what} are not in order. The index is damaged: copy or write the dataset again"
    )
