"""Which copy is kept: the user's words in, numbers to sort documents by out (the smallest is kept).

`dedup.keep` is a list of keys, the most important first: `longest`, `shortest`, `first`,
`priority` (of the source, the lower number wins), `COLUMN:highest` or `COLUMN:lowest` of a carried
column. Ties after all keys go to the document that comes first (priority, file, place in it).

Values of a column that read as numbers are compared as numbers and come before texts, which are
compared by their first 24 bytes (enough for a date and time in ISO 8601). A document without a
value comes last, whichever end wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .text_column import flat

_TEXT_WORDS = 3
_COLUMN_WORDS = 1 + _TEXT_WORDS
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_SIGN = np.uint64(1 << 63)
_WORDS = ("longest", "shortest", "first", "priority")


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepKey:
    """One key of `dedup.keep`."""

    kind: str
    """longest, shortest, priority or column."""
    column: str = ""
    lowest: bool = False

    @property
    def num_words(self) -> int:
        """Numbers that it ranks a document by."""
        return _COLUMN_WORDS if self.kind == "column" else 1


def parse_keep(keep: Sequence[str]) -> tuple[KeepKey, ...]:
    """Return the keys of `dedup.keep`; `first` ends the list.

    Raises:
        ValueError: a word that is no key; the message lists what there is.
    """
    keys: list[KeepKey] = []
    for word in keep:
        column, colon, end = word.rpartition(":")
        if word == "first":
            break
        if word in _WORDS:
            keys.append(KeepKey(kind=word))
        elif colon and column and end in ("highest", "lowest"):
            keys.append(KeepKey(kind="column", column=column, lowest=end == "lowest"))
        else:
            raise ValueError(
                f"dedup.keep has {word!r}, which says of no two copies which one is kept: use "
                f"{', '.join(_WORDS)}, or COLUMN:highest and COLUMN:lowest of a column that the "
                "sources carry"
            )
    return tuple(keys)


def columns_of(keys: Sequence[KeepKey]) -> list[str]:
    """Return the carried columns that the keys look at."""
    return list(dict.fromkeys(key.column for key in keys if key.kind == "column"))


def priority_of(unit: str) -> int:
    """Return the priority of the source of a unit, which stands first in its name."""
    found = re.match(r"(\d{4})-", unit)
    return int(found[1]) if found else 0


def count_rank_words(keys: Sequence[KeepKey]) -> int:
    """Return how many numbers a document is ranked by."""
    return sum(key.num_words for key in keys)


def rank_documents(
    keys: Sequence[KeepKey], table: pa.Table, text_bytes: NDArray[np.int64], priority: int
) -> NDArray[np.uint64]:
    """Return uint64[documents, rank words], to be compared word by word; the smallest is kept."""
    parts = [np.empty((len(text_bytes), 0), np.uint64)]
    for key in keys:
        if key.kind == "column":
            parts.append(_rank_column(key, table, len(text_bytes)))
        elif key.kind == "priority":
            parts.append(np.full((len(text_bytes), 1), priority, np.uint64))
        else:
            sizes = text_bytes.astype(np.uint64)
            parts.append((_ALL - sizes if key.kind == "longest" else sizes)[:, None])
    return np.concatenate(parts, axis=1)


def order_of(ranks: NDArray[np.uint64], *last: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the order of documents by `last[-1]`, ..., then by their ranks, then by `last[0]`."""
    words = [ranks[:, word] for word in reversed(range(ranks.shape[1]))]
    order: NDArray[np.int64] = np.lexsort((last[0], *words, *last[1:]))
    return order


def _rank_column(key: KeepKey, table: pa.Table, num_documents: int) -> NDArray[np.uint64]:
    if key.column not in table.column_names:
        return np.full((num_documents, _COLUMN_WORDS), _ALL)
    encoded = flat(table[key.column]).dictionary_encode()
    values = encoded.dictionary.to_pylist()
    ranks = np.array([_rank_value(value, key.lowest) for value in [*values, None]], np.uint64)
    places = encoded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    chosen: NDArray[np.uint64] = ranks[places.astype(np.int64)]
    return chosen


def _rank_value(value: str | None, lowest: bool) -> list[int]:
    if value is None:
        return [int(_ALL)] * _COLUMN_WORDS
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        content = value.encode()[: 8 * _TEXT_WORDS].ljust(8 * _TEXT_WORDS, b"\0")
        words = [int.from_bytes(content[8 * n : 8 * n + 8]) for n in range(_TEXT_WORDS)]
        kind = 1
    else:
        # The bits of a float sort as numbers do, once negative ones are turned around.
        bits = int(np.array(number + 0.0, np.float64).view(np.uint64))
        words = [bits ^ int(_ALL) if bits & int(_SIGN) else bits | int(_SIGN), 0, 0]
        kind = 0
    return [kind, *(words if lowest else [word ^ int(_ALL) for word in words])]
