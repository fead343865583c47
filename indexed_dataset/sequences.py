"""The sequences of a split: their numbers in, their lengths and places among its tokens out.

Sequences are counted through all shards, as if these had been merged into one prefix. What Megatron
calls a document when it samples is a sequence.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptIndexError
from .reader import IndexedDataset
from .split import TokenSplit


class SequenceTable:
    """Lengths and places of the sequences of one split; nothing is read before it is asked for."""

    def __init__(self, split: TokenSplit) -> None:
        self._shards = split.shards
        self._sequence_ends = list(accumulate(shard.num_sequences for shard in self._shards))
        self._token_ends = list(accumulate(shard.num_tokens for shard in self._shards))

    @property
    def num_sequences(self) -> int:
        """Sequences of all shards, empty ones included."""
        return self._sequence_ends[-1]

    def lengths(self) -> NDArray[np.int32]:
        """Return int32[num_sequences], tokens of each; of a single shard as it is mapped."""
        parts = [shard.sequence_lengths for shard in self._shards]
        lengths = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if lengths.size and lengths.min() < 0:
            raise CorruptIndexError(
                f"{self._shards[0].prefix}: a sequence has {lengths.min()} tokens. The index is "
                "damaged: copy or write the dataset again"
            )
        return lengths

    def starts(self, numbers: NDArray[Any], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64[n], the token of the split at which each of n sequences starts.

        Args:
            numbers: integers[n], of the sequences, in any order.
            lengths: int64[n], tokens of each: the index must agree with them.

        Raises:
            CorruptIndexError: a sequence starts elsewhere than its neighbour ends.
        """
        if len(self._shards) == 1:
            return _starts_in_shard(self._shards[0], numbers, lengths)
        starts = np.empty(len(numbers), dtype=np.int64)
        shards = np.searchsorted(self._sequence_ends, numbers, side="right")
        for s in np.unique(shards):
            chosen = shards == s
            first_sequence = self._sequence_ends[s - 1] if s else 0
            first_token = self._token_ends[s - 1] if s else 0
            starts[chosen] = first_token + _starts_in_shard(
                self._shards[s], numbers[chosen] - first_sequence, lengths[chosen]
            )
        return starts


def _starts_in_shard(
    shard: IndexedDataset, numbers: NDArray[Any], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    itemsize, pointers = shard.dtype.itemsize, shard.sequence_pointers
    last = shard.num_sequences - 1
    begins = pointers[numbers]
    ends = pointers[np.minimum(numbers + 1, last)]
    ends[numbers == last] = shard.num_tokens * itemsize
    wrong = ends - begins != lengths * itemsize
    starts: NDArray[np.int64] = begins // itemsize
    if wrong.any():
        w = int(np.argmax(wrong))
        raise CorruptIndexError(
            f"{shard.prefix}: sequence {numbers[w]} has {lengths[w]} tokens but spans the tokens "
            f"{starts[w]} to {ends[w] // itemsize}. The index is damaged: copy or write the "
            "dataset again"
        )
    return starts
