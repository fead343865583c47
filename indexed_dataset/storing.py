"""Values on their way into a file: any array in, the same values in the file's dtype out.

No id is ever wrapped or cut: what the dtype or the vocabulary does not hold is refused. (Floats are
rounded to the width of the file.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .errors import IndexedDatasetError, TokenRangeError
from .format import dtype_for_vocab_size, storage_dtype


def token_dtype(dtype: DTypeLike | None, vocab_size: int | None, prefix: str) -> np.dtype[Any]:
    """Return the dtype of a .bin, checked against the size of the vocabulary."""
    if vocab_size is None:
        if dtype is None:
            raise IndexedDatasetError(
                f"neither dtype nor vocab_size is given for {prefix}: the width of a token is "
                "unknown. Give vocab_size (and dtype only to differ from the default)"
            )
        return storage_dtype(dtype)
    default = dtype_for_vocab_size(vocab_size)
    if dtype is None:
        return default
    stored = storage_dtype(dtype)
    if stored.kind == "f" or vocab_size - 1 > int(np.iinfo(stored).max):
        raise TokenRangeError(
            f"{prefix}: dtype {stored.name} does not hold every id of a vocabulary of "
            f"{vocab_size}. Leave dtype out ({default.name} would be taken), or give a wider one"
        )
    return stored


def as_stored(
    values: ArrayLike, dtype: np.dtype[Any], path: Path, *, vocab_size: int | None, after: int
) -> NDArray[Any]:
    """Return `values` in the dtype of the file at `path`.

    Args:
        values: number[n]; the caller's array itself if it has the dtype.
        dtype: the file's.
        path: named in messages.
        vocab_size: every value must be below it; None: the dtype is the only limit.
        after: number of the document before these values, for messages.

    Raises:
        TokenRangeError: a value does not fit; names it.
        IndexedDatasetError: not one dimension, or not of numbers.
    """
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(0, dtype=dtype)
    if array.ndim != 1:
        raise IndexedDatasetError(
            f"tokens has shape {array.shape}; give the ids back to back, in one dimension"
        )
    if dtype.kind == "f" and array.dtype.kind in "fiu":
        return np.ascontiguousarray(array, dtype=dtype)
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    if array.dtype.kind not in "iu":
        raise IndexedDatasetError(
            f"tokens has dtype {array.dtype}, but {path.name} holds {dtype.name}. Convert the ids "
            "to integers first"
        )
    _check_range(array, dtype, path, vocab_size, after)
    return np.ascontiguousarray(array, dtype=dtype)


def _check_range(
    array: NDArray[Any], dtype: np.dtype[Any], path: Path, vocab_size: int | None, after: int
) -> None:
    limits = np.iinfo(dtype)
    floor, ceiling, reason = int(limits.min), int(limits.max), f"the dtype {dtype.name}"
    if vocab_size is not None:
        floor, ceiling, reason = 0, vocab_size - 1, f"vocab_size {vocab_size}"
    if int(array.min()) < floor or int(array.max()) > ceiling:
        position = int(np.argmax((array < floor) | (array > ceiling)))
        raise TokenRangeError(
            f"{path}: token id {int(array[position])} does not fit {reason}: ids must be {floor} "
            f"to {ceiling} (it is token {position} of what was added after document {after}). Give "
            "the tokenizer's true vocabulary size, or check which tokenizer made the ids"
        )
