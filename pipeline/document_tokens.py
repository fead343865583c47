"""A table of kept documents in, their token ids and what was dropped out: text to pretrain on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .special_strings import SpecialStrings
from .text_column import text_arrays
from .tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """Documents of a table that are not written."""

    reason: str
    which: NDArray[np.bool_]
    """bool[num_documents]."""
    details: Sequence[str]
    """What the reject file says of each of them, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """The tokens of the documents of a table that are written."""

    table: pa.Table
    """Their rows."""
    ids: NDArray[Any]
    """Of all, one after the other, EOD included."""
    num_tokens: NDArray[np.int64]
    """int64[num_documents]."""
    loss_mask: NDArray[np.uint8] | None = None
    """uint8[num_tokens]: 1 where predicting this token counts; None: everywhere."""
    dropped: list[Dropped] = field(default_factory=list)
    special: Counter[str] = field(default_factory=Counter)
    """Special tokens that texts spelled out."""


class Encoder(Protocol):
    """Makes tokens of documents."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of documents/ that it needs beside those of every document."""
        ...

    def __call__(self, table: pa.Table) -> Encoded:
        """Encode the documents of a table (with the column `lost`, bytes that were cut)."""
        ...


class TextEncoder:
    """Encodes texts as they are, each ended by EOD."""

    columns = ()

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = SpecialStrings(tokenizer)

    def __call__(self, table: pa.Table) -> Encoded:
        """Encode the documents of a table."""
        tokenizer = self._tokenizer
        data, offsets = text_arrays(table["text"])
        empty = (np.diff(offsets) == 0) & (table["lost"].to_numpy() > 0)
        too_long = tokenizer.too_long(data, offsets)
        dropped = [
            Dropped(reason=reason, which=which, details=[detail] * int(which.sum()))
            for reason, which, detail in (
                ("repeated_passages", empty, "nothing is left without repeated passages"),
                ("too_long", too_long, tokenizer.too_long_detail()),
            )
            if which.any()
        ]
        num_documents = table.num_rows
        if dropped:
            table = table.filter(pa.array(~(empty | too_long)))
            data, offsets = text_arrays(table["text"])
        encoded, bounds = tokenizer.encode(data, offsets)
        low, high = (int(encoded.min()), int(encoded.max())) if len(encoded) else (0, 0)
        return Encoded(
            table=table,
            ids=np.insert(encoded, bounds[1:], tokenizer.eod_id),
            num_tokens=np.diff(bounds) + 1,
            dropped=dropped,
            special=self._special.count(encoded, low, high, num_documents=num_documents),
        )
