"""Samples in, samples for masked language models out: tokens with masks, and what stood there.

    tokens      the mill grinds the grain        the mill [MASK] the house
    labels                                       the mill grinds the grain
    loss_mask                                     0   0     1     0    1

Where there are masks follows from a seed, the sample's number and the place (`kernels.masking`):
whoever reads sample 17 of a blend, in whatever batch, on whatever rank, sees the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import TokenRangeError


@dataclass(frozen=True)
class Masking:
    """How samples are masked: call it with arrays of samples and their numbers.

    Needs numba (`pip install gristmill[trainer]` brings it).
    """

    special: NDArray[np.bool_]
    """bool[num_ids]: ids that are never masked, and never drawn in place of another."""
    mask_id: int
    """Id of the mask token; it may be num_ids or more."""
    seed: int = 0
    """Of all masks."""
    share: float = 0.3
    """Expected share of tokens that are to be predicted, special ones and padding aside."""
    mask_share: float = 0.8
    """Of these, those that become mask_id."""
    random_share: float = 0.1
    """Of these, those that become a random id; the others stay."""
    continues: NDArray[np.bool_] | None = None
    """bool[num_ids]: ids that belong to the word of the token before them; then all tokens of a
    word are masked together. None: each on its own."""

    def __call__(
        self,
        tokens: NDArray[np.int64],
        loss_mask: NDArray[np.bool_],
        numbers: Sequence[int] | NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return tokens with masks, int64[num_samples, length], and which places count, bool.

        The labels are `tokens` themselves.

        Args:
            tokens: int64[num_samples, length].
            loss_mask: bool[num_samples, length], as samples have it: where it is false nothing is
                masked. That is padding, and with documents apart the last token of each document,
                which ends it.
            numbers: int64[num_samples], a number of its own for each sample, of any epoch.

        Raises:
            TokenRangeError: an id that `special` does not know; shares that cannot be.
        """
        from ..kernels import mask_tokens

        flags = self._flags
        try:
            masked: tuple[NDArray[np.int64], NDArray[np.bool_]] = mask_tokens(
                tokens,
                loss_mask,
                np.asarray(numbers, dtype=np.int64),
                self.seed,
                flags,
                self.mask_id,
                self.share,
                self.mask_share,
                self.random_share,
                self.continues is not None,
            )
        except ValueError as error:
            raise TokenRangeError(f"tokens cannot be masked: {error}") from None
        return masked

    @cached_property
    def _flags(self) -> NDArray[np.uint8]:
        from ..kernels.reference.masking import CONTINUES, NEVER

        if self.special.all():
            raise TokenRangeError(
                f"all {len(self.special)} ids are special tokens: there is nothing to mask. Give a "
                "vocabulary with others"
            )
        flags = self.special.astype(np.uint8) * np.uint8(NEVER)
        if self.continues is not None:
            flags |= self.continues.astype(np.uint8) * np.uint8(CONTINUES)
        return flags

    def sample(self, sample: Any, number: int) -> Any:
        """Return one sample of a dataset or blend, masked: a copy, the other keys as they are."""
        tokens = sample["tokens"]
        masked, chosen = self(tokens[None], sample["loss_mask"][None] > 0, [number])
        loss_mask = chosen[0].astype(np.float32)
        return {**sample, "tokens": masked[0], "labels": tokens, "loss_mask": loss_mask}
