"""MurmurHash3_x64_128 on Python integers, as the published description has it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MASK = (1 << 64) - 1
C1 = 0x87C37B91114253D5
C2 = 0x4CF5AD432745937F


def hash_documents(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int = 0
) -> NDArray[np.uint64]:
    """Return uint64[num_documents, 2] of the low and the high lane."""
    text = data.tobytes()
    rows = [hash_bytes(text[start:end], seed) for start, end in document_ranges(offsets)]
    return np.array(rows, np.uint64).reshape(len(rows), 2)


def document_ranges(offsets: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return (start, end) of each document."""
    return list(pairwise(offsets.tolist()))


def mix64(word: int) -> int:
    """Return fmix64 of MurmurHash3."""
    word ^= word >> 33
    word = word * 0xFF51AFD7ED558CCD & MASK
    word ^= word >> 33
    word = word * 0xC4CEB9FE1A85EC53 & MASK
    return word ^ word >> 33


def rotate_left(word: int, bits: int) -> int:
    """Rotate a 64-bit word."""
    return (word << bits | word >> 64 - bits) & MASK


def hash_bytes(text: bytes, seed: int) -> tuple[int, int]:
    """Return the two lanes of one document."""
    low = high = seed
    whole = len(text) // 16 * 16
    for start in range(0, whole, 16):
        low ^= scramble(int.from_bytes(text[start : start + 8], "little"), C1, 31, C2)
        low = (rotate_left(low, 27) + high & MASK) * 5 + 0x52DCE729 & MASK
        high ^= scramble(int.from_bytes(text[start + 8 : start + 16], "little"), C2, 33, C1)
        high = (rotate_left(high, 31) + low & MASK) * 5 + 0x38495AB5 & MASK
    rest = text[whole:]
    high ^= scramble(int.from_bytes(rest[8:], "little"), C2, 33, C1)  # a word of 0 scrambles to 0
    low ^= scramble(int.from_bytes(rest[:8], "little"), C1, 31, C2)
    low ^= len(text)
    high ^= len(text)
    low = low + high & MASK
    high = high + low & MASK
    low, high = mix64(low), mix64(high)
    low = low + high & MASK
    return low, high + low & MASK


def scramble(word: int, first: int, bits: int, second: int) -> int:
    """Multiply, rotate, multiply."""
    return rotate_left(word * first & MASK, bits) * second & MASK
