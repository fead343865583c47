"""A table of rendered conversations in; token ids and a loss mask out.

A token belongs to the targets if any part of it does, as in transformers' assistant mask (which of
a character of several tokens at the end of a block takes the first alone; here it counts whole).
Which part of the text a token is follows from its bytes where the tokenizer is byte-level
(`byte_places.py`), else `tokenizers` says it (`rendered_text.py`), many times slower.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .byte_places import BytePlaces
from .chat_template import Span
from .document_tokens import Dropped, Encoded
from .rendered_text import RenderedTextEncoder
from .text_column import text_arrays
from .tokenizer import Tokenizer

_Masked = tuple[NDArray[Any], NDArray[np.uint8]]
"""Ids of a document and the mask of each."""


class ConversationEncoder:
    """Encodes conversations, each ended by EOD.

    Args:
        tokenizer: the door of the run's tokenizer.
        max_tokens: longer conversations are dropped; 0: none is.
    """

    columns = ("target_spans", "literal_spans", "together_id")

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._places: BytePlaces | None = None
        parsed = tokenizer.file.parse()
        if tokenizer.engine == "gristmill" and BytePlaces.are_known(parsed):
            self._places = BytePlaces(parsed, tokenizer.vocab_size)

    @functools.cached_property
    def _encode(self) -> RenderedTextEncoder:
        return RenderedTextEncoder(self._tokenizer.file)

    def __call__(self, table: pa.Table) -> Encoded:
        """Encode the conversations of a table."""
        targets: list[list[int]] = table["target_spans"].to_pylist()
        literals: list[list[int]] = table["literal_spans"].to_pylist()
        found = self._by_bytes(table, targets, literals)
        ids: list[NDArray[Any]] = []
        masks: list[NDArray[np.uint8]] = []
        special: Counter[str] = Counter()
        too_long: dict[int, str] = {}
        for row in range(table.num_rows):
            one = found.get(row)
            if one is None:
                text = table["text"][row].as_py()
                one = self._by_characters(text, targets[row], literals[row])
            numbers, mask = one
            if len(numbers) == 0 or numbers[-1] != self._tokenizer.eod_id:
                numbers = np.append(numbers, self._tokenizer.eod_id)
                mask = np.append(mask, np.uint8(0))
            if 0 < self._max_tokens < len(numbers):
                too_long[row] = f"{len(numbers)} tokens; chat.max_tokens is {self._max_tokens}"
                continue
            if literals[row]:
                raw = table["text"][row].as_py().encode()
                special.update(raw[a:b].decode() for a, b in _pairs(literals[row]))
            ids.append(numbers.astype(self._tokenizer.dtype))
            masks.append(mask)
        dropped = []
        if too_long:
            which = np.zeros(table.num_rows, np.bool_)
            which[list(too_long)] = True
            dropped = [Dropped(reason="too_long", which=which, details=list(too_long.values()))]
            table = table.filter(pa.array(~which))
        return Encoded(
            table=table,
            ids=np.concatenate([np.empty(0, self._tokenizer.dtype), *ids]),
            num_tokens=np.array([len(one) for one in ids], np.int64),
            loss_mask=np.concatenate([np.empty(0, np.uint8), *masks]),
            dropped=dropped,
            special=special,
        )

    def _by_bytes(
        self, table: pa.Table, targets: list[list[int]], literals: list[list[int]]
    ) -> dict[int, _Masked]:
        """Return row -> ids and mask of the documents whose tokens are their bytes."""
        rows = [row for row, places in enumerate(literals) if not places]
        if self._places is None or not rows:
            return {}
        data, offsets = text_arrays(table["text"].take(pa.array(rows)))
        data, offsets = data[offsets[0] : offsets[-1]], offsets - offsets[0]
        ids, bounds = self._tokenizer.encode(data, offsets)
        ends, is_exact = self._places.ends(ids, bounds, data, offsets)
        found = {}
        for number in np.flatnonzero(is_exact).tolist():
            part = slice(int(bounds[number]), int(bounds[number + 1]))
            lasts = ends[part]
            starts = np.concatenate([[0], lasts[:-1]])
            mask = _mask(starts, lasts, _pairs(targets[rows[number]]))
            found[rows[number]] = ids[part], mask
        return found

    def _by_characters(self, text: str, targets: list[int], literals: list[int]) -> _Masked:
        """Return ids and mask of a document as `tokenizers` has them."""
        to_character = _Characters(text)
        ids, places = self._encode(text, to_character.spans(literals))
        bounds = np.array(places, np.int64).reshape(-1, 2)
        mask = _mask(bounds[:, 0], bounds[:, 1], to_character.spans(targets))
        return np.array(ids, np.int64), mask


class _Characters:
    """Turns byte places of a text into characters."""

    def __init__(self, text: str) -> None:
        self._starts: NDArray[np.int64] | None = None
        if not text.isascii():
            raw = np.frombuffer(text.encode(), np.uint8)
            self._starts = np.append(np.flatnonzero((raw & 0xC0) != 0x80), len(raw))

    def spans(self, places: Sequence[int]) -> list[Span]:
        found = list(places)
        if self._starts is not None and found:
            found = np.searchsorted(self._starts, found).tolist()
        return _pairs(found)


def _pairs(places: Sequence[int]) -> list[Span]:
    return list(zip(places[::2], places[1::2], strict=True))


def _mask(
    starts: NDArray[np.int64], ends: NDArray[np.int64], targets: Sequence[Span]
) -> NDArray[np.uint8]:
    """Return uint8[num_tokens]: 1 where a token [start, end) has a part of the targets."""
    mask = np.zeros(len(starts), np.uint8)
    for first, last in targets:
        mask[np.searchsorted(ends, first, side="right") : np.searchsorted(starts, last)] = 1
    return mask
