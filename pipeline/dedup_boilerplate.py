"""Shingle lists of all candidates flow in, those that many documents of a source have flow out.

A shingle is boilerplate of a source if at least `dedup.boilerplate_documents` candidates of that
source have it: documents of different text that share a band key with another one. Texts that
resemble nothing are not counted. The count is exact; the shingles of one range of hash values are
sorted in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import kernels
from .array_files import save_array
from .dedup_exact import range_bounds
from .dedup_layout import open_values
from .dedup_shingles import read_records
from .executors import advance
from .stage import UnitResult

RANGE_SHINGLES = 16_000_000
"""Shingles in one range, on average: about 400 MB while they are sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoilerplateArguments:
    """What one unit of the stage `boilerplate`, a range of hash values, gets."""

    shingles: Path
    """Folder of the stage `shingles`."""
    units: tuple[str, ...]
    range_number: int
    num_ranges: int
    min_documents: int
    boilerplate: Path
    """The file to write."""


def write_boilerplate(arguments: BoilerplateArguments) -> UnitResult:
    """Write shingle xor source word of each frequent shingle in the range, ascending."""
    low, high = range_bounds(arguments.range_number, arguments.num_ranges)
    parts = [np.empty(0, np.uint64)]
    for unit in arguments.units:
        records = read_records(arguments.shingles, unit)
        values = open_values(arguments.shingles / f"{unit}.values")
        starts, sizes, sources = (
            np.array(records[name]) for name in ("list_start", "list_size", "source")
        )
        parts.append(kernels.source_shingles(values, starts, sizes, sources, low, high))
        advance(8 * len(values) // arguments.num_ranges)
    shingles = np.concatenate(parts)
    del parts
    shingles.sort()
    # Frequent: equal to the one that stands `min_documents` - 1 places further.
    reach = arguments.min_documents - 1
    is_frequent = shingles[: max(len(shingles) - reach, 0)] == shingles[reach:]
    frequent = np.unique(shingles[: len(is_frequent)][is_frequent])
    save_array(arguments.boilerplate, frequent)
    return UnitResult(counts={"boilerplate": len(frequent)}, scratch=(arguments.boilerplate,))
