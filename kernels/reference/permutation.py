"""The keyed permutation in plain Python and in numpy: what reading a single sample uses.

Same arithmetic as `kernels/permutation.py`, where the idea is explained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_ROUNDS = 8

_WORD = 0xFFFF_FFFF_FFFF_FFFF


def permutation_grid(num_items: int, num_keys: int) -> tuple[int, int]:
    """Return rows and columns of the smallest nearly square grid with `num_items` cells.

    Example: permutation_grid(10, NUM_ROUNDS) == (4, 3), of whose 12 cells 2 are walked through.
    """
    if not 1 <= num_items <= 2**62:
        raise ValueError(f"a permutation has 1 to 2**62 items, not {num_items}")
    if num_keys != NUM_ROUNDS:
        raise ValueError(f"a permutation takes {NUM_ROUNDS} round keys, not {num_keys}")
    num_rows = math.isqrt(num_items - 1) + 1
    return num_rows, -(-num_items // num_rows)


def permute_position(position: int, num_items: int, round_keys: Sequence[int]) -> int:
    """Return where one position goes, in Python integers.

    Args:
        position: in [0, num_items).
        num_items: N, 1 to 2**62.
        round_keys: NUM_ROUNDS numbers below 2**64, the key of the permutation.
    """
    num_rows, num_columns = permutation_grid(num_items, len(round_keys))
    if not 0 <= position < num_items:
        raise ValueError(f"position {position} is outside of 0 to {num_items - 1}")
    cell = position
    while True:
        row, column = divmod(cell, num_columns)
        for k in range(0, NUM_ROUNDS, 2):
            word = _mix64((column + round_keys[k]) & _WORD) >> 32
            row = (row + (word * num_rows >> 32)) % num_rows
            word = _mix64((row + round_keys[k + 1]) & _WORD) >> 32
            column = (column + (word * num_columns >> 32)) % num_columns
        cell = row * num_columns + column
        if cell < num_items:
            return cell


def permute(
    positions: NDArray[np.int64], num_items: int, round_keys: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Return where each position goes, one `permute_position` after the other."""
    keys = [int(key) for key in round_keys]
    moved = [permute_position(int(position), num_items, keys) for position in positions]
    return np.array(moved, dtype=np.int64)


def _mix64(word: int) -> int:
    """Mix a word: `mixing.mix64` in Python integers."""
    word = (word ^ (word >> 33)) * 0xFF51AFD7ED558CCD & _WORD
    word = (word ^ (word >> 33)) * 0xC4CEB9FE1A85EC53 & _WORD
    return word ^ (word >> 33)
