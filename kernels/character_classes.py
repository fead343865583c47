"""Code points flow in, one set of flags each flows out: what text statistics are counted by.

Where words are spaced a token is a word or a punctuation mark. Scripts without spaces have one
token a character, and a character weighs as much of a word as it does for near duplicates
(`folding.TOKEN_WEIGHTS`): so "words" of Chinese or Thai are those of `shingling`.

The table has two levels, as almost all blocks of 256 code points are equal to another one: 25 KB
instead of 2 MB, which stays in the first-level cache.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

from . import folding
from .folding import NUM_CODE_POINTS, TOKEN_WEIGHTS

SPACE, PUNCTUATION, WORD, MARK, IDEOGRAPH, KANA, LETTER, SYMBOL = range(8)
"""Kinds: white space; punctuation and ASCII symbols; letters and digits of spaced scripts; marks
and joiners, which belong to the character before; characters of scripts without spaces; other
symbols, each a token."""

KIND_MASK = 7
ALPHABETIC = 1 << 3
DIGIT = 1 << 4
LOWER = 1 << 5
UPPER = 1 << 6
OPENS = 1 << 7
"""At the beginning of a run of characters this is a token of its own."""
CLOSES = 1 << 8
"""The same at its end."""
TERMINAL = 1 << 9
"""Ends a sentence (Unicode's property Sentence_Terminal, version 15, and Khmer's signs)."""
SPLITS = 1 << 10
"""Punctuation that is a token of its own between letters too: all but ASCII's, apostrophes and
hyphens."""
DASH = 1 << 11
IS_PUNCTUATION = 1 << 12
"""Unicode category P: ASCII's `+ < = > ^ |` and currency signs are not."""

WORD_WEIGHT = TOKEN_WEIGHTS[folding.WORD]
"""Weight of a word: what the sums of weights are divided by."""

KIND_WEIGHTS = (
    0,
    WORD_WEIGHT,
    WORD_WEIGHT,
    0,
    TOKEN_WEIGHTS[folding.IDEOGRAPH],
    TOKEN_WEIGHTS[folding.KANA],
    TOKEN_WEIGHTS[folding.LETTER],
    WORD_WEIGHT,
)

_SENTENCE_TERMINALS = """
21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736
17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F
203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F
A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59
10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239
1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946
11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44
16E98 1BC9F 1DA88
"""

_NEVER_OPEN = ".-/\\@^|~\u2010\u2011"
_NEVER_CLOSE = ".-/\\@^|~\u2010\u2011=+%$\u00a7"
_JOINERS = "\u2019\u2018\u02bc\u00b7\u2010\u2011\u30fb"
_DASHES = "-~\u2013\u2014"


def sentence_terminals() -> frozenset[int]:
    """Return the code points of `TERMINAL`."""
    found: set[int] = set()
    for entry in _SENTENCE_TERMINALS.split():
        first, _, last = entry.partition("-")
        found |= set(range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(found)


_TERMINALS = sentence_terminals()


def classify(character: str) -> int:
    """Return the flags of one character.

    Example: `classify("a") == WORD | ALPHABETIC | LOWER`.
    """
    if character.isspace():
        return SPACE
    category = unicodedata.category(character)
    flags = ALPHABETIC if character.isalpha() else 0
    if "0" <= character <= "9":
        flags |= DIGIT
    if category == "Ll":
        flags |= LOWER
    if category == "Lu":
        flags |= UPPER
    if ord(character) in _TERMINALS:
        flags |= TERMINAL
    if category[0] == "M" or category == "Cf":
        return flags | MARK
    if category[0] == "P" or category == "Cc" or (character < "\x80" and category[0] == "S"):
        kind = PUNCTUATION
    elif category[0] == "S":
        kind = SYMBOL
    else:
        kind = {
            folding.IDEOGRAPH: IDEOGRAPH,
            folding.KANA: KANA,
            folding.LETTER: LETTER,
        }.get(folding.classify(character), WORD)
    if kind in (PUNCTUATION, SYMBOL):
        flags |= OPENS if character not in _NEVER_OPEN else 0
        flags |= CLOSES if character not in _NEVER_CLOSE else 0
        flags |= IS_PUNCTUATION if category[0] == "P" else 0
        flags |= DASH if character in _DASHES else 0
        if character >= "\x80" and character not in _JOINERS + _DASHES:
            flags |= SPLITS
    return flags | kind


@cache
def class_table() -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Return (block_numbers: uint8[0x1100], blocks: uint16[num_blocks, 256]), read-only.

    The flags of code point c are `blocks[block_numbers[c >> 8], c & 255]`. Made once a process.
    """
    flat = np.full(NUM_CODE_POINTS, WORD, np.uint16)  # unassigned and private characters: letters
    for first, last in ((0, 0x323B0), (0xE0000, 0xE0200)):
        for code_point in range(first, last):
            if 0x3400 < code_point <= 0x4DBF or 0x4E00 < code_point <= 0x9FFF:
                flat[code_point] = flat[code_point - 1]
                continue
            if 0xAC00 < code_point <= 0xD7A3 or 0x20000 < code_point <= 0x2A6DF:
                flat[code_point] = flat[code_point - 1]
                continue
            character = chr(code_point)
            if unicodedata.category(character) not in ("Cn", "Cs", "Co"):
                flat[code_point] = classify(character)
    blocks, numbers = np.unique(flat.reshape(-1, 256), axis=0, return_inverse=True)
    block_numbers = numbers.reshape(-1).astype(np.uint8)
    assert len(blocks) <= 256
    for table in (block_numbers, blocks):
        table.flags.writeable = False
    return block_numbers, blocks
