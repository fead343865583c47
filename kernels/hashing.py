"""Documents flow in, one 128-bit hash each flows out: equal bytes, equal hash, on every machine.

The algorithm is MurmurHash3_x64_128 (Appleby, public domain, 2011). Its two 64-bit lanes pass all
of SMHasher, so for texts that nobody made to collide, n different documents give a false match
with probability of about n^2 / 2^129: 1.5e-19 for ten billion documents. It is not cryptographic:
whoever wants two texts with one hash can construct them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel
from .mixing import mix64, rotate_left

_C1 = np.uint64(0x87C37B91114253D5)
_C2 = np.uint64(0x4CF5AD432745937F)
_FIVE = np.uint64(5)
_EIGHT = np.uint64(8)
_ADD_1 = np.uint64(0x52DCE729)
_ADD_2 = np.uint64(0x38495AB5)
_R27 = np.uint64(27)
_R31 = np.uint64(31)
_R33 = np.uint64(33)


def hash_documents(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int = 0
) -> NDArray[np.uint64]:
    """Hash the bytes of each document to 128 bits.

    Args:
        data: uint8[num_bytes], the documents one after another.
        offsets: int64[num_documents + 1], non-decreasing, within `data`.
        seed: 0 to 2^32 - 1.

    Returns:
        uint64[num_documents, 2]; row `d` holds the low and the high lane. The empty document with
        seed 0 gives (0, 0); viewed as bytes, a row is the 16-byte digest of other libraries.
    """
    data, offsets = as_readonly(data, np.uint8), as_readonly(offsets, np.int64)
    check_offsets(data, offsets)
    hashes = np.empty((len(offsets) - 1, 2), np.uint64)
    _hash_documents(data, offsets, np.uint64(seed), hashes)
    return hashes


def check_offsets(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
    """Raise ValueError unless every document lies within `data`: kernels do not look again."""
    if (
        len(offsets) == 0
        or offsets[0] < 0
        or offsets[-1] > len(data)
        or bool(np.any(offsets[1:] < offsets[:-1]))
    ):
        raise ValueError(
            f"the offsets of {len(offsets) - 1} documents do not lie in order within the "
            f"{len(data)} bytes of text: they must start at 0 or later, never decrease, and end "
            "at the length of the text or before"
        )


@kernel
def _hash_documents(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    seed: np.uint64,
    hashes: NDArray[np.uint64],
) -> None:
    for document in range(len(offsets) - 1):
        start, end = offsets[document], offsets[document + 1]
        low, high = seed, seed
        position = start
        while position + 16 <= end:
            low, high = _mix_block(
                low, high, _load(data, position, 8), _load(data, position + 8, 8)
            )
            position += 16
        rest = end - position
        if rest > 8:
            high ^= _scramble_high(_load(data, position + 8, rest - 8))
            rest = 8
        if rest > 0:
            low ^= _scramble_low(_load(data, position, rest))
        length = np.uint64(end - start)
        low ^= length
        high ^= length
        low += high
        high += low
        low = mix64(low)
        high = mix64(high)
        low += high
        high += low
        hashes[document, 0] = low
        hashes[document, 1] = high


@kernel
def _load(data: NDArray[np.uint8], position: int, count: int) -> np.uint64:
    """Read `count` bytes as a little-endian number (LLVM makes one load of the case 8)."""
    if count == 8:
        word = np.uint64(0)
        for index in range(8):
            word |= np.uint64(data[position + index]) << (_EIGHT * np.uint64(index))
        return word
    word = np.uint64(0)
    for index in range(count):
        word |= np.uint64(data[position + index]) << (_EIGHT * np.uint64(index))
    return word


@kernel
def _scramble_low(word: np.uint64) -> np.uint64:
    return rotate_left(word * _C1, _R31) * _C2


@kernel
def _scramble_high(word: np.uint64) -> np.uint64:
    return rotate_left(word * _C2, _R33) * _C1


@kernel
def _mix_block(
    low: np.uint64, high: np.uint64, word_1: np.uint64, word_2: np.uint64
) -> tuple[np.uint64, np.uint64]:
    low ^= _scramble_low(word_1)
    low = rotate_left(low, _R27) + high
    low = low * _FIVE + _ADD_1
    high ^= _scramble_high(word_2)
    high = rotate_left(high, _R31) + low
    high = high * _FIVE + _ADD_2
    return low, high
