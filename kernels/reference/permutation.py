"""The keyed permutation in plain Python, for one position, and in numpy, for many.

Same arithmetic as `kernels/permutation.py`, where the idea is explained: what reading samples uses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

NUM_KEYS = 16
NUM_ROUNDS = 8
"""Rounds of a permutation of FEW_ITEMS or more; one of fewer makes a round with every key."""
FEW_ITEMS = 256

_WORD = 0xFFFF_FFFF_FFFF_FFFF
_THIRTY_TWO, _THIRTY_THREE = np.uint64(32), np.uint64(33)


def permutation_grid(num_items: int, num_keys: int) -> tuple[int, int, int]:
    """Return the rows and columns of the grid, and the number of rounds.

    It is the smallest nearly square one with `num_items` cells. Example:
    permutation_grid(10, NUM_KEYS) == (4, 3, 16), and 2 of the 12 cells are walked through.
    """
    if not 1 <= num_items <= 2**62:
        raise ValueError(f"a permutation has 1 to 2**62 items, not {num_items}")
    if num_keys != NUM_KEYS:
        raise ValueError(f"a permutation takes {NUM_KEYS} round keys, not {num_keys}")
    num_rows = math.isqrt(num_items - 1) + 1
    num_rounds = NUM_KEYS if num_items < FEW_ITEMS else NUM_ROUNDS
    return num_rows, -(-num_items // num_rows), num_rounds


def permute_position(position: int, num_items: int, round_keys: Sequence[int]) -> int:
    """Return where one position goes, in Python integers.

    Args:
        position: in [0, num_items).
        num_items: N, 1 to 2**62.
        round_keys: NUM_KEYS numbers below 2**64, the key of the permutation.
    """
    num_rows, num_columns, num_rounds = permutation_grid(num_items, len(round_keys))
    if not 0 <= position < num_items:
        raise ValueError(f"position {position} is outside of 0 to {num_items - 1}")
    cell = position
    while True:
        row, column = divmod(cell, num_columns)
        for k in range(0, num_rounds, 2):
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
    """Return where each position goes: all cells make a round together, those outside walk on."""
    rows, columns, num_rounds = permutation_grid(num_items, len(round_keys))
    if len(positions) and not 0 <= positions.min() <= positions.max() < num_items:
        raise ValueError(f"a position is outside of 0 to {num_items - 1}")
    num_rows, num_columns = np.uint64(rows), np.uint64(columns)
    cells = np.array(positions, dtype=np.uint64)
    walking = np.arange(len(cells))
    while len(walking):
        row, column = np.divmod(cells[walking], num_columns)
        for k in range(0, num_rounds, 2):
            row += (_mix64s(column + round_keys[k]) * num_rows) >> _THIRTY_TWO
            row %= num_rows
            column += (_mix64s(row + round_keys[k + 1]) * num_columns) >> _THIRTY_TWO
            column %= num_columns
        cells[walking] = row * num_columns + column
        walking = walking[cells[walking] >= np.uint64(num_items)]
    return cells.astype(np.int64)


def _mix64(word: int) -> int:
    """Mix a word: `mixing.mix64` in Python integers."""
    word = (word ^ (word >> 33)) * 0xFF51AFD7ED558CCD & _WORD
    word = (word ^ (word >> 33)) * 0xC4CEB9FE1A85EC53 & _WORD
    return word ^ (word >> 33)


def _mix64s(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the upper halves of many mixed words; `words` is overwritten."""
    for factor in (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)):
        words ^= words >> _THIRTY_THREE
        words *= factor
    words ^= words >> _THIRTY_THREE
    words >>= _THIRTY_TWO
    return words
