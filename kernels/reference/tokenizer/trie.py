"""A trie in one table flows in, a dictionary of its strings flows out."""

from __future__ import annotations

from typing import Any

FREE = (1 << 64) - 1


def trie_strings(edges: Any, ids: Any) -> dict[str, int]:
    """Return the id of each string in a trie of `kernels.tokenizer.trie`."""
    below: dict[int, list[tuple[int, str]]] = {}
    for edge in edges.tolist():
        if edge != FREE:
            character = chr(edge >> 21 & (1 << 21) - 1)
            below.setdefault(edge >> 42, []).append((edge & (1 << 21) - 1, character))
    found = {}
    waiting = [(0, "")]
    while waiting:
        node, text = waiting.pop()
        if ids[node] >= 0:
            found[text] = int(ids[node])
        waiting += [(child, text + character) for child, character in below.get(node, [])]
    return found


def by_code_point(stage1: Any, values: Any, character: str) -> int:
    """Look a character up in a table folded into blocks of 256."""
    return int(values[int(stage1[ord(character) >> 8]) << 8 | ord(character) & 255])
