"""Text without a Python string: an Arrow column in, the two arrays that kernels take out."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def text_arrays(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return a large_string column without nulls as (data: uint8[], offsets: int64[n + 1])."""
    text = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if len(text) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = text.buffers()
    bounds = np.frombuffer(offsets, np.int64)[text.offset : text.offset + len(text) + 1]
    return np.frombuffer(data or b"", np.uint8), bounds
