"""Two texts flow in, their similarity as dedup sees it flows out: for trying out a threshold."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

from .. import kernels


def shingles(text: str, seed: int = 0) -> set[int]:
    """Return the hashes of a text's shingles: runs of 5 words, 8 ideographs, 12 kana or 16 letters.

    The text is brought to NFC first, as cleaning does. Case, width and punctuation make no
    difference, marks do. A text shorter than one run is one shingle as a whole; a text without
    words, ideographs or symbols has none.
    """
    return set(_shingle_set(text, seed)[0].tolist())


def jaccard(left: str, right: str, seed: int = 0) -> float:
    """Return the Jaccard similarity of two texts' shingle sets: what `dedup.threshold` is about.

    Exact up to 131,072 shingles a text (about a megabyte), beyond with a standard error of 0.2 %.
    Texts without a shingle are similar to nothing (0.0).
    """
    (first, one), (second, two) = _shingle_set(left, seed), _shingle_set(right, seed)
    return float(kernels.set_jaccard(first, second, max(one, two)))


def _shingle_set(text: str, seed: int) -> tuple[NDArray[np.uint64], int]:
    content = unicodedata.normalize("NFC", text).encode("utf-8", "replace")
    offsets = np.array([0, len(content)], np.int64)
    values, _, shifts, _ = kernels.shingle_lists(np.frombuffer(content, np.uint8), offsets, seed)
    return np.unique(values), int(shifts[0])
