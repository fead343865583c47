"""Hashes and places of all units in, those of one range of hashes; the places that are cut, out.

Equal hashes are 64 bits alike: among ten billion passages about three pairs are so by chance, and a
line has to meet `max_documents` others before it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .array_files import save_array
from .config import PassagesConfig
from .executors import advance
from .passage_places import KINDS, PLACE, places_files
from .stage import UnitResult

REPEAT = np.dtype([("unit", "<i4"), *PLACE.descr])
"""A place that is cut: number of its unit, then as PLACE."""

RECORD_BYTES = 8 + REPEAT.itemsize

_KEYS = 1 << 64


@dataclass(frozen=True, kw_only=True, slots=True)
class RepeatsArguments:
    """One unit's work."""

    units: tuple[Path, ...]
    """Places of the passages of each unit, without suffix, in the order of the documents."""
    part: int
    num_parts: int
    config: PassagesConfig
    repeats: Path
    """The file to write: REPEAT[n], sorted by unit, row and start."""


def write_repeats(arguments: RepeatsArguments) -> UnitResult:
    """Write the places that are cut of one range of hashes."""
    keys, rows = _read(arguments)
    # Stable, the units are in order and so are equal hashes of one unit: of equal hashes the first
    # in the input comes first. (Merging sorted runs, which is what the units are, is quick.)
    order = np.argsort(keys, kind="stable")
    keys, rows = keys[order], rows[order]
    cut = rows[_is_cut(keys, rows, arguments.config)]
    cut = cut[np.lexsort((cut["end"], cut["start"], cut["row"], cut["unit"]))]
    save_array(arguments.repeats, cut)
    return UnitResult(counts={"cut": len(cut)}, scratch=(arguments.repeats,))


def _read(arguments: RepeatsArguments) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
    low = arguments.part * _KEYS // arguments.num_parts
    high = (arguments.part + 1) * _KEYS // arguments.num_parts - 1
    keys: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    rows: list[NDArray[np.void]] = [np.zeros(0, REPEAT)]
    for number, path in enumerate(arguments.units):
        key_file, place_file = places_files(path)
        own = np.load(key_file, mmap_mode="r")
        first = int(np.searchsorted(own, np.uint64(low), side="left"))
        last = int(np.searchsorted(own, np.uint64(high), side="right"))
        places = np.load(place_file, mmap_mode="r")[first:last]
        found = np.zeros(last - first, REPEAT)
        found["unit"] = number
        for name in PLACE.names or ():
            found[name] = places[name]
        keys.append(np.array(own[first:last]))
        rows.append(found)
        advance(RECORD_BYTES * len(found))
    return np.concatenate(keys), np.concatenate(rows)


def _is_cut(
    keys: NDArray[np.uint64], rows: NDArray[np.void], config: PassagesConfig
) -> NDArray[np.bool_]:
    """Return which places are cut: bool[n], for places sorted by key and then as in the input."""
    if len(keys) == 0:
        return np.zeros(0, np.bool_)
    is_first = np.append([True], keys[1:] != keys[:-1])
    groups = np.cumsum(is_first) - 1
    firsts = np.flatnonzero(is_first)
    same_document = (rows["unit"][1:] == rows["unit"][:-1]) & (rows["row"][1:] == rows["row"][:-1])
    is_new = is_first | np.append([True], ~same_document)
    documents = np.add.reduceat(is_new.astype(np.int64), firsts)[groups]
    first = rows[firsts][groups]
    cut = np.zeros(len(keys), np.bool_)
    for kind, mode in (("line", config.lines), ("paragraph", config.paragraphs)):
        own = (rows["kind"] == KINDS.index(kind)) & (documents > config.max_documents)
        cut |= own if mode == "drop" else own & ~is_first
    # A stretch that overlaps the first copy of itself (=====) would take the copy along.
    overlaps = (
        (rows["unit"] == first["unit"])
        & (rows["row"] == first["row"])
        & (rows["start"] < first["end"])
    )
    cut |= (rows["kind"] == KINDS.index("span")) & ~is_first & ~overlaps
    return cut
