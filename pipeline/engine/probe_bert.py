"""What BERT's normalizer and pre-tokenizer do to each code point: asked once, kept in bert.npz.

    python -m gristmill.pipeline.engine.probe_bert     # writes kernels/tokenizer/bert.npz

Only after a change of the pinned `tokenizers`; a test compares the file with the installed one.
They stand on three Unicode versions at once (8.0, 9.0 and 17.0 in `tokenizers` 0.23.3), so nothing
but the library itself can say it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.tokenizer import classes
from .probe_unicode import scalars

_CHUNK = 20_000
_SEPARATOR = "|"


def probe_bert(code_points: NDArray[np.int64] | None = None) -> dict[str, NDArray[Any]]:
    """Return what changes, among the code points asked (all scalars, if None).

    cleaned: int32[n, 3]: first and last of a run of code points, and what `clean_text` makes of
        each (-1: nothing).
    stripped: int32[m, 4]: code point, and what `strip_accents` makes of it (-1 where shorter).
    lowered: int32[k, 4]: the same of `lowercase`.
    isolated: int32[j]: punctuation, which BertPreTokenizer isolates.
    removed: int32[i]: white space, which it removes.
    """
    from tokenizers import normalizers, pre_tokenizers

    asked = (scalars() if code_points is None else code_points).tolist()
    off = {"clean_text": False, "handle_chinese_chars": False, "lowercase": False}
    tables = {
        "cleaned": {**off, "clean_text": True, "strip_accents": False},
        "stripped": {**off, "strip_accents": True},
        "lowered": {**off, "lowercase": True, "strip_accents": False},
    }
    found: dict[str, NDArray[Any]] = {}
    for name, options in tables.items():
        changed = _changes(asked, normalizers.BertNormalizer(**options).normalize_str)
        if name == "cleaned":
            found[name] = _runs(changed)
            continue
        rows = [[c, *map(ord, text), *[-1] * (3 - len(text))] for c, text in changed]
        found[name] = np.array(rows, np.int32).reshape(-1, 4)
    splitter = pre_tokenizers.BertPreTokenizer()
    isolated: list[int] = []
    kept: set[int] = set()
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        text = "".join(f"{chr(c)}a" for c in part)
        for piece, (left, right) in splitter.pre_tokenize_str(text):
            if left % 2 == 0 and right - left == 1:
                isolated.append(ord(piece))
            kept.update(map(ord, piece))
    found["isolated"] = np.array(isolated, np.int32)
    found["removed"] = np.array([c for c in asked if c not in kept], np.int32)
    return found


def _changes(asked: list[int], normalize: Callable[[str], str]) -> list[tuple[int, str]]:
    """Return (code point, what it becomes) where that is something else."""
    changed = []
    for start in range(0, len(asked), _CHUNK):
        part = [chr(c) for c in asked[start : start + _CHUNK] if chr(c) != _SEPARATOR]
        results = normalize(_SEPARATOR.join(part)).split(_SEPARATOR)
        assert len(results) == len(part)
        changed += [(ord(a), b) for a, b in zip(part, results, strict=True) if a != b]
    return changed


def _runs(changed: list[tuple[int, str]]) -> NDArray[np.int32]:
    """Join neighbours that become the same: int32[n, 3], first, last, result."""
    runs: list[list[int]] = []
    for code_point, text in changed:
        result = ord(text) if text else -1
        if runs and runs[-1][1:] == [code_point - 1, result]:
            runs[-1][1] = code_point
        else:
            runs.append([code_point, code_point, result])
    return np.array(runs, np.int32).reshape(-1, 3)


def main() -> None:
    """Write kernels/tokenizer/bert.npz."""
    import tokenizers

    facts: dict[str, Any] = probe_bert()
    path = Path(classes.__file__).with_name("bert.npz")
    np.savez_compressed(path, version=np.array(tokenizers.__version__), **facts)


if __name__ == "__main__":
    main()
