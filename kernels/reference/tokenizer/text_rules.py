"""The small normalizers on Python strings."""

from __future__ import annotations

import re
from typing import Any

from .trie import by_code_point
from .unigram import WHITE

MAP, REPLACE, REPLACE_RUNS, STRIP = 0, 1, 2, 3
GONE = 0x1FFFFF


def apply_text_rule(
    data: Any,
    starts: Any,
    ends: Any,
    tokens: Any,
    rule: int,
    stage1: Any,
    characters: Any,
    pattern: Any,
    content: Any,
    out: Any,
    new_starts: Any,
    new_ends: Any,
) -> int:
    """Apply one rule to segments."""
    result = b""
    for segment, (start, end, token) in enumerate(zip(starts, ends, tokens, strict=True)):
        text = bytes(data[start:end]).decode() if token < 0 else ""
        if rule == STRIP:
            kept = text.lstrip(WHITE) if pattern[0] & 1 else text
            new_starts[segment] = start + len(text.encode()) - len(kept.encode())
            kept = kept.rstrip(WHITE) if pattern[0] & 2 else kept
            new_ends[segment] = new_starts[segment] + len(kept.encode())
            continue
        new_starts[segment] = len(result)
        if rule == MAP:
            text = "".join(map_character(c, stage1, characters) for c in text)
        elif rule == REPLACE:
            text = text.replace(bytes(pattern).decode(), bytes(content).decode())
        else:
            runs = re.escape(bytes(pattern).decode()) + "{2,}"
            text = re.sub(runs, lambda _: bytes(content).decode(), text)
        result += text.encode()
        new_ends[segment] = len(result)
    out[: len(result)] = list(result)
    return len(result)


def map_character(character: str, stage1: Any, characters: Any) -> str:
    """Return what a character becomes by a table."""
    entry = by_code_point(stage1, characters, character)
    if entry == 0:
        return character
    if entry == GONE:
        return ""
    return chr(entry & GONE) + (chr(entry >> 21) if entry >> 21 else "")
