"""Positions flow in, shuffled positions flow out: a permutation of [0, N) computed from a key.

A Feistel network over the grid [0, a) x [0, b) with a = ceil(sqrt(N)) and b = ceil(N / a): each
round adds a keyed hash of one coordinate to the other, which can be undone, so the whole is a
bijection of the a*b cells. Cells from N on (fewer than a of them) are walked through until the
walk comes back below N. Black and Rogaway, "Ciphers with Arbitrary Finite Domains" (CT-RSA 2002),
sections 3 and 5. Nothing is stored: any position is found alone, in a constant time.

8 rounds shuffle many items well, but not 5 or 6: of the 720 orders of 6 items, some come 2.5 times
as often as they should. After 16 rounds a chi-square test finds nothing, so few items get 16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel
from .mixing import mix64
from .reference.permutation import NUM_KEYS as NUM_KEYS
from .reference.permutation import permutation_grid

_ONE = np.uint64(1)
_THIRTY_TWO = np.uint64(32)


def permute(
    positions: NDArray[np.int64], num_items: int, round_keys: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Return where each position goes: int64[num_positions], a bijection of [0, num_items).

    Args:
        positions: int64[num_positions], each in [0, num_items).
        num_items: N, 1 to 2**62.
        round_keys: uint64[NUM_KEYS], the key of the permutation.

    Raises:
        ValueError: a position outside of [0, num_items), or another number of keys.

    Example: keys 1 to 8 send 0, 1, 2, 3, 4 of N = 5 to 2, 4, 0, 1, 3.
    """
    positions = as_readonly(positions, np.int64)
    round_keys = as_readonly(round_keys, np.uint64)
    num_rows, num_columns, num_rounds = permutation_grid(num_items, len(round_keys))
    if len(positions) and (positions.min() < 0 or positions.max() >= num_items):
        raise ValueError(
            f"positions {positions.min()} to {positions.max()} were given for a permutation of "
            f"{num_items} items: positions go from 0 to {num_items - 1}"
        )
    moved = np.empty(len(positions), dtype=np.int64)
    _permute(
        positions,
        np.uint64(num_items),
        np.uint64(num_rows),
        np.uint64(num_columns),
        round_keys[:num_rounds],
        moved,
    )
    return moved


@kernel
def _permute(
    positions: NDArray[np.int64],
    num_items: np.uint64,
    num_rows: np.uint64,
    num_columns: np.uint64,
    round_keys: NDArray[np.uint64],
    moved: NDArray[np.int64],
) -> None:
    for p in range(len(positions)):
        cell = np.uint64(positions[p])
        while True:
            row = cell // num_columns
            column = cell - row * num_columns
            for k in range(0, len(round_keys), 2):
                word = mix64(column + round_keys[k]) >> _THIRTY_TWO
                row += (word * num_rows) >> _THIRTY_TWO
                if row >= num_rows:
                    row -= num_rows
                word = mix64(row + round_keys[k + 1]) >> _THIRTY_TWO
                column += (word * num_columns) >> _THIRTY_TWO
                if column >= num_columns:
                    column -= num_columns
            cell = row * num_columns + column
            if cell < num_items:
                break
        moved[p] = np.int64(cell)
