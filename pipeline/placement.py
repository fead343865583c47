"""Where a document goes, decided by what it is: 128-bit ids in, keyed 64-bit hashes out.

Order, shard, validation and the tokenizer's sample all follow from such hashes, so that none of
them depends on workers, on the order of files, or on what other documents there are.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Purpose = Literal["placement", "validation", "tokenizer_sample", "report_sample"]

_PURPOSES: dict[Purpose, int] = {
    "placement": 1,
    "validation": 2,
    "tokenizer_sample": 3,
    "report_sample": 4,
}
"""Keeps hashes of one id apart that are made for different ends."""

_GOLDEN = 0x9E3779B97F4A7C15


def keyed_hash(ids: NDArray[np.uint64], seed: int, purpose: Purpose) -> NDArray[np.uint64]:
    """Hash document ids with a key.

    The ids are hashes themselves, so a mixer is enough: h = mix(mix(low ^ k) + high), where mix
    is the finalizer of splitmix64 (Steele, Lea & Flood 2014) and k is mixed from seed and purpose.

    Args:
        ids: uint64[n, 2], low and high half of each id (`text_column.id_words`).
        seed: any integer.
        purpose: what the hash is for.

    Returns:
        uint64[n].
    """
    first = np.array([(seed * _GOLDEN + _PURPOSES[purpose]) % (1 << 64)], np.uint64)
    return _mix(_mix(ids[:, 0] ^ _mix(first)) + ids[:, 1])


def _mix(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    word = word + np.uint64(_GOLDEN)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
