"""A table of rendered conversations in; token ids and a loss mask out.

`tokenizers` itself encodes, because it alone says which characters a token comes from. A token
belongs to the targets if any character of it does, as in transformers' assistant mask (which of
a character of several tokens at the end of a block takes the first alone; here it counts whole).
Where a message spells a control token, the text is cut there and that piece is encoded without
added tokens, as transformers does when it sanitizes them (`sanitize_control_tokens`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .document_tokens import Dropped, Encoded
from .tokenizer import Tokenizer
from .tokenizer_facts import load_library
from .tokenizer_files import TokenizerFile

_BEFORE = "\n"
"""Stands before a piece while it is encoded: some tokenizers treat the start of a text apart."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Tokens of one text: ids, and the characters [start, end) that each comes from."""

    ids: list[int]
    starts: list[int]
    ends: list[int]


class TextEncoder:
    """Encodes rendered texts with the control tokens that the template wrote, and no others.

    Args:
        file: of the tokenizer.
    """

    def __init__(self, file: TokenizerFile) -> None:
        # Without a post-processor offsets are those of the tokens as they are, spaces included.
        self._library = load_library(file, False, without_post_processor=True)

    def __call__(self, text: str, literals: Sequence[tuple[int, int]]) -> Pieces:
        """Encode a text; the characters of `literals` spell control tokens and are none."""
        if not literals:
            encoding = self._library.encode(text, add_special_tokens=False)
            starts, ends = zip(*encoding.offsets, strict=True) if encoding.ids else ((), ())
            return Pieces(list(encoding.ids), list(starts), list(ends))
        found = Pieces([], [], [])
        place = 0
        for start, end in [*literals, (len(text), len(text))]:
            self._add(found, text, place, start, as_text=False)
            self._add(found, text, start, end, as_text=True)
            place = end
        return found

    def _add(self, found: Pieces, text: str, start: int, end: int, *, as_text: bool) -> None:
        """Add the tokens of text[start:end] to those found so far."""
        if start == end:
            return
        before = _BEFORE if start else ""
        encode = self._encode_as_text if as_text else self._encode_plain
        ids, spans = encode(before + text[start:end])
        alone = encode(before)[0] if before else []
        if ids[: len(alone)] == alone:
            ids, spans, shift = ids[len(alone) :], spans[len(alone) :], start - len(before)
        else:  # it joined the piece
            ids, spans = encode(text[start:end])
            shift = start
        found.ids.extend(ids)
        found.starts.extend(a + shift for a, _ in spans)
        found.ends.extend(b + shift for _, b in spans)

    def _encode_plain(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self._library.encode(text, add_special_tokens=False)
        return list(encoding.ids), list(encoding.offsets)

    def _encode_as_text(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Encode a spelled-out control token: its characters, whatever tokens were added."""
        library = self._library
        normal = text
        if library.normalizer is not None:
            normal = library.normalizer.normalize_str(text)
        splits = [normal]
        if library.pre_tokenizer is not None:
            splits = [split for split, _ in library.pre_tokenizer.pre_tokenize_str(normal)]
        tokens = [token for split in splits for token in library.model.tokenize(split)]
        ids = [token.id for token in tokens]
        # All of it is inside one message: every token counts as all of the piece.
        skip = len(_BEFORE) if text.startswith(_BEFORE) else 0
        return ids, [(skip, len(text))] * len(ids)


class ConversationEncoder:
    """Encodes conversations, each ended by EOD.

    Args:
        tokenizer: the door of the run's tokenizer.
        max_tokens: longer conversations are dropped; 0: none is.
    """

    columns = ("target_spans", "literal_spans", "together_id")

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._encode = TextEncoder(tokenizer.file)

    def __call__(self, table: pa.Table) -> Encoded:
        """Encode the conversations of a table."""
        texts = table["text"].to_pylist()
        targets = table["target_spans"].to_pylist()
        literals = table["literal_spans"].to_pylist()
        ids: list[NDArray[Any]] = []
        masks: list[NDArray[np.uint8]] = []
        special: Counter[str] = Counter()
        too_long: dict[int, str] = {}
        for row, text in enumerate(texts):
            to_char = _Characters(text)
            spelled = [text[a:b] for a, b in to_char.spans(literals[row])]
            pieces = self._encode(text, to_char.spans(literals[row]))
            numbers = np.array(pieces.ids, np.int64)
            mask = _mask(pieces, to_char.spans(targets[row]))
            if len(numbers) == 0 or numbers[-1] != self._tokenizer.eod_id:
                numbers = np.append(numbers, self._tokenizer.eod_id)
                mask = np.append(mask, np.uint8(0))
            if 0 < self._max_tokens < len(numbers):
                too_long[row] = f"{len(numbers)} tokens; chat.max_tokens is {self._max_tokens}"
                continue
            special.update(spelled)
            ids.append(numbers.astype(self._tokenizer.dtype))
            masks.append(mask)
        which = np.zeros(table.num_rows, np.bool_)
        which[list(too_long)] = True
        dropped = []
        if too_long:
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


class _Characters:
    """Turns byte places of a text into characters."""

    def __init__(self, text: str) -> None:
        self._starts: NDArray[np.int64] | None = None
        if not text.isascii():
            raw = np.frombuffer(text.encode(), np.uint8)
            self._starts = np.append(np.flatnonzero((raw & 0xC0) != 0x80), len(raw))

    def spans(self, places: Sequence[int]) -> list[tuple[int, int]]:
        found = list(places)
        if self._starts is not None and found:
            found = np.searchsorted(self._starts, found).tolist()
        return list(zip(found[::2], found[1::2], strict=True))


def _mask(pieces: Pieces, targets: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """Return uint8[num_tokens]: 1 where a token has a character of the targets."""
    starts, ends = np.array(pieces.starts, np.int64), np.array(pieces.ends, np.int64)
    mask = np.zeros(len(starts), np.uint8)
    for first, last in targets:
        mask[(ends > first) & (starts < last)] = 1
    return mask
