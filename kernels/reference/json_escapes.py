"""Escapes resolved by Python's own parser."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray


def unescape_json(
    data: NDArray[np.uint8], spans: NDArray[np.int64], escaped: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return (text, offsets) as the kernel does."""
    raw = data.tobytes()
    texts = [
        json.loads(b'"' + raw[start:end] + b'"').encode() if is_escaped else raw[start:end]
        for (start, end), is_escaped in zip(spans.tolist(), escaped, strict=True)
    ]
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    return np.frombuffer(b"".join(texts) + bytes(64), np.uint8), offsets
