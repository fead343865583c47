"""Documents of token ids flow in, the same documents with an id in front or behind flow out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import as_readonly, kernel


def surround_documents(
    tokens: NDArray[Any], lengths: NDArray[np.int64], before: int = -1, after: int = -1
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Put ids around each document that has tokens.

    Args:
        tokens: uint16 or int32[num_tokens], of all documents, one after the other.
        lengths: int64[num_documents], tokens of each; they add up to num_tokens.
        before: id put before a document (-1: none).
        after: id put behind it (-1: none).

    Returns:
        tokens: of the same dtype. Example: [1, 2, 3] of lengths [2, 0, 1] with after=9 becomes
            [1, 2, 9, 3, 9].
        lengths: int64[num_documents], here [3, 0, 2].
    """
    lengths = as_readonly(lengths, np.int64)
    if (len(lengths) and lengths.min() < 0) or int(lengths.sum()) != len(tokens):
        raise ValueError(
            f"the lengths of {len(lengths)} documents do not add up to {len(tokens)} tokens"
        )
    limit = np.iinfo(tokens.dtype).max
    if not (-1 <= before <= limit and -1 <= after <= limit):
        raise ValueError(f"the ids {before} and {after} do not fit {tokens.dtype.name}")
    is_filled = lengths > 0
    longer = lengths + is_filled * ((before >= 0) + (after >= 0))
    result = np.empty(int(longer.sum()), tokens.dtype)
    _surround(as_readonly(tokens, tokens.dtype), lengths, before, after, result)
    return result, longer


@kernel
def _surround(
    tokens: NDArray[Any],
    lengths: NDArray[np.int64],
    before: int,
    after: int,
    result: NDArray[Any],
) -> None:
    source = place = 0
    for document in range(len(lengths)):
        if lengths[document] == 0:
            continue
        if before >= 0:
            result[place] = before
            place += 1
        for _ in range(lengths[document]):
            result[place] = tokens[source]
            place += 1
            source += 1
        if after >= 0:
            result[place] = after
            place += 1
