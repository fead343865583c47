"""Unicode facts as the installed `tokenizers` sees them: its answers in, unicode.npz out.

Ids depend on which code points are letters, digits, marks and white space, and no two libraries
agree on that: Oniguruma inside `tokenizers` 0.23.3 knows Unicode 16, its normalizers Unicode 9,
Python 3.11 Unicode 14. So the tables are asked from the library itself, over all code points:

    python -m gristmill.pipeline.engine.probe_unicode     # writes kernels/tokenizer/unicode.npz

Only after a change of the pinned `tokenizers`; a test compares the file with the installed one.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.tokenizer import classes

NUM_CODE_POINTS = 0x110000
_CHUNK = 20_000

PROPERTIES: dict[str, tuple[int, str]] = {
    "letter": (classes.LETTER, r"\p{L}"),
    "number": (classes.NUMBER, r"\p{N}"),
    "mark": (classes.MARK, r"\p{M}"),
    "space": (classes.SPACE, r"\s"),
    "upper": (classes.UPPER, r"[\p{Lu}\p{Lt}]"),
    "lower": (classes.LOWER, r"\p{Ll}"),
    "punctuation or symbol": (classes.PUNCTUATION, r"[\p{P}\p{S}]"),
    "DeepSeek's CJK": (classes.CJK, "[一-龥\u3040-ゟ゠-ヿ]"),
    "Han": (classes.HAN, r"\p{Han}"),
}
"""What it is -> its bit, and the expression that Oniguruma is asked."""


def scalars() -> NDArray[np.int64]:
    """Return all Unicode scalar values (code points without surrogates)."""
    every = np.arange(NUM_CODE_POINTS)
    return every[(every < 0xD800) | (every > 0xDFFF)]


def probe_classes(code_points: NDArray[np.int64] | None = None) -> NDArray[np.uint16]:
    """Return uint16[0x110000]: class bits of each code point that was asked (all, if None)."""
    from tokenizers import Regex, pre_tokenizers

    asked = scalars() if code_points is None else code_points
    table = np.zeros(NUM_CODE_POINTS, np.uint16)
    for bit, expression in PROPERTIES.values():
        splitter = pre_tokenizers.Split(Regex(expression), "isolated")
        _mark(table, bit, asked, lambda text, s=splitter: _isolated(text, s))
    digits = pre_tokenizers.Digits(individual_digits=True)
    _mark(table, classes.NUMERIC, asked, lambda text: _isolated(text, digits))
    matcher = _single_word_matcher()
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        text = "".join(f"{chr(c)}<W> " for c in part.tolist())
        found = np.ones(len(part), bool)
        for (left, _), token in zip(*_offsets_and_ids(matcher, text), strict=True):
            if token == 0:
                found[left // 5] = False  # matched, so its neighbour is no word character
        table[part[found]] |= classes.WORD
    return table


def probe_normalization() -> dict[str, NDArray[Any]]:
    """Return the tables of canonical composition (NFC), as arrays of code points.

    combining: uint8[0x110000], the canonical combining class.
    decomposed: int32[n, 5]: a code point and its full decomposition (0 where shorter).
    composed: int32[m, 3]: first, second, and what they compose to.
    """
    from tokenizers import normalizers

    nfc, nfd = normalizers.NFC().normalize_str, normalizers.NFD().normalize_str
    combining = np.zeros(NUM_CODE_POINTS, np.uint8)
    decomposed, composed = [], []
    for code_point in scalars().tolist():
        character = chr(code_point)
        if 0xAC00 <= code_point <= 0xD7A3:
            continue  # Hangul syllables are computed
        parts = nfd(character)
        if parts != character:
            decomposed.append([code_point, *map(ord, parts), *[0] * (4 - len(parts))])
            head = nfc(parts[:-1])
            if len(head) == 1 and nfc(head + parts[-1]) == character:
                composed.append([ord(head), ord(parts[-1]), code_point])
        # U+0345 has the highest class, so what comes before it after sorting has one too.
        if nfd("\u0345" + character) == character + "\u0345" or code_point == 0x345:
            combining[code_point] = unicodedata.combining(character)
    _check_order(combining, nfd)
    return {
        "combining": combining,
        "decomposed": np.array(decomposed, np.int32),
        "composed": np.array(composed, np.int32),
    }


def _check_order(combining: NDArray[np.uint8], nfd: Any) -> None:
    """Hold Python's numbers of the combining classes against how the library sorts."""
    marks = np.flatnonzero(combining)
    examples = [int(marks[combining[marks] == c][0]) for c in np.unique(combining[marks])]
    for mark in marks.tolist():
        if len(nfd(chr(mark))) > 1:
            continue
        for example in examples:
            if len(nfd(chr(example))) == 1:
                swaps = nfd(chr(example) + chr(mark)) != chr(example) + chr(mark)
                assert swaps == bool(combining[example] > combining[mark]), (mark, example)


def _mark(table: NDArray[np.uint16], bit: int, asked: NDArray[np.int64], find: Any) -> None:
    for start in range(0, len(asked), _CHUNK):
        part = asked[start : start + _CHUNK]
        # "a" and "1" differ in every property, so that runs never join two asked code points...
        table[part[find("".join(f"{chr(c)}\x00" for c in part.tolist()))]] |= bit


def _isolated(text: str, splitter: Any) -> NDArray[np.int64]:
    """Return which code points of `text` (every second one is NUL) stand in a piece alone."""
    alone = [
        left
        for piece, (left, right) in splitter.pre_tokenize_str(text)
        if right - left == 1 and piece != "\x00"
    ]
    found = np.array(alone, np.int64)
    isolated: NDArray[np.int64] = found[found % 2 == 0] // 2
    return isolated


def _single_word_matcher() -> Any:
    from tokenizers import AddedToken, Tokenizer, models

    matcher = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    matcher.add_tokens([AddedToken("<W>", single_word=True, normalized=False)])
    return matcher


def _offsets_and_ids(matcher: Any, text: str) -> tuple[list[tuple[int, int]], list[int]]:
    encoding = matcher.encode(text)
    token = matcher.token_to_id("<W>")
    return encoding.offsets, [0 if i == token else 1 for i in encoding.ids]


def main() -> None:
    """Write kernels/tokenizer/unicode.npz."""
    import tokenizers

    stages = classes.fold(probe_classes())
    facts: dict[str, Any] = probe_normalization()
    path = Path(classes.__file__).with_name("unicode.npz")
    np.savez_compressed(
        path,
        version=np.array(tokenizers.__version__),
        stage1=stages[0],
        stage2=stages[1],
        **facts,
    )


if __name__ == "__main__":
    main()
