"""Added tokens of a tokenizer.json as tries for the kernel: their list in, up to two tries out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...kernels.jit import as_readonly
from ...kernels.tokenizer.added import (
    IGNORED,
    LSTRIP,
    MOST_FIRST_BYTES,
    RSTRIP,
    SINGLE_WORD,
    TokenTrie,
    trie_slot,
)
from .unsupported import UnsupportedError


def build_tries(
    added: Sequence[dict[str, Any]], normalize: Callable[[str], str] | None, skip_special: bool
) -> tuple[TokenTrie | None, TokenTrie | None]:
    """Return the tries that are searched in the raw text and in the normalized text.

    Args:
        added: `added_tokens` of the configuration.
        normalize: the tokenizer's normalizer; normalized tokens are looked for in its words.
        skip_special: special tokens are text like any other, in the raw and the normalized text.

    Raises:
        UnsupportedError: two tokens look the same once they are normalized, or nothing is left.
    """
    raw = [token for token in added if not token["normalized"]]
    normal = [
        token | {"content": normalize(token["content"]) if normalize else token["content"]}
        for token in added
        if token["normalized"]
    ]
    contents = [token["content"] for token in normal]
    if len(set(contents)) < len(contents) or "" in contents:
        raise UnsupportedError("added tokens that are the same, or empty, once normalized")
    return _build_trie(raw, skip_special), _build_trie(normal, skip_special)


def _build_trie(added: list[dict[str, Any]], skip_special: bool) -> TokenTrie | None:
    if not added:
        return None
    children: dict[tuple[int, int], int] = {}
    ends: dict[int, int] = {}
    for index, token in enumerate(added):
        node = 0
        for byte in token["content"].encode():
            node = children.setdefault((node, byte), len(children) + 1)
        ends[node] = index
    edges = np.zeros(2 << (2 * len(children)).bit_length(), np.int64)
    mask = len(edges) // 2 - 1
    for (node, byte), child in children.items():
        edge = (node << 8 | byte) + 1
        slot = trie_slot(edge, mask)
        while edges[2 * slot]:
            slot = (slot + 1) & mask
        edges[2 * slot], edges[2 * slot + 1] = edge, child
    tokens = np.full(len(children) + 1, -1, np.int32)
    tokens[list(ends)] = list(ends.values())
    first = sorted({byte for node, byte in children if node == 0})
    begins = np.zeros(256, bool)
    begins[first] = True
    flags = [
        token["single_word"] * SINGLE_WORD
        + token["lstrip"] * LSTRIP
        + token["rstrip"] * RSTRIP
        + (token["special"] and skip_special) * IGNORED
        for token in added
    ]
    return TokenTrie(
        first_bytes=as_readonly(np.array(first if len(first) <= MOST_FIRST_BYTES else [], np.uint8), np.uint8),
        begins=as_readonly(begins, bool),
        edges=as_readonly(edges, np.int64),
        tokens=as_readonly(tokens, np.int32),
        ids=as_readonly(np.array([token["id"] for token in added], np.int32), np.int32),
        flags=as_readonly(np.array(flags, np.uint8), np.uint8),
    )
