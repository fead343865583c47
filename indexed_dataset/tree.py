"""Whole weights in; which dataset gives position i of a blend, and where one is given, out.

Whole weights stand at the leaves of a binary tree (Huffman's, so that heavy datasets are near the
root). Of the first i samples of a node with weight `total`, its left child of weight `left` gets
floor((2*i*left + total) / (2*total)): i*left/total rounded to the nearest whole number. The right
child gets the others. So position i belongs to the left child exactly if that count grows from i
to i + 1, and where it is there is the count itself: any position costs one walk from the root.

Each node adds at most half a sample of rounding, and passes on its parent's error in proportion to
its weight. In a Huffman tree a node has at most half the weight of its grandparent, so the errors
add up to less than (1 + 1) / 2 * (1 + 1/2 + 1/4 + ...) = 2: every prefix is within two samples of
its ideal. The arithmetic is that of Python's integers, so no weight or position is too large.
"""

from __future__ import annotations

import heapq
import math
import operator
from collections.abc import Sequence

from .errors import IndexedDatasetError

MAX_DEVIATION = 2
"""No prefix of a tree is this many samples or more away from its ideal, for any dataset."""


class BlendTree:
    """Which dataset gives position i of a blend, and how many it gave before.

    Args:
        weights: whole numbers from 1 on; common factors are taken out.

    Example: BlendTree([1, 2]): positions 0 to 5 go to the datasets 1, 0, 1, 1, 0, 1.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        given = [operator.index(weight) for weight in weights]
        if not given or min(given) < 1:
            raise IndexedDatasetError(
                f"the weights are {given}: a blend has one dataset or more, each of weight 1 or "
                "more. Leave out what shall not be drawn"
            )
        factor = math.gcd(*given)
        self.weights = [weight // factor for weight in given]
        self.total_weight = sum(self.weights)
        self._nodes, self._parents = _huffman(self.weights)

    def locate(self, position: int) -> tuple[int, int]:
        """Return (dataset, index among its samples) of one position."""
        nodes, node, index = self._nodes, len(self._nodes) - 1, position
        while node >= 0:  # -1 == ~0: a blend of one dataset has no inner node
            total, twice_left, twice_total, left, right = nodes[node]
            before, rest = divmod(index * twice_left + total, twice_total)
            if rest + twice_left >= twice_total:  # one more sample raises the left child's count
                node, index = left, before
            else:
                node, index = right, index - before
        return ~node, index

    def position(self, dataset: int, index: int) -> int:
        """Return the position at which a dataset gives its sample `index`: undoes `locate`."""
        node, found = ~dataset, index
        while node in self._parents:
            parent = self._parents[node]
            total, twice_left, _, left, _ = self._nodes[parent]
            target = (2 * found + 1) * total
            if node == left:
                found = -(-target // twice_left) - 1
            else:
                found = target // (2 * total - twice_left)
            node = parent
        return found

    def counts(self, num_samples: int) -> list[int]:
        """Return how many of the first `num_samples` positions each dataset gives."""
        counts = [0] * len(self.weights)
        pending = [(len(self._nodes) - 1, num_samples)]
        while pending:
            node, number = pending.pop()
            if node < 0:
                counts[~node] = number
                continue
            total, twice_left, twice_total, left, right = self._nodes[node]
            before = (number * twice_left + total) // twice_total
            pending += [(left, before), (right, number - before)]
        return counts


_Node = tuple[int, int, int, int, int]
"""total weight, 2 * weight of the left child, 2 * total weight, left child, right child."""


def _huffman(weights: Sequence[int]) -> tuple[list[_Node], dict[int, int]]:
    """Return the inner nodes, the root last, and the parent of each node and leaf.

    Children that are datasets are written `~dataset`. Equal weights are taken in the order of the
    datasets, then of the nodes made from them, so the tree depends on the weights alone.
    """
    heap = [(weight, place, ~place) for place, weight in enumerate(weights)]
    heapq.heapify(heap)
    nodes: list[_Node] = []
    parents: dict[int, int] = {}
    while len(heap) > 1:
        left_weight, _, left = heapq.heappop(heap)
        right_weight, _, right = heap[0]
        total, node = left_weight + right_weight, len(nodes)
        nodes.append((total, 2 * left_weight, 2 * total, left, right))
        parents[left] = parents[right] = node
        heapq.heapreplace(heap, (total, len(weights) + node, node))
    return nodes, parents
