"""The order `stable`: a sample's number in, the place of its window out. Nothing is stored.

T tokens and windows of S tokens give N = T // S windows an epoch. Epoch e shifts all windows by an
offset o_e in [0, S) (o_0 = 0) around the ring of tokens, so that windows begin elsewhere every
time, and visits them by a permutation of [0, N). Both are computed from (seed, fingerprint of the
data, e): not from the length of the run, the number of ranks or the rest of a blend.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .orders import Span

_VERSION = 2  # 1 made 8 rounds for few windows as well, too few to shuffle them
_BLOCK = 256  # windows found together: as long as finding 23 of them alone


class StableOrder:
    """Places of the windows of one split.

    Args:
        num_tokens: T, at least 1.
        sequence_length: S, at least 1.
        seed: another seed, another order.
        fingerprint: of the data: other data, another order.

    Example: 10 tokens, windows of 3: N = 3, epoch 0 visits the starts 0, 3 and 6 in some order.

    Whoever reads on gets the places of a block computed together, which takes a tenth of the time;
    it is a memory of the last block and changes no place. Threads may ask at the same time.
    """

    spans_are_documents = False
    max_samples = None

    def __init__(self, num_tokens: int, sequence_length: int, seed: int, fingerprint: str) -> None:
        self.num_tokens = num_tokens
        self.sequence_length = sequence_length
        self.seed = seed
        self.fingerprint = fingerprint
        self.samples_per_epoch = max(num_tokens // sequence_length, 1)
        """N: whole windows in the split, at least 1 (the only one of a small split is padded)."""
        self._touched = -1  # the block that the last place was asked from
        self._block: tuple[int, NDArray[np.int64]] = (0, np.empty(0, dtype=np.int64))

    @property
    def identity(self) -> str:
        """Name, version and seed; the fingerprint is the data's."""
        return f"stable {_VERSION} seed {self.seed}"

    @property
    def num_scored_tokens(self) -> int:
        """All labels of an epoch; of a padded sample those of its tokens but the first."""
        if self.num_tokens < self.sequence_length:
            return self.num_tokens - 1
        return self.samples_per_epoch * self.sequence_length

    def spans(self, position: int) -> tuple[Span, ...]:
        """Return the window of sample `position`: S + 1 tokens, in two parts across the end."""
        start = self.window_start(position)
        stop = start + self.sequence_length + 1
        if stop <= self.num_tokens:
            return ((start, stop),)
        if self.num_tokens < self.sequence_length:
            return ((0, self.num_tokens),)
        return (start, self.num_tokens), (0, stop - self.num_tokens)

    def window_start(self, position: int) -> int:
        """Return the token at which sample `position` (0 on, without end) starts, in [0, T)."""
        first, starts = self._block
        if 0 <= position - first < len(starts):
            return starts.item(position - first)
        if self.num_tokens < self.sequence_length:
            return 0
        from ..kernels.reference.permutation import permute, permute_position

        epoch, number = divmod(position, self.samples_per_epoch)
        round_keys, offset_word = _epoch_key(self.seed, self.fingerprint, epoch)
        offset = (offset_word * self.sequence_length) >> 64 if epoch else 0
        block = position - number % _BLOCK  # blocks begin anew with every epoch
        if block != self._touched:
            self._touched = block
            window = permute_position(number, self.samples_per_epoch, round_keys)
            return offset + window * self.sequence_length
        begin = number - number % _BLOCK
        numbers = np.arange(begin, min(begin + _BLOCK, self.samples_per_epoch))
        keys = np.array(round_keys, dtype=np.uint64)
        windows = permute(numbers, self.samples_per_epoch, keys)
        self._block = first, starts = block, offset + windows * self.sequence_length
        return starts.item(position - first)


@lru_cache(maxsize=4096)
def _epoch_key(seed: int, fingerprint: str, epoch: int) -> tuple[tuple[int, ...], int]:
    """Return the round keys and the offset's 64 random bits of one epoch."""
    from ..kernels.reference.permutation import NUM_KEYS

    name = f"gristmill stable order {_VERSION}\n{seed}\n{fingerprint}\n{epoch}\n".encode()
    stream = b"".join(hashlib.blake2b(name, salt=bytes([i])).digest() for i in range(3))
    words = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 8 * NUM_KEYS + 8, 8)]
    return tuple(words[:NUM_KEYS]), words[NUM_KEYS]
