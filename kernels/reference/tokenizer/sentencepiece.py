"""SentencePiece-style BPE as the definition has it: a gap is one word, merged pair by pair."""

from __future__ import annotations

import itertools
from typing import Any

from .trie import FREE, by_code_point

META = "\u2581"


def encode_sentencepiece(
    data: Any,
    starts: Any,
    ends: Any,
    tokens: Any,
    first: Any,
    tables: Any,
    memo: Any,
    batch: Any,
    scratch: Any,
    out: Any,
    segment_ids: Any,
) -> int:
    """Encode segments without cuts; `memo`, `batch`, `scratch` and the cut tables are ignored."""
    ranks = {
        (slot >> 44, slot >> 24 & (1 << 20) - 1): slot & (1 << 24) - 1
        for slot in tables.pairs.tolist()
        if slot != FREE
    }
    ids: list[int] = []
    segment_ids[0] = 0
    for segment, (start, end, token) in enumerate(zip(starts, ends, tokens, strict=True)):
        if token >= 0:
            ids.append(int(token))
        else:
            text = bytes(data[start:end]).decode().replace(" ", META)
            if text and add_prefix(text, int(tables.settings[2]), bool(first[segment])):
                text = META + text
            pieces = text.split(META) if tables.settings[3] else [text]
            for number, piece in enumerate(pieces):
                word = META + piece if number else piece
                ids += merge(first_symbols(word, tables), ranks, tables.rank_ids)
        segment_ids[segment + 1] = len(ids)
    out[: len(ids)] = ids
    return len(ids)


def add_prefix(text: str, mode: int, first: bool) -> bool:
    """Say whether a gap gets a U+2581 before it."""
    if mode <= 1:
        return mode == 1
    return not text.startswith(META) and (mode == 2 or first)


def first_symbols(word: str, tables: Any) -> list[int]:
    """Return the ids of characters, bytes and unknown characters that merging begins with."""
    symbols = []
    unknown, fuses = int(tables.settings[0]), tables.settings[1]
    pending = False
    for character in word:
        symbol = by_code_point(tables.stage1, tables.characters, character)
        if symbol >= 0:
            symbols.append(symbol)
            pending = False
        elif tables.byte_ids[0] >= 0:
            symbols += [int(tables.byte_ids[byte]) for byte in character.encode()]
        elif not (pending and fuses):
            symbols.append(unknown)
            pending = True
    return symbols


def merge(symbols: list[int], ranks: dict[tuple[int, int], int], rank_ids: Any) -> list[int]:
    """Join the pair of lowest rank, the leftmost of equals, until none has a rank."""
    while True:
        pairs = itertools.pairwise(symbols)
        found = [(ranks[pair], at) for at, pair in enumerate(pairs) if pair in ranks]
        if not found:
            return symbols
        rank, at = min(found)
        symbols = [*symbols[:at], int(rank_ids[rank]), *symbols[at + 2 :]]
