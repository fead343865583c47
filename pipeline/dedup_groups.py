"""Keys of all documents flow in; groups of equal texts and of near-copy candidates flow out.

One process, one band in memory at a time: about 60 bytes a document.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .array_files import save_array
from .dedup_files import (
    CANDIDATE_GROUP,
    EXACT_ROOT,
    EXACT_SIZE,
    HASH_HIGH,
    HASH_LOW,
    ID_HIGH,
    ID_LOW,
    NUM_FIXED_ROWS,
    NUM_GROUP_ROWS,
    ROOT_ID_HIGH,
    ROOT_ID_LOW,
    open_array,
)
from .stage import UnitResult

NO_KEY = np.uint64(0)
"""Band key of a document without a single token, as `kernels.band_keys` gives it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupArguments:
    """What the only unit of the stage `group` gets."""

    keys: tuple[Path, ...]
    """Key files of all units, in order."""
    groups: Path
    """The file to write."""
    exact: bool
    num_bands: int


def write_groups(arguments: GroupArguments) -> UnitResult:
    """Write the group file (see `dedup_files`) of the whole run."""
    files = [open_array(path) for path in arguments.keys]
    num_documents = sum(file.shape[1] for file in files)
    groups = np.empty((NUM_GROUP_ROWS, num_documents), np.int64)
    groups[EXACT_ROOT] = np.arange(num_documents)
    groups[EXACT_SIZE] = 1
    groups[CANDIDATE_GROUP] = -1
    if arguments.exact:
        hashes = _column(files, HASH_LOW), _column(files, HASH_HIGH)
        groups[EXACT_ROOT], groups[EXACT_SIZE] = group_equal(*hashes)
        del hashes
    roots = groups[EXACT_ROOT]
    if arguments.num_bands:
        firsts = np.flatnonzero(roots == np.arange(num_documents))
        parents = np.arange(len(firsts))
        for band in range(arguments.num_bands):
            unite_equal_keys(parents, _column(files, NUM_FIXED_ROWS + band)[firsts])
        components = kernels.resolve_components(parents)
        sizes = np.bincount(components, minlength=len(firsts))
        groups[CANDIDATE_GROUP, firsts] = np.where(sizes[components] > 1, firsts[components], -1)
        groups[CANDIDATE_GROUP] = groups[CANDIDATE_GROUP, roots]
    groups[ROOT_ID_LOW] = _column(files, ID_LOW).view(np.int64)[roots]
    groups[ROOT_ID_HIGH] = _column(files, ID_HIGH).view(np.int64)[roots]
    save_array(arguments.groups, groups)
    is_root = roots == np.arange(num_documents)
    candidates = groups[CANDIDATE_GROUP, is_root]
    counts = {
        "documents": num_documents,
        "exact_duplicates": num_documents - int(is_root.sum()),
        "candidates": int((candidates >= 0).sum()),
        "candidate_groups": len(np.unique(candidates[candidates >= 0])),
    }
    return UnitResult(counts=counts, outputs=(arguments.groups,))


def group_equal(
    low: NDArray[np.uint64], high: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each hash the place of its first occurrence and how often it occurs.

    Hashes a, b, a give ([0, 1, 0], [2, 1, 2]).
    """
    order = np.lexsort((high, low))  # stable, so that each run begins with its first document
    is_start = np.ones(len(order), np.bool_)
    is_start[1:] = (low[order[1:]] != low[order[:-1]]) | (high[order[1:]] != high[order[:-1]])
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=len(order))
    roots, sizes = np.empty_like(order), np.empty_like(order)
    roots[order] = np.repeat(order[starts], lengths)
    sizes[order] = np.repeat(lengths, lengths)
    return roots, sizes


def unite_equal_keys(parents: NDArray[np.int64], keys: NDArray[np.uint64]) -> None:
    """Join documents with equal keys in one band, each to the first (a star, never all pairs)."""
    order = np.argsort(keys, kind="stable")
    order = order[np.searchsorted(keys, NO_KEY, side="right", sorter=order) :]
    is_same = keys[order[1:]] == keys[order[:-1]]
    starts = np.flatnonzero(np.concatenate(([True], ~is_same))) if len(order) else order
    firsts = np.repeat(order[starts], np.diff(starts, append=len(order)))
    is_other = firsts != order
    kernels.unite_edges(parents, firsts[is_other], order[is_other])


def _column(files: list[NDArray[np.uint64]], row: int) -> NDArray[np.uint64]:
    return np.concatenate([np.empty(0, np.uint64), *(file[row] for file in files)])
