"""The order `stable`: a sample's number in, the place of its window out. Nothing is stored.

T tokens and windows of S tokens give N = T // S windows an epoch. Epoch e shifts all windows by an
offset o_e in [0, S) (o_0 = 0) around the ring of tokens, so that windows begin elsewhere every
time, and visits them by a permutation of [0, N). Both are computed from (seed, fingerprint of the
data, e): not from the length of the run, the number of ranks or the rest of a blend.

With blocks of B tokens, B a multiple of S, the same is done with blocks instead of windows, and a
block gives its B // S windows one after the other. So samples of every length that divides B come
from one order of tokens: after c of its tokens were given, any of these lengths can go on at c.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .orders import Span

_VERSION = 2  # 1 made 8 rounds for few windows as well, too few to shuffle them
_NAME = f"stable order {_VERSION}"
TOGETHER = 256  # windows found together: as long as finding 23 of them alone


class StableOrder:
    """Places of the windows of one split.

    Args:
        num_tokens: T, at least 1.
        sequence_length: S, at least 1.
        seed: another seed, another order.
        fingerprint: of the data: other data, another order.
        block_length: B, a multiple of S and at most T; 0: S. Without meaning where T < S.

    Example: 10 tokens, windows of 3: N = 3, epoch 0 visits the starts 0, 3 and 6 in some order.

    Whoever reads on gets many places computed together, which takes a tenth of the time; it is a
    memory of the last ones and changes no place. Threads may ask at the same time.
    """

    spans_are_documents = False
    max_samples = None

    def __init__(
        self,
        num_tokens: int,
        sequence_length: int,
        seed: int,
        fingerprint: str,
        block_length: int = 0,
    ) -> None:
        self.num_tokens = num_tokens
        self.sequence_length = sequence_length
        self.seed = seed
        self.fingerprint = fingerprint
        self.block_length = block_length or sequence_length
        self._parts = self.block_length // sequence_length  # windows of a block
        self._num_blocks = num_tokens // self.block_length
        whole = num_tokens >= sequence_length
        self.samples_per_epoch = self._num_blocks * self._parts if whole else 1
        """N: whole windows in the split, at least 1 (the only one of a small split is padded)."""
        self._touched = -1  # first of the windows that the last place was asked from
        self._known: tuple[int, NDArray[np.int64]] = (0, np.empty(0, dtype=np.int64))

    @property
    def identity(self) -> str:
        """Name, version, seed and blocks; the fingerprint is the data's."""
        blocks = "" if self._parts == 1 else f" blocks of {self.block_length}"
        return f"stable {_VERSION} seed {self.seed}{blocks}"

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
        first, starts = self._known
        if 0 <= position - first < len(starts):
            return int(starts[position - first])
        if self.num_tokens < self.sequence_length:
            return 0
        from ..kernels.reference.permutation import permute, permute_position

        epoch, number = divmod(position, self.samples_per_epoch)
        round_keys, offset_word = epoch_key(_NAME, self.seed, self.fingerprint, epoch)
        offset = (offset_word * self.block_length) >> 64 if epoch else 0
        first = position - number % TOGETHER  # they begin anew with every epoch
        if first != self._touched:
            self._touched = first
            block, part = divmod(number, self._parts)
            place = permute_position(block, self._num_blocks, round_keys)
            start = offset + place * self.block_length + part * self.sequence_length
            return start % self.num_tokens
        begin = number - number % TOGETHER
        numbers = np.arange(begin, min(begin + TOGETHER, self.samples_per_epoch))
        blocks, parts = np.divmod(numbers, self._parts)
        places = permute(blocks, self._num_blocks, np.array(round_keys, dtype=np.uint64))
        starts = offset + places * self.block_length + parts * self.sequence_length
        starts %= self.num_tokens
        self._known = first, starts
        return int(starts[position - first])


@lru_cache(maxsize=4096)
def epoch_key(order: str, seed: int, fingerprint: str, epoch: int) -> tuple[tuple[int, ...], int]:
    """Return the round keys of one epoch and 64 more random bits, for an offset.

    Args:
        order: name and version: what is shuffled.
    """
    from ..kernels.reference.permutation import NUM_KEYS

    name = f"gristmill {order}\n{seed}\n{fingerprint}\n{epoch}\n".encode()
    stream = b"".join(hashlib.blake2b(name, salt=bytes([i])).digest() for i in range(3))
    words = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 8 * NUM_KEYS + 8, 8)]
    return tuple(words[:NUM_KEYS]), words[NUM_KEYS]
