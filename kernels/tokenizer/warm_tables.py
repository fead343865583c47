"""Tables of nothing: what the model kernels are compiled with before there is a tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jit import as_readonly
from .charsmap import CharsmapTables
from .merges import Scratch
from .sentencepiece import SentencePieceTables
from .unigram import UnigramTables
from .wordpiece import WordPieceTables


def _zeros(dtype: Any, size: int = 1) -> NDArray[Any]:
    array: NDArray[Any] = as_readonly(np.zeros(size, dtype), dtype)
    return array


SENTENCEPIECE = SentencePieceTables(
    _zeros(np.uint16), _zeros(np.int32), _zeros(np.uint64), _zeros(np.uint64), _zeros(np.uint64),
    _zeros(np.int32), _zeros(np.int32), _zeros(np.int64, 4),
)  # fmt: skip
WORDPIECE = WordPieceTables(
    _zeros(np.uint16), _zeros(np.int32), _zeros(np.int32), _zeros(np.uint64), _zeros(np.int32),
    _zeros(np.int64, 3),
)  # fmt: skip
UNIGRAM = UnigramTables(
    _zeros(np.int32), _zeros(np.uint64), _zeros(np.int32), _zeros(np.float64), _zeros(np.int32),
    _zeros(np.int64, 5),
)  # fmt: skip
CHARSMAP = CharsmapTables(
    _zeros(np.uint16, 0x1100), _zeros(np.int32, 256), _zeros(np.uint32), _zeros(np.uint8)
)


def no_segments() -> tuple[
    NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]
]:
    """Return (data, starts, ends, tokens, first) without a segment."""
    return (
        _zeros(np.uint8, 64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32),
        np.zeros(0, np.uint8),
    )  # fmt: skip


def no_scratch() -> Scratch:
    """Return scratch for words of no bytes."""
    return Scratch._make([*(np.zeros(2, np.int32) for _ in range(4)), np.zeros(4, np.int64)])


def no_ids() -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return (out, segment_ids) for no segments."""
    return np.zeros(1, np.int32), np.zeros(1, np.int64)
