"""The sequences of a split: their numbers in, their lengths and places among its tokens out.

Sequences are counted through all shards, as if these had been merged into one prefix. What Megatron
calls a document when it samples is a sequence.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptIndexError
from .reader import IndexedDataset
from .split import TokenSplit

_TOGETHER = 1 << 16  # sequences compared together: few enough to stay in the processor's caches


class SequenceTable:
    """Lengths and places of the sequences of one split; nothing is read before it is asked for."""

    def __init__(self, split: TokenSplit) -> None:
        self._shards = split.shards
        self._sequence_ends = list(accumulate(shard.num_sequences for shard in self._shards))

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

    def starts(self) -> NDArray[np.int64]:
        """Return int64[num_sequences], the token of the split at which each sequence starts.

        Raises:
            CorruptIndexError: a sequence starts elsewhere than the one before it ends.
        """
        starts = np.empty(self.num_sequences, dtype=np.int64)
        first_sequence = first_token = 0
        for shard in self._shards:
            stop_sequence = first_sequence + shard.num_sequences
            part = starts[first_sequence:stop_sequence]
            np.cumsum(shard.sequence_lengths, dtype=np.int64, out=part)
            part -= shard.sequence_lengths
            _require_same(shard, part)
            part += first_token
            first_sequence, first_token = stop_sequence, first_token + shard.num_tokens
        return starts


def _require_same(shard: IndexedDataset, starts: NDArray[np.int64]) -> None:
    """Compare the pointers of the index with where the lengths say that sequences start."""
    pointers, itemsize = shard.sequence_pointers, shard.dtype.itemsize
    for first in range(0, len(starts), _TOGETHER):
        block = starts[first : first + _TOGETHER]
        wrong = pointers[first : first + _TOGETHER] != block * itemsize
        if wrong.any():
            w = int(np.argmax(wrong))
            raise CorruptIndexError(
                f"{shard.prefix}: sequence {first + w} starts at byte {pointers[first + w]}, but "
                f"those before it end at byte {block[w] * itemsize}. The index is damaged: copy or "
                "write the dataset again"
            )
