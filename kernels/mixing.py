"""One 64-bit word flows in, one thoroughly mixed 64-bit word flows out: what all hashes share.

Numba turns `uint64 op int64` into float64, so every constant here is a `np.uint64`.
"""

from __future__ import annotations

import numpy as np

from .jit import kernel

_MULTIPLIER_1 = np.uint64(0xFF51AFD7ED558CCD)
_MULTIPLIER_2 = np.uint64(0xC4CEB9FE1A85EC53)
_THIRTY_THREE = np.uint64(33)
_SIXTY_FOUR = np.uint64(64)


@kernel
def mix64(word: np.uint64) -> np.uint64:
    """Mix a word so that each input bit flips each output bit half of the time (a bijection).

    `fmix64` of MurmurHash3 (Appleby, public domain, 2011): mix64(0) = 0,
    mix64(1) = 0xb456bcfc34c2cb2c.
    """
    word ^= word >> _THIRTY_THREE
    word *= _MULTIPLIER_1
    word ^= word >> _THIRTY_THREE
    word *= _MULTIPLIER_2
    word ^= word >> _THIRTY_THREE
    return word


@kernel
def rotate_left(word: np.uint64, bits: np.uint64) -> np.uint64:
    """Rotate a word left by `bits` in 1..63."""
    return np.uint64((word << bits) | (word >> (_SIXTY_FOUR - bits)))


@kernel
def signed(word: np.unsignedinteger) -> int:
    """Return an unsigned number as int64: numba's `int()` would keep it unsigned."""
    return np.int64(word)  # type: ignore[return-value]
