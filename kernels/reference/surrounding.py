"""Ids around documents, by lists."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def surround_documents(
    tokens: NDArray[Any], lengths: NDArray[np.int64], before: int = -1, after: int = -1
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return (tokens, lengths) as the kernel does."""
    documents = [part.tolist() for part in np.split(tokens, np.cumsum(lengths)[:-1])]
    front, back = [before] * (before >= 0), [after] * (after >= 0)
    longer = [[*front, *ids, *back] if ids else [] for ids in documents[: len(lengths)]]
    result = np.array([one for ids in longer for one in ids], tokens.dtype)
    return result, np.array([len(ids) for ids in longer], np.int64)
