"""Classes of code points: a table asked from the tokenizer library in, class bits per code point out.

The table has two levels: `stage2[stage1[code_point >> 8], code_point & 255]`, 40 KB in all, which
stays in the first cache levels. `unicode.npz` is data; `pipeline.engine.probe_unicode` makes it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..jit import as_readonly

LETTER = 1  # \p{L}
NUMBER = 2  # \p{N}
MARK = 4  # \p{M}
SPACE = 8  # \s, CR and LF among them
UPPER = 16  # \p{Lu} \p{Lt}
LOWER = 32  # \p{Ll}
PUNCTUATION = 64  # \p{P} \p{S}
CJK = 128  # kana and Han that DeepSeek-V3 isolates
NUMERIC = 256  # Rust's char::is_numeric: what the pre-tokenizer Digits isolates
WORD = 512  # \w of Rust's regex crate: what `single_word` looks at
HAN = 1024  # \p{Han}


def fold(table: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Fold uint16[0x110000] into (stage1: uint8[4352], stage2: uint16[num_blocks, 256])."""
    blocks, inverse = np.unique(table.reshape(-1, 256), axis=0, return_inverse=True)
    assert len(blocks) <= 256
    return inverse.astype(np.uint8).reshape(-1), blocks


@cache
def load_classes() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Return (stage1: uint8[4352], stage2: uint16[num_blocks * 256]) of the pinned library."""
    data = load_unicode()
    return as_readonly(data["stage1"], np.uint8), as_readonly(data["stage2"].reshape(-1), np.uint16)


@cache
def load_unicode() -> dict[str, NDArray[np.generic]]:
    """Return all arrays of unicode.npz."""
    with np.load(Path(__file__).with_name("unicode.npz")) as file:
        return {name: file[name] for name in file.files}
