"""Canonical composition by the book (Unicode Standard Annex 15), over lists of code points."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...tokenizer.classes import load_unicode


@cache
def _tables() -> tuple[dict[int, list[int]], dict[tuple[int, int], int]]:
    data = load_unicode()
    decomposed = {row[0]: [c for c in row[1:] if c] for row in data["decomposed"].tolist()}
    composed = {(first, second): code for first, second, code in data["composed"].tolist()}
    for syllable in range(0xAC00, 0xAC00 + 11172):
        index = syllable - 0xAC00
        leading, vowel, trailing = index // 588, index % 588 // 28, index % 28
        parts = [0x1100 + leading, 0x1161 + vowel]
        if trailing:
            composed[syllable - trailing, 0x11A7 + trailing] = syllable
            parts.append(0x11A7 + trailing)
        else:
            composed[parts[0], parts[1]] = syllable
        decomposed[syllable] = parts
    return decomposed, composed


def normalize_nfc(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Compose segments, each by itself."""
    parts = [
        _compose(bytes(data[start:end]).decode()).encode()
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), offsets


def _compose(text: str) -> str:
    decomposed, composed = _tables()
    order = load_unicode()["combining"]
    codes = [part for c in text for part in decomposed.get(ord(c), [ord(c)])]
    for i in range(len(codes)):  # sort each run of combining marks, equal ones staying in order
        j = i
        while j > 0 and order[codes[j - 1]] > order[codes[j]] > 0:
            codes[j - 1], codes[j] = codes[j], codes[j - 1]
            j -= 1
    kept: list[int] = []
    starter = -1
    for code in codes:
        between = kept[starter + 1 :]
        blocked = any(order[c] == 0 or order[c] >= order[code] for c in between)
        if starter >= 0 and not blocked and (kept[starter], code) in composed:
            kept[starter] = composed[kept[starter], code]
            continue
        if order[code] == 0:
            starter = len(kept)
        kept.append(code)
    return "".join(map(chr, kept))
