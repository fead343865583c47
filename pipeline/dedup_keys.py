"""Documents of one unit flow in, a hash and MinHash band keys for each flow out, in their order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import kernels
from .array_files import save_array
from .dedup_files import (
    HASH_HIGH,
    HASH_LOW,
    ID_HIGH,
    ID_LOW,
    NUM_FIXED_ROWS,
    TEXT_BYTES,
)
from .stage import UnitResult
from .text_column import id_words, read_row_groups, text_arrays


@dataclass(frozen=True, kw_only=True, slots=True)
class KeysArguments:
    """What one unit of the stage `keys` gets."""

    documents: Path | None
    """The unit's clean documents; None: it has none."""
    keys: Path
    """The file to write."""
    num_bands: int
    """0 where near copies are not looked for."""
    rows_per_band: int
    seed: int


def write_keys(arguments: KeysArguments) -> UnitResult:
    """Write the key file of one unit (see `dedup_files`), reading its documents once."""
    num_rows = NUM_FIXED_ROWS + arguments.num_bands
    parts = [np.empty((num_rows, 0), np.uint64)]
    for table in read_row_groups(arguments.documents, ["id", "text"]):
        data, offsets = text_arrays(table["text"])
        part = np.empty((num_rows, table.num_rows), np.uint64)
        part[[HASH_LOW, HASH_HIGH]] = kernels.hash_documents(data, offsets).T
        part[[ID_LOW, ID_HIGH]] = id_words(table["id"]).T
        part[TEXT_BYTES] = np.diff(offsets)
        if arguments.num_bands:
            part[NUM_FIXED_ROWS:] = kernels.band_keys(
                data, offsets, arguments.num_bands, arguments.rows_per_band, arguments.seed
            )
        parts.append(part)
    keys = np.concatenate(parts, axis=1)
    save_array(arguments.keys, keys)
    return UnitResult(counts={"documents": keys.shape[1]}, outputs=(arguments.keys,))
