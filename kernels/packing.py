"""Document lengths flow in, bins of whole documents flow out: best-fit packing without truncation.

Ding, Wang, Paolini, Kumar, Deoras, Roth and Soatto, "Fewer Truncations Improve Language Modeling"
(arXiv 2404.10830). A document longer than a bin is cut into pieces that fill one each, and a rest;
rests and shorter documents are never cut. They are placed longest first, each into the bin with the
least room that is enough: best-fit decreasing, which needs at most 11/9 of the fewest possible bins
and 6/9 of one more (Dosa 2007, for first-fit decreasing; Johnson 1973 for both).

Lengths are sorted by counting, bins with equal room are a stack, and a binary tree over the amounts
of room says which stacks hold one: O(log capacity) a document, whatever the number of bins.
Memory: 40 bytes a document while it works, and 10 bytes for each unit of the capacity.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel

MAX_CAPACITY = 2**27


def pack_best_fit(
    lengths: NDArray[np.int64], capacity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Put documents into bins of `capacity` tokens.

    Args:
        lengths: int64[num_documents], tokens of each; documents without tokens are in no bin.
        capacity: tokens of a bin, 1 to 2**27.

    Returns:
        bins: int64[num_bins + 1], where the pieces of each bin start in the other two.
        documents: int64[num_pieces], the document of each piece, rising within a bin.
        offsets: int64[num_pieces], its first token in the document, a multiple of `capacity`: it
            goes on for `capacity` tokens or to the document's end.

    Raises:
        ValueError: a negative length, or a capacity out of range.

    Example: lengths 3, 9, 2, 1 and 4-token bins give [3, 9's last token], [2, 1], and two bins of
    the 9 alone: bins 0 2 4 5 6, documents 0 1 2 3 1 1, offsets 0 8 0 0 0 4.
    """
    if not 1 <= capacity <= MAX_CAPACITY:
        raise ValueError(f"a bin holds 1 to {MAX_CAPACITY} tokens, not {capacity}")
    sizes = as_readonly(lengths, np.int64)
    if len(sizes) and sizes.min() < 0:
        raise ValueError(f"a document has {sizes.min()} tokens; it has 0 or more")
    bin_of_rest = np.empty(len(sizes), dtype=np.int64)
    num_shared = _place_rests(sizes, np.int64(capacity), bin_of_rest)
    num_whole = int((sizes // capacity).sum())
    num_pieces = num_whole + int(np.count_nonzero(sizes % capacity))
    bins = np.zeros(num_shared + num_whole + 1, dtype=np.int64)
    documents = np.empty(num_pieces, dtype=np.int64)
    offsets = np.empty(num_pieces, dtype=np.int64)
    _list_pieces(
        sizes, np.int64(capacity), bin_of_rest, np.int64(num_shared), bins, documents, offsets
    )
    return bins, documents, offsets


@kernel
def _place_rests(
    lengths: NDArray[np.int64], capacity: np.int64, bin_of_rest: NDArray[np.int64]
) -> int:
    """Fill bin_of_rest, int64[num_documents] (-1: no rest); return the number of bins."""
    # Counting sort, longest rest first; of equal ones the document that comes first.
    ends = np.zeros(capacity + 1, dtype=np.int64)
    for d in range(len(lengths)):
        ends[capacity - lengths[d] % capacity] += 1
    for r in range(1, capacity + 1):
        ends[r] += ends[r - 1]
    num_rests = ends[capacity - 1]
    order = np.empty(len(lengths), dtype=np.int64)
    for d in range(len(lengths) - 1, -1, -1):
        place = capacity - lengths[d] % capacity
        ends[place] -= 1
        order[ends[place]] = d

    width = np.int64(1)
    while width <= capacity:
        width *= 2
    filled = np.zeros(2 * width, dtype=np.uint8)  # tree: whether a stack below holds a bin
    top = np.full(capacity + 1, -1, dtype=np.int64)  # of the stack for each amount of room
    below = np.empty(num_rests, dtype=np.int64)  # the bin under each in its stack
    num_bins = 0
    for d in range(len(lengths)):
        bin_of_rest[d] = -1
    for p in range(num_rests):
        document = order[p]
        length = lengths[document] % capacity
        node = length + width
        if filled[node] == 0:  # climb until there is something to the right
            while node > 1 and (node % 2 != 0 or filled[node + 1] == 0):
                node //= 2
            node += node > 1
        if node > 1:
            while node < width:
                node = 2 * node + (1 if filled[2 * node] == 0 else 0)
            room = node - width
            chosen = top[room]
            top[room] = below[chosen]
            if top[room] < 0:
                filled[node] = 0
                while node > 1 and filled[node] == 0 and filled[node ^ 1] == 0:
                    node //= 2
                    filled[node] = 0
        else:
            room = capacity
            chosen = num_bins
            num_bins += 1
        bin_of_rest[document] = chosen
        room -= length
        if room > 0:
            below[chosen] = top[room]
            top[room] = chosen
            node = room + width
            while node > 0 and filled[node] == 0:
                filled[node] = 1
                node //= 2
    return num_bins


@kernel
def _list_pieces(
    lengths: NDArray[np.int64],
    capacity: np.int64,
    bin_of_rest: NDArray[np.int64],
    num_shared: np.int64,
    bins: NDArray[np.int64],
    documents: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> None:
    """List the rests by bin, then the pieces that fill a bin each, in the order of documents."""
    for d in range(len(lengths)):
        if bin_of_rest[d] >= 0:
            bins[bin_of_rest[d] + 1] += 1
    for b in range(num_shared):
        bins[b + 1] += bins[b]
    piece = bins[num_shared]
    bin_ = num_shared
    # Every bin's start moves through its pieces, and is put back afterwards.
    for d in range(len(lengths)):
        whole = lengths[d] // capacity
        for k in range(whole):
            documents[piece] = d
            offsets[piece] = k * capacity
            piece += 1
            bin_ += 1
            bins[bin_] = piece
        if bin_of_rest[d] >= 0:
            place = bins[bin_of_rest[d]]
            documents[place] = d
            offsets[place] = whole * capacity
            bins[bin_of_rest[d]] = place + 1
    for b in range(num_shared, 0, -1):
        bins[b] = bins[b - 1]
    bins[0] = 0
