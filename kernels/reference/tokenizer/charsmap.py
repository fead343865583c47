"""Grapheme clusters rule by rule (Unicode Standard Annex 29), and a charsmap over them."""

from __future__ import annotations

from typing import Any

from .trie import by_code_point

(OTHER, CONTROL, CR, LF, EXTEND, SPACING, ZWJ, PREPEND, L, V, T, LV, LVT, REGIONAL) = range(14)
PICTOGRAPH, CONSONANT, LINKER, CONJUNCT_EXTEND = 16, 32, 64, 128


def normalize_charsmap(
    data: Any,
    starts: Any,
    ends: Any,
    tokens: Any,
    tables: Any,
    out: Any,
    new_starts: Any,
    new_ends: Any,
) -> int:
    """Normalize segments, cluster by cluster."""
    result = b""
    for segment, (start, end, token) in enumerate(zip(starts, ends, tokens, strict=True)):
        new_starts[segment] = len(result)
        if token < 0:
            for cluster in clusters(bytes(data[start:end]).decode(), tables):
                whole = transform(cluster, tables) if len(cluster.encode()) < 6 else None
                if whole is not None:
                    result += whole
                    continue
                for character in cluster:
                    value = transform(character, tables)
                    result += character.encode() if value is None else value
        new_ends[segment] = len(result)
    out[: len(result)] = list(result)
    return len(result)


def transform(text: str, tables: Any) -> bytes | None:
    """Return the value of the shortest key that a text begins with (darts-clone's trie)."""
    units = tables.units.tolist()

    def offset(unit: int) -> int:
        return (unit >> 10) << ((unit & 1 << 9) >> 6)

    node = offset(units[0])
    for byte in text.encode():
        node ^= byte
        if byte == 0 or node >= len(units) or units[node] & 0x800000FF != byte:
            return None
        unit = units[node]
        node ^= offset(unit)
        if unit & 1 << 8:
            begin = units[node] & 0x7FFFFFFF
            return bytes(tables.values[begin:]).split(b"\0")[0]
    return None


def clusters(text: str, tables: Any) -> list[str]:
    """Cut a text into extended grapheme clusters."""
    found: list[str] = []
    for character in text:
        if found and not is_boundary(found[-1], character, tables):
            found[-1] += character
        else:
            found.append(character)
    return found


def is_boundary(cluster: str, character: str, tables: Any) -> bool:
    """Say whether a cluster ends before a character."""
    joins = [by_code_point(tables.stage1, tables.characters, c) & 255 for c in cluster + character]
    *before, after = joins
    last, new = before[-1] & 15, after & 15
    if (last, new) == (CR, LF):
        return False
    if last in (CONTROL, CR, LF) or new in (CONTROL, CR, LF):
        return True
    hangul = {L: (L, V, LV, LVT), LV: (V, T), V: (V, T), LVT: (T,), T: (T,)}
    if new in (EXTEND, SPACING, ZWJ) or last == PREPEND or new in hangul.get(last, ()):
        return False
    if after & CONSONANT:
        back = len(before)
        while back and before[back - 1] & (LINKER | CONJUNCT_EXTEND):
            back -= 1
        linked = any(join & LINKER for join in before[back:])
        if linked and back and before[back - 1] & CONSONANT:
            return False
    if after & PICTOGRAPH and last == ZWJ:
        back = len(before) - 1
        while back and before[back - 1] & 15 == EXTEND:
            back -= 1
        if back and before[back - 1] & PICTOGRAPH:
            return False
    if last == new == REGIONAL:
        run = 0
        while run < len(before) and before[-1 - run] & 15 == REGIONAL:
            run += 1
        return run % 2 == 0
    return True
