"""Documents of one unit flow in, a hash and MinHash band keys for each flow out, in their order.

Documents of different scopes (languages or sources, with `dedup.scope`) must never be equal or
candidates: a word for the scope is mixed into the hash and into every key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import kernels
from .array_files import save_array
from .dedup_layout import HASH_HIGH, HASH_LOW, ID_HIGH, ID_LOW, NO_KEY, NUM_HASH_ROWS
from .dedup_preference import KeepKey, columns_of, count_rank_words, rank_documents
from .stage import UnitResult
from .text_column import flat, id_words, read_row_groups, text_arrays

Scope = Literal["global", "language", "source"]


@dataclass(frozen=True, kw_only=True, slots=True)
class KeysArguments:
    """What one unit of the stage `keys` gets."""

    documents: Path | None
    """The unit's clean documents; None: it has none."""
    keys: Path
    ranks: Path | None
    bands: Path | None
    """The files to write; None: not wanted."""
    num_bands: int
    rows_per_band: int
    seed: int
    scope: Scope
    keep: tuple[KeepKey, ...]
    priority: int
    """Of the unit's source."""


def write_keys(arguments: KeysArguments) -> UnitResult:
    """Write hashes, ranks and band keys of one unit (see `dedup_layout`), reading it once."""
    keys = [np.empty((NUM_HASH_ROWS, 0), np.uint64)]
    ranks = [np.empty((0, count_rank_words(arguments.keep)), np.uint64)]
    bands = [np.empty((arguments.num_bands, 0), np.uint64)]
    columns = ["id", "text"]
    if arguments.scope != "global":
        columns.append(arguments.scope)
    if arguments.ranks:
        columns += columns_of(arguments.keep)
    for table in read_row_groups(arguments.documents, columns):
        data, offsets = text_arrays(table["text"])
        part = np.empty((NUM_HASH_ROWS, table.num_rows), np.uint64)
        part[[HASH_LOW, HASH_HIGH]] = kernels.hash_documents(data, offsets).T
        part[[ID_LOW, ID_HIGH]] = id_words(table["id"]).T
        scopes: NDArray[np.uint64] = np.zeros(1, np.uint64)
        if arguments.scope != "global":
            scopes = name_words(table[arguments.scope])
            part[HASH_LOW] ^= scopes
        keys.append(part)
        if arguments.ranks:
            ranks.append(
                rank_documents(arguments.keep, table, np.diff(offsets), arguments.priority)
            )
        if arguments.bands:
            band_keys = kernels.band_keys(
                data, offsets, arguments.num_bands, arguments.rows_per_band, arguments.seed
            )
            if arguments.scope != "global":
                scoped = np.maximum(band_keys ^ scopes, np.uint64(1))
                band_keys = np.where(band_keys == NO_KEY, NO_KEY, scoped)
            bands.append(band_keys)
    scratch = [save_array(arguments.keys, np.concatenate(keys, axis=1))]
    if arguments.ranks:
        scratch.append(save_array(arguments.ranks, np.concatenate(ranks).T))
    if arguments.bands:
        scratch.append(save_array(arguments.bands, np.concatenate(bands, axis=1)))
    num_documents = sum(part.shape[1] for part in keys)
    return UnitResult(counts={"documents": num_documents}, scratch=tuple(scratch))


def name_word(name: str) -> int:
    """Return a 64-bit number for a name."""
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def name_words(column: pa.ChunkedArray | pa.Array | Sequence[str]) -> NDArray[np.uint64]:
    """Return a 64-bit number for the name in each row of a string column."""
    encoded = flat(column).dictionary_encode()
    words = np.array([name_word(name) for name in encoded.dictionary.to_pylist()], np.uint64)
    places = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    named: NDArray[np.uint64] = words[places]
    return named
