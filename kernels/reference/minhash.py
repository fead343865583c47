"""Band keys by the definition of MinHash: minima of permutations over a set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..minhash import NO_KEY, permutations
from .hashing import MASK, document_ranges, mix64
from .shingling import shingles

BAND_FACTOR = 0x9E3779B97F4A7C15


def band_keys(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    num_bands: int = 20,
    rows_per_band: int = 6,
    seed: int = 0,
) -> NDArray[np.uint64]:
    """Return uint64[num_bands, num_documents] of band keys."""
    text = data.tobytes()
    keys = np.full((num_bands, len(offsets) - 1), NO_KEY, np.uint64)
    for document, (start, end) in enumerate(document_ranges(offsets)):
        values = shingles(text[start:end], seed)
        if not values:
            continue
        signature = minima(values, num_bands * rows_per_band, seed)
        for band in range(num_bands):
            key = band * BAND_FACTOR & MASK
            for value in signature[band * rows_per_band : (band + 1) * rows_per_band]:
                key = mix64(key ^ value) + BAND_FACTOR & MASK
            keys[band, document] = max(mix64(key), 1)
    return keys


def minima(values: set[int], num_permutations: int, seed: int) -> list[int]:
    """Return the smallest `a * x + b` modulo 2^32 of each permutation, x the upper 32 bits."""
    multipliers, addends = permutations(num_permutations, seed).tolist()
    return [
        min((multiplier * (value >> 32) + addend) % (1 << 32) for value in values)
        for multiplier, addend in zip(multipliers, addends, strict=True)
    ]
