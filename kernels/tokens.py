"""Bytes of a token flow in, counts and prefix sums flow out: what statistics remember of tokens.

`counts` (int64[NUM_COUNTS]) adds up what a document's tokens are. `hashes` (uint64[capacity + 1])
and `sums` (int32[3, capacity + 1]: weights, code points, spaces) are prefix sums over the first
`capacity` tokens, from which `repetition` makes windows without another look at the text.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .character_classes import IDEOGRAPH, IS_PUNCTUATION, KIND_WEIGHTS, LETTER, TERMINAL
from .jit import borrowing_kernel, kernel
from .mixing import mix64, signed
from .shingling import WINDOW_BASE, WORD_BASE, decode_code_point

MAX_TOKENS = 1 << 20
"""Tokens of one document that are remembered: repetition is looked for up to there."""

(
    TOKEN_WEIGHT,
    WORD_TOTAL_WEIGHT,
    WORD_CHARACTERS,
    ALPHABETIC_WEIGHT,
    SENTENCE_STARTS,
    AFTER_TERMINAL,
    REMEMBERED,
    STOP_WORDS_SEEN,
) = range(8)
NUM_COUNTS = 8

_WEIGHTS = np.array(KIND_WEIGHTS, np.int64)
_WORD_BASE = np.uint64(WORD_BASE)
_WINDOW_BASE = np.uint64(WINDOW_BASE)
_ONE = np.int64(1)
_EIGHT = np.int64(8)
_LOW_BYTE = np.int64(255)
UNSPACED = (1 << IDEOGRAPH) | (1 << (IDEOGRAPH + 1)) | (1 << LETTER)


@borrowing_kernel
def flags_at(
    data: NDArray[np.uint8],
    position: int,
    end: int,
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
) -> tuple[int, int]:
    """Return (flags of `character_classes`, bytes) of the character that begins at `position`."""
    first = data[position]
    if first < 0x80:
        return signed(blocks[block_numbers[0], first]), 1
    code_point, taken = decode_code_point(data, position, end)
    block = block_numbers[code_point >> _EIGHT]
    return signed(blocks[block, code_point & _LOW_BYTE]), taken


@borrowing_kernel
def start_of_last(data: NDArray[np.uint8], start: int, end: int) -> int:
    """Return where the last character of data[start:end] begins; there must be one."""
    position = end - 1
    while position > start and position > end - 4 and (data[position] & 0xC0) == 0x80:
        position -= 1
    return position


@borrowing_kernel
def count_characters(data: NDArray[np.uint8], start: int, end: int) -> int:
    """Return the number of characters of data[start:end]."""
    characters = 0
    for position in range(start, end):
        if (data[position] & 0xC0) != 0x80:
            characters += 1
    return characters


@borrowing_kernel
def hash_word(data: NDArray[np.uint8], start: int, end: int) -> np.uint64:
    """Return 64 bits that tell words apart (Karp and Rabin's polynomial over bytes, mixed)."""
    word = np.uint64(0)
    for position in range(start, end):
        word = (word ^ np.uint64(data[position])) * _WORD_BASE
    return mix64(word)


@borrowing_kernel
def add_token(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    characters: int,
    kind: int,
    is_word: bool,
    is_alphabetic: bool,
    first_flags: int,
    stop_hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
) -> None:
    """Count the token data[start:end] and remember it."""
    count_token(
        hash_word(data, start, end), characters, kind, is_word, is_alphabetic, first_flags,
        stop_hashes, counts, hashes, sums,
    )  # fmt: skip


@kernel(inline="always")
def count_token(
    token: np.uint64,
    characters: int,
    kind: int,
    is_word: bool,
    is_alphabetic: bool,
    first_flags: int,
    stop_hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
) -> None:
    """Count a token of this hash and remember it."""
    weight = _WEIGHTS[kind]
    counts[TOKEN_WEIGHT] += weight
    if is_word:
        counts[WORD_TOTAL_WEIGHT] += weight
        counts[WORD_CHARACTERS] += characters
        for index in range(len(stop_hashes)):
            if stop_hashes[index] == token:
                counts[STOP_WORDS_SEEN] |= _ONE << np.int64(index)
    if is_alphabetic:
        counts[ALPHABETIC_WEIGHT] += weight
    if counts[AFTER_TERMINAL] != 0 and not first_flags & IS_PUNCTUATION:
        counts[SENTENCE_STARTS] += 1
        counts[AFTER_TERMINAL] = 0
    if characters == 1 and first_flags & TERMINAL:
        counts[AFTER_TERMINAL] = 1
    number = counts[REMEMBERED]
    if number < len(hashes) - 1:
        hashes[number + 1] = hashes[number] * _WINDOW_BASE + token
        is_spaced = 0 if (UNSPACED >> kind) & 1 else 1
        sums[0, number + 1] = sums[0, number] + np.int32(weight)
        sums[1, number + 1] = sums[1, number] + np.int32(characters)
        sums[2, number + 1] = sums[2, number] + np.int32(is_spaced)
        counts[REMEMBERED] = number + 1
