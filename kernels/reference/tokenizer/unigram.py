"""The best path through a piece, string by string, in the order in which `tokenizers` sums."""

from __future__ import annotations

from typing import Any

from .trie import trie_strings

META = "\u2581"
WHITE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
WHITE += "\u200a\u2028\u2029\u202f\u205f\u3000"


def encode_unigram(
    data: Any,
    starts: Any,
    ends: Any,
    tokens: Any,
    first: Any,
    tables: Any,
    memo: Any,
    batch: Any,
    path: Any,
    out: Any,
    segment_ids: Any,
) -> int:
    """Encode segments; `memo`, `batch` and `path` are ignored."""
    vocabulary = trie_strings(tables.edges, tables.ids)
    nodes = trie_strings(tables.edges, range(len(tables.ids)))
    scores = {text: float(tables.scores[nodes[text]]) for text in vocabulary}
    ids: list[int] = []
    segment_ids[0] = 0
    for segment, (start, end, token) in enumerate(zip(starts, ends, tokens, strict=True)):
        if token >= 0:
            ids.append(int(token))
        else:
            text = bytes(data[start:end]).decode()
            for piece in split(text, bool(first[segment]), *tables.settings[1:4].tolist()):
                ids += best_path(piece, vocabulary, scores, tables)
        segment_ids[segment + 1] = len(ids)
    out[: len(ids)] = ids
    return len(ids)


def split(text: str, first: bool, prefix: int, mode: int, meta_splits: int) -> list[str]:
    """Return the pieces of a segment, with their U+2581."""
    words, at = [(text, 0)], 0
    if mode == 2:
        words, word = [], ""
        for at, character in enumerate(text + " "):
            if character not in WHITE:
                word += character
            elif word:
                words.append((word, at - len(word)))
                word = ""
    pieces = []
    for raw, place in words:
        word = raw.replace(" ", META)
        if (
            word
            and not word.startswith(META)
            and (prefix == 1 or (prefix == 2 and first and not place))
        ):
            word = META + word
        if mode == 0 or not meta_splits:
            pieces.append(word)
            continue
        head, *rest = word.split(META)
        pieces += [head, *(META + part for part in rest)]
    return [piece for piece in pieces if piece]


def best_path(
    piece: str, vocabulary: dict[str, int], scores: dict[str, float], tables: Any
) -> list[int]:
    """Return the ids of the path whose sum of scores is highest."""
    unknown, unknown_score = int(tables.settings[0]), float(tables.scores[-1])
    longest = max(map(len, vocabulary))
    best: list[tuple[float, int, int] | None] = [(0.0, -1, -1)] + [None] * len(piece)
    for start in range(len(piece)):
        here = best[start]
        assert here is not None
        steps = [
            (scores[piece[start:stop]] + here[0], stop, vocabulary[piece[start:stop]])
            for stop in range(start + 1, min(len(piece), start + longest) + 1)
            if piece[start:stop] in vocabulary
        ]
        if piece[start] not in vocabulary:
            steps.append((unknown_score + here[0], start + 1, unknown))
        for total, stop, number in steps:
            there = best[stop]
            if there is None or total > there[0]:
                best[stop] = (total, start, number)
    parts: list[tuple[str, int]] = []
    stop = len(piece)
    while stop > 0:
        step = best[stop]
        assert step is not None
        _, start, number = step
        if number == unknown and parts and parts[-1][1] == unknown:
            parts[-1] = (piece[start:stop] + parts[-1][0], unknown)
        else:
            parts.append((piece[start:stop], number))
        stop = start
    ids: list[int] = []
    for text, number in reversed(parts):
        codes = [int(tables.byte_ids[byte]) for byte in text.encode()]
        if number != unknown:
            ids.append(number)
        elif text in vocabulary:
            ids.append(vocabulary[text])
        else:
            ids += codes if min(codes) >= 0 else [unknown]
    return ids
