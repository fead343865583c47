"""Code points flow in, folded code points with a class flow out: what shingles are cut by.

What is folded is what readers take for the same text: case, width and presentation forms, and
letters that Unicode calls compatible. What is never folded is a combining mark: Thai vowels and
tones, Indic vowel signs, Vietnamese tones, Arabic short vowels and the dots of dakuten tell words
apart. Punctuation and white space separate words. A symbol (+, <, an emoji) is a word of its own,
since `x < y` and `x > y` are two texts.

The table comes from Python's `unicodedata`. It decides which texts are similar, never an id of a
token, so another Unicode version moves a similarity by rare characters only. `UNICODE_VERSION`
belongs to the fingerprint of what is computed from it.
"""

from __future__ import annotations

import sys
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

UNICODE_VERSION = unicodedata.unidata_version
NUM_CODE_POINTS = sys.maxunicode + 1
CLASS_SHIFT = 24
"""An entry of the table is `folded code point | class << CLASS_SHIFT`."""

SEPARATOR, WORD, MARK, SYMBOL, IDEOGRAPH, KANA, LETTER, IGNORED = range(8)

WINDOW_WEIGHT = 240
TOKEN_WEIGHTS = (0, 48, 0, 48, 30, 20, 15, 0)
"""Weight of a token by class; a shingle is the shortest run of tokens that weighs WINDOW_WEIGHT:
5 words, 8 ideographs, 12 kana or 16 letters (with their marks) of scripts without spaces.

Calibrated on the Universal Declaration of Human Rights: 5 of the 1,845 words of the median spaced
language are 7 of the 2,600 ideographs of Chinese and Cantonese, 16 of the 5,300 to 7,800 letters
of Burmese, Khmer, Lao, Thai and Tibetan, and 10 of the 3,750 mixed characters of Japanese. So an
edit of the same size costs about the same similarity in every script."""

_IDEOGRAPH_RANGES = (
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4CF),  # Yi
    (0xF900, 0xFAFF),
    (0x16FE0, 0x18DFF),  # Tangut, Khitan
    (0x1B170, 0x1B2FF),  # Nushu
    (0x20000, 0x3FFFF),
)
_KANA_RANGES = (
    (0x3040, 0x312F),  # Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31BF),
    (0x31F0, 0x31FF),
    (0xFF66, 0xFF9F),
    (0x1AFF0, 0x1B16F),
)
_LETTER_RANGES = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0xA980, 0xA9FF),  # Javanese, Myanmar Extended-B
    (0xAA60, 0xAADF),  # Myanmar Extended-A, Tai Viet
)


def fold(character: str) -> str:
    """Fold one character to one character: compatibility form and case, where those are single.

    `fold("Ａ") == "a"`; the ligature `ﬃ` would be three characters and stays.
    """
    for _ in range(4):  # case folding may open a further compatibility form, never a long chain
        folded = character
        compatible = unicodedata.normalize("NFKC", folded)
        if len(compatible) == 1:
            folded = compatible
        folded_case = folded.casefold()
        if len(folded_case) == 1:
            folded = folded_case
        if folded == character:
            break
        # A mark stays a mark: U+0345 would become the letter iota.
        if unicodedata.category(character)[0] == "M" != unicodedata.category(folded)[0]:
            break
        character = folded
    return character


def classify(character: str) -> int:
    """Return the class of a folded character: how it takes part in tokens."""
    category = unicodedata.category(character)
    if category[0] in "ZP" or category == "Cc":
        return SEPARATOR
    if category == "Cf":
        return IGNORED
    if category[0] == "M":
        return MARK
    code_point = ord(character)
    if category[0] == "L" or category == "Nl":
        for token_class, ranges in (
            (IDEOGRAPH, _IDEOGRAPH_RANGES),
            (KANA, _KANA_RANGES),
            (LETTER, _LETTER_RANGES),
        ):
            if any(first <= code_point <= last for first, last in ranges):
                return token_class
    return SYMBOL if category[0] == "S" else WORD


@cache
def fold_table() -> NDArray[np.uint32]:
    """Return uint32[0x110000]: for each code point its folded form and class, read-only.

    Made once a process, in about a quarter of a second.
    """
    table = np.arange(NUM_CODE_POINTS, dtype=np.uint32)
    table |= np.uint32(WORD << CLASS_SHIFT)  # unassigned and private characters are letters
    for first, last in ((0, 0x323B0), (0xE0000, 0xE0200)):
        for code_point in range(first, last):
            character = chr(code_point)
            if unicodedata.category(character) in ("Cn", "Cs", "Co"):
                continue
            folded = fold(character)
            table[code_point] = ord(folded) | classify(folded) << CLASS_SHIFT
    table.flags.writeable = False
    return table
