"""Buckets of documents flow in, connected components flow out: union-find on one flat array.

A component is named by its smallest member, so the result depends on neither the order of the
buckets nor on how they were split into calls. 4 bytes a document below 2**31 of them, else 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, inner_kernel, kernel


def join_buckets(parents: NDArray[Any], members: NDArray[np.int64], first: int = 0) -> int:
    """Join the components of all members of each bucket, in place.

    Two documents in -1 - 3, 5 (a bucket of 3 and 5) and -1 - 0, 3 give one component of 0, 3 and 5.

    Args:
        parents: int32 or int64[num_documents], writable; all -1 before the first call. Documents
            that are in no bucket stay -1.
        members: int64[num_members]: documents, bucket after bucket; the first document d of each
            bucket stands as -1 - d.
        first: the first document of the bucket that `members` begins in the middle of.

    Returns:
        The first document of the last bucket, for the next call.

    Raises:
        ValueError: a member is no document.
    """
    members = as_readonly(members, np.int64)
    if len(members):
        assert members[0] < 0 or parents[first] >= 0, "the first bucket's beginning is not known"
        largest = max(int(members.max()), -1 - int(members.min()), first)
        if largest >= len(parents):
            raise ValueError(
                f"a bucket has document {largest}, but there are {len(parents)}: their numbers go "
                f"from 0 to {len(parents) - 1}"
            )
    return int(_join_buckets(parents, members, np.int64(first)))


def resolve_components(parents: NDArray[Any]) -> None:
    """Name every document's component by its smallest document, in place; -1 stays.

    `parents` as left by `join_buckets`. Buckets (0, 2) and (2, 3) of five documents give
    [0, -1, 0, 0, -1].
    """
    _resolve_components(parents)


@inner_kernel
def _find_root(parents: NDArray[Any], node: Any) -> Any:
    # Path halving (Tarjan and van Leeuwen, 1984): every step links a node to its grandparent.
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = np.int64(parents[node])
    return node


@kernel
def _join_buckets(parents: NDArray[Any], members: NDArray[np.int64], first: Any) -> Any:
    for entry in range(len(members)):
        member = members[entry]
        document = member if member >= 0 else np.int64(-1) - member
        if parents[document] < 0:
            parents[document] = document
        if member < 0:
            first = document
            continue
        root_first = _find_root(parents, first)
        root = _find_root(parents, document)
        # The smaller becomes the root, so a parent is never larger than its node.
        if root_first < root:
            parents[root] = root_first
        elif root < root_first:
            parents[root_first] = root
    return first


@kernel
def _resolve_components(parents: NDArray[Any]) -> None:
    for node in range(len(parents)):
        # A parent is never larger than its node, so its root is already known.
        if parents[node] >= 0:
            parents[node] = parents[parents[node]]
