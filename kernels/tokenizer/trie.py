"""Vocabulary strings flow in, a trie over their code points flows out, and steps through it.

A node is a number (0: the root), an edge one 64-bit word in a table with open addressing:
node << 42 | code point << 21 | child. A step is one multiplication and mostly one cache line.
Nodes without children have the highest numbers, so that nobody looks for a child there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import as_readonly
from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner

MAX_NODES = 1 << 21

_FREE = np.uint64(0xFFFFFFFFFFFFFFFF)
_HASH = np.uint64(0x9E3779B97F4A7C15)
_ONE, _CHILD_BITS, _THIRTY_TWO = np.uint64(1), np.uint64(21), np.uint64(32)
_CHILD = np.uint64((1 << 21) - 1)


class Trie(NamedTuple):
    """Strings and the id of each."""

    edges: NDArray[np.uint64]
    """uint64[a power of two]."""
    ids: NDArray[np.int32]
    """int32[number of nodes]: id of the string that ends at each node, or -1."""
    num_inner: int
    """Nodes from this number on have no children."""


def build_trie(strings: dict[str, int]) -> Trie:
    """Return the trie of strings and their ids.

    Raises:
        ValueError: it has more than MAX_NODES nodes.
    """
    lengths = np.fromiter(map(len, strings), np.int64, len(strings))
    bounds = np.zeros(len(strings) + 1, np.int64)
    np.cumsum(lengths, out=bounds[1:])
    code_points = np.frombuffer("".join(strings).encode("utf-32-le"), np.int32)
    most = int(bounds[-1]) + 1
    edges = np.full(1 << max(4, (2 * most).bit_length()), _FREE, np.uint64)
    ids = np.full(most, -1, np.int32)
    values = np.fromiter(strings.values(), np.int32, len(strings))
    num_nodes = fill_trie(as_readonly(code_points, np.int32), bounds, values, edges, ids)
    if num_nodes > MAX_NODES:
        raise ValueError(f"a vocabulary whose trie has {num_nodes:,} nodes ({MAX_NODES:,} at most)")
    used = edges[edges != _FREE]
    inner = np.zeros(num_nodes, bool)
    inner[0] = True
    inner[(used >> np.uint64(42)).astype(np.int64)] = True
    order = np.argsort(~inner, kind="stable")
    numbers = np.empty(num_nodes, np.int32)
    numbers[order] = np.arange(num_nodes, dtype=np.int32)
    kept = np.full(1 << max(4, (2 * num_nodes - 1).bit_length()), _FREE, np.uint64)
    copy_edges(used, numbers, kept)
    return Trie(
        as_readonly(kept, np.uint64),
        as_readonly(ids[:num_nodes][order], np.int32),
        int(inner.sum()),
    )


@kernel
def child(edges: NDArray[np.uint64], node: Any, code_point: Any) -> Any:
    """Return the node that `code_point` leads to, or -1."""
    key = np.uint64(node) << _CHILD_BITS | np.uint64(code_point)
    mask = np.uint64(len(edges) - 1)
    mixed = key * _HASH
    at = (mixed ^ mixed >> _THIRTY_TWO) & mask
    while True:
        edge = edges[at]
        if edge >> _CHILD_BITS == key:
            return np.int64(edge & _CHILD)
        if edge == _FREE:
            return -1
        at = (at + _ONE) & mask


@kernel
def fill_trie(
    code_points: NDArray[np.int32],
    bounds: NDArray[np.int64],
    values: NDArray[np.int32],
    edges: NDArray[np.uint64],
    ids: NDArray[np.int32],
) -> int:
    """Insert string i, code_points[bounds[i]:bounds[i + 1]], with id values[i]; count the nodes."""
    num_nodes = 1
    for word in range(len(bounds) - 1):
        node = 0
        for index in range(bounds[word], bounds[word + 1]):
            code_point = np.int64(code_points[index])
            after = child(edges, node, code_point)
            if after < 0:
                after = num_nodes
                num_nodes += 1
                if num_nodes <= MAX_NODES:
                    _insert(edges, node, code_point, after)
            node = after
        if num_nodes <= MAX_NODES:
            ids[node] = values[word]
    return num_nodes


@inner
def _insert(edges: NDArray[np.uint64], node: Any, code_point: Any, after: Any) -> None:
    key = np.uint64(node) << _CHILD_BITS | np.uint64(code_point)
    mask = np.uint64(len(edges) - 1)
    mixed = key * _HASH
    at = (mixed ^ mixed >> _THIRTY_TWO) & mask
    while edges[at] != _FREE:
        at = (at + _ONE) & mask
    edges[at] = key << _CHILD_BITS | np.uint64(after)


@kernel
def copy_edges(
    edges: NDArray[np.uint64], numbers: NDArray[np.int32], kept: NDArray[np.uint64]
) -> None:
    """Insert edges into the table `kept`, with the new number of each node."""
    for index in range(len(edges)):
        key = edges[index] >> _CHILD_BITS
        _insert(
            kept,
            np.int64(numbers[np.int64(key >> _CHILD_BITS)]),
            np.int64(key & _CHILD),
            np.int64(numbers[np.int64(edges[index] & _CHILD)]),
        )
