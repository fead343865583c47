"""BERT's words and their pieces, a character at a time."""

from __future__ import annotations

from typing import Any

from .trie import by_code_point, trie_strings

LETTER, SPACE, ALONE, MAPPED = 0, 1, 2, 3


def encode_wordpiece(
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
    """Encode segments; `memo`, `batch`, `scratch` and `first` are ignored."""
    vocabulary = trie_strings(tables.edges, tables.ids)
    prefix = prefix_of(tables)
    ids: list[int] = []
    segment_ids[0] = 0
    for segment, (start, end, token) in enumerate(zip(starts, ends, tokens, strict=True)):
        if token >= 0:
            ids.append(int(token))
        else:
            word = ""
            for character in bytes(data[start:end]).decode() + " ":
                entry = by_code_point(tables.stage1, tables.kinds, character)
                if entry & 3 in (LETTER, MAPPED):
                    word += character
                    continue
                ids += longest_pieces(word, tables, vocabulary, prefix)
                word = ""
                if entry & 3 == ALONE:
                    ids.append(entry >> 2)
        segment_ids[segment + 1] = len(ids)
    out[: len(ids)] = ids
    return len(ids)


def prefix_of(tables: Any) -> str | None:
    """Return what later pieces begin with: the way from the root to the node in the settings."""
    wanted = int(tables.settings[2])
    if wanted <= 0:
        return "" if wanted == 0 else None
    parents = {}
    for edge in tables.edges.tolist():
        parents[edge & (1 << 21) - 1] = (edge >> 42, chr(min(edge >> 21 & (1 << 21) - 1, 0x10FFFF)))
    text = ""
    while wanted:
        wanted, character = parents[wanted]
        text = character + text
    return text


def longest_pieces(
    raw: str, tables: Any, vocabulary: dict[str, int], prefix: str | None
) -> list[int]:
    """Cut a word into the longest strings of the vocabulary from the left."""
    word = normalize(raw, tables)
    unknown, most = int(tables.settings[0]), int(tables.settings[1])
    if len(word) > most:
        return [unknown]
    pieces, at = [], 0
    while at < len(word):
        for stop in range(len(word), at, -1):
            text = word[at:stop] if at == 0 else None if prefix is None else prefix + word[at:stop]
            if text is not None and text in vocabulary:
                pieces.append(vocabulary[text])
                at = stop
                break
        else:
            return [unknown]
    return pieces


def normalize(raw: str, tables: Any) -> str:
    """Map the characters of a word, and sort marks by their class between starters."""
    runs: list[list[tuple[int, int]]] = [[]]  # each begins behind a starter
    for character in raw:
        entry = by_code_point(tables.stage1, tables.kinds, character)
        if entry & 3 != MAPPED:
            runs += [[(0, ord(character))], []]
            continue
        number = int(tables.mapped[entry >> 2])
        items = tables.mapped[(entry >> 2) + 1 : (entry >> 2) + 1 + (number & 7)].tolist()
        for item in items:
            if item >> 24:
                runs[-1].append((item >> 24, item & 0xFFFFFF))
            else:
                runs += [[(0, item)], []]
        if number & 8:
            runs.append([])
    ordered = [item for run in runs for item in sorted(run, key=lambda pair: pair[0])]
    return "".join(chr(code_point) for _, code_point in ordered)
