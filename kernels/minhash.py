"""Documents flow in, one 64-bit key for each band of their MinHash signatures flows out.

Two documents agree in one signature value with the probability of their shingle sets' Jaccard
similarity J (Broder, 1997), so they share one of b keys of r values each with probability
1 - (1 - J^r)^b (Indyk and Motwani, 1998): 20 bands of 6 rows find 99.8 % of the pairs at J = 0.8
and 27 % of those at 0.5. Keys propose pairs, `verify_group` decides.

A signature value is the minimum over the shingles of `a * x + b` modulo 2^32, `a` odd, `x` the
upper half of the shingle's hash. An odd multiplier is a bijection, wraps in hardware and keeps 8 or
16 lanes of a vector busy; the textbook's prime modulus would cost four times as much for no less
bias. Values are transient: 8 bytes a band are kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .folding import fold_table
from .hashing import check_offsets
from .jit import as_readonly, kernel
from .mixing import mix64
from .shingling import BLOCK_SHINGLES, new_state, next_shingles, start_document, word_seed

NO_KEY = 0
"""Key of a document without a shingle: it has no near copies."""

_BAND_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_THIRTY_TWO = np.uint64(32)
_ONE = np.uint64(1)
_LARGEST = np.uint32(0xFFFFFFFF)


def permutations(num_permutations: int, seed: int) -> NDArray[np.uint32]:
    """Return uint32[2, num_permutations]: odd multipliers and addends, drawn by SplitMix64.

    Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """
    mask = (1 << 64) - 1
    state = (seed * 0xD1342543DE82EF95 + 0x632BE59BD9B4E019) & mask
    drawn = np.empty((2, num_permutations), np.uint32)
    for index in range(num_permutations):
        state = (state + 0x9E3779B97F4A7C15) & mask
        word = state
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & mask
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & mask
        word ^= word >> 31
        drawn[0, index] = (word >> 32) | 1
        drawn[1, index] = word & 0xFFFFFFFF
    return drawn


def band_keys(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    num_bands: int = 20,
    rows_per_band: int = 6,
    seed: int = 0,
) -> NDArray[np.uint64]:
    """Return one key for each band and document: equal keys in one band make a candidate pair.

    Args:
        data: uint8[num_bytes], UTF-8 of the documents one after another.
        offsets: int64[num_documents + 1], non-decreasing, within `data`.
        num_bands, rows_per_band: shape of the signature, both 1 or more.
        seed: any integer; keys of different seeds cannot be compared.

    Returns:
        uint64[num_bands, num_documents]; NO_KEY in all bands where a document has no shingle.
    """
    if num_bands < 1 or rows_per_band < 1:
        raise ValueError(
            f"num_bands is {num_bands} and rows_per_band is {rows_per_band}: a signature needs "
            "at least one of each"
        )
    data, offsets = as_readonly(data, np.uint8), as_readonly(offsets, np.int64)
    check_offsets(data, offsets)
    keys = np.empty((num_bands, len(offsets) - 1), np.uint64)
    parameters = as_readonly(permutations(num_bands * rows_per_band, seed), np.uint32)
    _band_keys(data, offsets, fold_table(), parameters, word_seed(seed), keys)
    return keys


@kernel
def _band_keys(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint32],
    parameters: NDArray[np.uint32],
    seed: np.uint64,
    keys: NDArray[np.uint64],
) -> None:
    num_bands = keys.shape[0]
    rows = parameters.shape[1] // num_bands
    signature = np.empty(parameters.shape[1], np.uint32)
    shingles = np.empty(BLOCK_SHINGLES, np.uint64)
    state = new_state()
    for document in range(len(offsets) - 1):
        signature[:] = _LARGEST
        start_document(state, offsets[document], seed)
        is_empty = True
        while True:
            count = next_shingles(data, offsets[document + 1], table, state, shingles)
            if count == 0:
                break
            is_empty = False
            _take_minima(shingles, count, parameters, signature)
        for band in range(num_bands):
            if is_empty:
                keys[band, document] = np.uint64(NO_KEY)
                continue
            key = np.uint64(band) * _BAND_FACTOR
            for row in range(rows):
                key = mix64(key ^ np.uint64(signature[band * rows + row])) + _BAND_FACTOR
            keys[band, document] = max(mix64(key), _ONE)


@kernel
def _take_minima(
    shingles: NDArray[np.uint64],
    count: int,
    parameters: NDArray[np.uint32],
    signature: NDArray[np.uint32],
) -> None:
    """Lower `signature` to the minima over `shingles[:count]`; the inner loop is one of vectors."""
    multipliers, addends = parameters[0], parameters[1]
    for index in range(count):
        value = np.uint32(shingles[index] >> _THIRTY_TWO)
        for row in range(len(signature)):
            permuted = np.uint32(multipliers[row] * value + addends[row])
            signature[row] = min(signature[row], permuted)
