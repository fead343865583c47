"""How code points join into grapheme clusters, as `tokenizers` sees it: kept in graphemes.npz.

    python -m gristmill.pipeline.engine.probe_graphemes   # writes kernels/tokenizer/graphemes.npz

Only after a change of the pinned `tokenizers`; a test compares the file with the installed one.
The library does not show its clusters, but a charsmap does: where "a" is a key, "a" and a mark
in one short cluster become the value of "a" alone, in two clusters or a long one the mark stays.
So each rule of Unicode Standard Annex 29 is asked with a context in which it decides.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...kernels.tokenizer import charsmap, classes
from .charsmap_files import write_charsmap
from .probe_unicode import NUM_CODE_POINTS, scalars

_MARK = "\u0301"
_JOINER = "\u200d"
_KEYS = {"a": "A", "\xa9": "C", "\u0915": "K", "\u1100": "L", "\u1161": "V", "\u11a8": "T"}
_CHUNK = 5000
_SEPARATOR = "\x01"  # a control: a boundary on both sides

_QUESTIONS = {
    # name: (before the code point, behind it, key whose cluster is looked at)
    "prepend": ("", "a", "a"),
    "before L": ("", "\u1100", "\u1100"),
    "before V": ("", "\u1161", "\u1161"),
    "before T": ("", "\u11a8", "\u11a8"),
    "pictograph": ("", f"{_JOINER}\xa9", "\xa9"),
    "extend": ("\xa9", f"{_JOINER}\xa9", "\xa9"),
    "consonant": ("", "\u094d\u0915", "\u0915"),
    "linker": ("\u0915", "\u0915", "\u0915"),
    "conjunct extend": ("\u0915\u094d", "\u0915", "\u0915"),
}


def probe_graphemes(code_points: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
    """Return uint8[0x110000]: `joins` (see charsmap.py) of each code point asked (all, if None)."""
    asked = scalars() if code_points is None else code_points
    asked = asked[asked != ord(_SEPARATOR)]
    table = np.zeros(NUM_CODE_POINTS, np.uint8)
    table[1] = charsmap.CONTROL
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        table[part] = _ask(part)
    return table


def _ask(part: NDArray[np.int64]) -> NDArray[np.uint8]:
    from tokenizers import normalizers

    normalize = normalizers.Precompiled(write_charsmap(_KEYS)).normalize_str
    marks = normalizers.Precompiled(write_charsmap({_MARK: "Z"})).normalize_str
    characters = [chr(c) for c in part.tolist()]

    def answers(function, before: str, behind: str) -> list[str]:  # type: ignore[no-untyped-def]
        text = _SEPARATOR.join(before + c + behind for c in characters)
        results: list[str] = function(text).split(_SEPARATOR)
        assert len(results) == len(characters)
        return results

    def joined(name: str) -> NDArray[np.bool_]:
        # A key and a mark are a short cluster of their own unless the key joins what is before it.
        before, behind, key = _QUESTIONS[name]
        results = answers(normalize, before, behind + _MARK)
        return np.array([r.endswith(_KEYS[key] + _MARK) for r in results])

    attached = np.array([r == "A" for r in answers(normalize, "a", "")])
    control = np.array([r.count("Z") == 1 for r in answers(marks, "", _MARK * 2)])
    is_l, is_v, is_t = joined("before L"), joined("before V"), joined("before T")
    syllable = (part >= 0xAC00) & (part <= 0xD7A3)
    lv = syllable & ((part - 0xAC00) % 28 == 0)
    classes_found = np.select(
        [
            part == 13,
            part == 10,
            control,
            part == ord(_JOINER),
            attached & joined("extend"),
            attached,
            joined("prepend"),
            lv,
            syllable,
            is_l,
            is_v,
            is_t,
            (part >= 0x1F1E6) & (part <= 0x1F1FF),
        ],
        [
            charsmap.CR,
            charsmap.LF,
            charsmap.CONTROL,
            charsmap.ZWJ,
            charsmap.EXTEND,
            charsmap.SPACING,
            charsmap.PREPEND,
            charsmap.HANGUL_LV,
            charsmap.HANGUL_LVT,
            charsmap.HANGUL_L,
            charsmap.HANGUL_V,
            charsmap.HANGUL_T,
            charsmap.REGIONAL,
        ],
        charsmap.OTHER,
    )
    plain = ~attached & ~control & ~joined("prepend")
    linker = attached & joined("linker")
    bits = (
        plain & joined("pictograph"),
        plain & joined("consonant"),
        linker,
        attached & joined("conjunct extend") & ~linker,
    )
    names = (charsmap.PICTOGRAPH, charsmap.CONSONANT, charsmap.LINKER, charsmap.CONJUNCT_EXTEND)
    for answer, bit in zip(bits, names, strict=True):
        classes_found = classes_found | answer * bit
    return classes_found.astype(np.uint8)


def main() -> None:
    """Write kernels/tokenizer/graphemes.npz."""
    import tokenizers

    blocks, stage1 = np.unique(probe_graphemes().reshape(-1, 256), axis=0, return_inverse=True)
    np.savez_compressed(
        Path(classes.__file__).with_name("graphemes.npz"),
        version=np.array(tokenizers.__version__),
        stage1=stage1.astype(np.uint8).reshape(-1),
        blocks=blocks,
    )


if __name__ == "__main__":
    main()
