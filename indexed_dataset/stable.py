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
from dataclasses import dataclass
from functools import lru_cache

from .orders import Span


@dataclass(frozen=True, slots=True)
class StableOrder:
    """Places of the windows of one split.

    Example: 10 tokens, windows of 3: N = 3, epoch 0 visits the starts 0, 3 and 6 in some order.
    """

    num_tokens: int
    """T, at least 1."""
    sequence_length: int
    """S, at least 1."""
    seed: int
    """Another seed, another order."""
    fingerprint: str
    """Other data, another order."""
    block_length: int = 0
    """B, a multiple of S and at most T; 0: S."""

    @property
    def samples_per_epoch(self) -> int:
        """N: whole windows in the split, at least 1 (the only one of a small split is padded)."""
        if self.num_tokens < self.sequence_length:
            return 1
        return self.num_tokens // self._block * (self._block // self.sequence_length)

    @property
    def identity(self) -> str:
        """Name, version, seed and blocks; the fingerprint is the data's."""
        blocks = "" if self._block == self.sequence_length else f" blocks of {self._block}"
        return f"stable 1 seed {self.seed}{blocks}"

    @property
    def max_samples(self) -> None:
        """There is no end."""
        return None

    @property
    def num_scored_tokens(self) -> int:
        """All labels of an epoch; of a padded sample those of its tokens but the first."""
        if self.num_tokens < self.sequence_length:
            return self.num_tokens - 1
        return self.samples_per_epoch * self.sequence_length

    @property
    def spans_are_documents(self) -> bool:
        """Windows take documents as they come."""
        return False

    def spans(self, position: int) -> tuple[Span, ...]:
        """Return the window of sample `position`: S + 1 tokens, in two parts across the end."""
        start = self.window_start(position)
        if self.num_tokens < self.sequence_length:
            return ((0, self.num_tokens),)
        beyond = start + self.sequence_length + 1 - self.num_tokens
        if beyond <= 0:
            return ((start, start + self.sequence_length + 1),)
        return (start, self.num_tokens), (0, beyond)

    def window_start(self, position: int) -> int:
        """Return the token at which sample `position` (0 on, without end) starts, in [0, T)."""
        from ..kernels.reference.permutation import permute_position

        if self.num_tokens < self.sequence_length:
            return 0
        epoch, number = divmod(position, self.samples_per_epoch)
        block, part = divmod(number, self._block // self.sequence_length)
        round_keys, offset_word = _epoch_key(self.seed, self.fingerprint, epoch)
        place = permute_position(block, self.num_tokens // self._block, round_keys)
        offset = (offset_word * self._block) >> 64 if epoch else 0
        start = offset + place * self._block + part * self.sequence_length
        return start if start < self.num_tokens else start - self.num_tokens

    @property
    def _block(self) -> int:
        return self.block_length or self.sequence_length


@lru_cache(maxsize=4096)
def _epoch_key(seed: int, fingerprint: str, epoch: int) -> tuple[tuple[int, ...], int]:
    """Return the round keys and the offset's 64 random bits of one epoch."""
    from ..kernels.reference.permutation import NUM_ROUNDS

    name = f"gristmill stable order 1\n{seed}\n{fingerprint}\n{epoch}\n".encode()
    stream = b"".join(hashlib.blake2b(name, salt=bytes([i])).digest() for i in range(2))
    words = [int.from_bytes(stream[i : i + 8], "little") for i in range(0, 8 * NUM_ROUNDS + 8, 8)]
    return tuple(words[:NUM_ROUNDS]), words[NUM_ROUNDS]
