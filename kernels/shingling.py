"""A document's UTF-8 flows in, block by block the hashes of its shingles flow out.

One pass over the bytes, whatever the script: decode, fold by table (`folding`), join characters
to tokens, and slide a window over the tokens. A token has a weight by its class; a shingle is the
shortest run of tokens that ends here and weighs WINDOW_WEIGHT, so texts of mixed scripts need no
rule of their own, and a text of words alone has word 5-grams. A document too light for one window
is one shingle of all its tokens; a document without tokens has none.

The window's hash is a rolling polynomial over mixed token hashes (Karp and Rabin, 1987), modulo
2^64. Nothing grows with the document: all that is kept between two blocks is `new_state()`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .folding import (
    CLASS_SHIFT,
    IDEOGRAPH,
    IGNORED,
    MARK,
    SEPARATOR,
    SYMBOL,
    TOKEN_WEIGHTS,
    WINDOW_WEIGHT,
    WORD,
)
from .jit import kernel
from .mixing import mix64, signed

BLOCK_SHINGLES = 1024
"""Shingles that are made before they are used: 8 KB, which stays in the first-level cache."""

WORD_BASE = 0xD6E8FEB86659FD93
WINDOW_BASE = 0x9E6C63D0676A9A99
LENGTH_FACTOR = 0xA0761D6478BD642F
"""Random odd multipliers: of characters in a word, of tokens in a window, of a window's length."""

_RING = 32  # more than the 16 lightest tokens of a window, and a power of two
_STATE_WORDS = 16 + 2 * _RING
(
    _POSITION,
    _KIND,
    _WORD_HASH,
    _LAST_SYMBOL,
    _WINDOW_HASH,
    _WINDOW_TOTAL,
    _HEAD,
    _LENGTH,
    _LAST_SHINGLE,
    _NUM_SHINGLES,
    _DONE,
    _WORD_SEED,
    _LONGEST,
) = range(13)

_POWERS = np.array([pow(WINDOW_BASE, power, 1 << 64) for power in range(_RING)], np.uint64)
_WEIGHTS = np.array(TOKEN_WEIGHTS, np.int64)
_WINDOW_WEIGHT = np.int64(WINDOW_WEIGHT)
_WORD_BASE = np.uint64(WORD_BASE)
_WINDOW_BASE = np.uint64(WINDOW_BASE)
_LENGTH_FACTOR = np.uint64(LENGTH_FACTOR)
_CODE_POINT_MASK = np.uint32((1 << CLASS_SHIFT) - 1)
_CLASS_SHIFT = np.uint32(CLASS_SHIFT)
_RING_MASK = _RING - 1
_REPLACEMENT = 0xFFFD


def word_seed(seed: int) -> np.uint64:
    """Return the word that all hashes of shingles start from; `seed` is any integer."""
    return np.uint64((seed * 0x9E3779B97F4A7C15 + 0x2545F4914F6CDD1D) % (1 << 64))


@kernel
def new_state() -> NDArray[np.uint64]:
    """Return memory for `start_document` and `next_shingles`; use it again for every document."""
    return np.zeros(_STATE_WORDS, np.uint64)


@kernel
def start_document(state: NDArray[np.uint64], start: int, seed: np.uint64) -> None:
    """Set the state to byte `start`, the first of a document."""
    state[:] = np.uint64(0)
    state[_POSITION] = np.uint64(start)
    state[_WORD_SEED] = seed


@kernel
def decode_code_point(data: NDArray[np.uint8], position: int, end: int) -> tuple[int, int]:
    """Return (code point, bytes taken); a byte that starts no well-formed sequence is U+FFFD, 1.

    Well-formed as in table 3-7 of the Unicode Standard; nothing at `end` or later is read.
    """
    first = signed(data[position])
    if first < 0x80:
        return first, 1
    if first < 0xC2 or first > 0xF4:
        return _REPLACEMENT, 1
    if position + 1 >= end:
        return _REPLACEMENT, 1
    second = signed(data[position + 1]) ^ 0x80
    if second > 0x3F:
        return _REPLACEMENT, 1
    if first < 0xE0:
        return ((first & 0x1F) << 6) | second, 2
    if position + 2 >= end:
        return _REPLACEMENT, 1
    third = signed(data[position + 2]) ^ 0x80
    if third > 0x3F:
        return _REPLACEMENT, 1
    if first < 0xF0:
        code_point = ((first & 0x0F) << 12) | (second << 6) | third
        if code_point < 0x800 or (0xD800 <= code_point <= 0xDFFF):
            return _REPLACEMENT, 1
        return code_point, 3
    if position + 3 >= end:
        return _REPLACEMENT, 1
    fourth = signed(data[position + 3]) ^ 0x80
    if fourth > 0x3F:
        return _REPLACEMENT, 1
    code_point = ((first & 0x07) << 18) | (second << 12) | (third << 6) | fourth
    if code_point < 0x10000 or code_point > 0x10FFFF:
        return _REPLACEMENT, 1
    return code_point, 4


@kernel
def next_shingles(
    data: NDArray[np.uint8],
    end: int,
    table: NDArray[np.uint32],
    state: NDArray[np.uint64],
    shingles: NDArray[np.uint64],
) -> int:
    """Write the document's next shingle hashes to `shingles`; return how many, 0 at its end.

    Args:
        data: uint8[num_bytes]; the document ends before `end`.
        table: uint32[0x110000] of `folding.fold_table`.
        state: of `start_document`.
        shingles: uint64[2 or more], overwritten from its start.

    A shingle equal to the one before it is left out: sets do not miss it.
    """
    position = signed(state[_POSITION])
    kind = signed(state[_KIND])  # class of the token being read; 0: none
    word_hash = state[_WORD_HASH]
    last_symbol = state[_LAST_SYMBOL]
    seed = state[_WORD_SEED]
    limit = len(shingles) - 1  # the document's end may add one more
    count = 0
    while position < end and count < limit:
        if data[position] < 0x80:
            entry = table[data[position]]
            position += 1
        else:
            code_point, taken = decode_code_point(data, position, end)
            entry = table[code_point]
            position += taken
        token_class = signed(entry >> _CLASS_SHIFT)
        folded = np.uint64(entry & _CODE_POINT_MASK)
        if token_class == IGNORED:
            continue
        if token_class == MARK:
            if kind == SEPARATOR:  # a mark on its own begins a word
                kind = WORD
                word_hash = seed
            last_symbol = np.uint64(0)
            word_hash = (word_hash ^ folded) * _WORD_BASE
            continue
        if token_class == WORD and kind == WORD:
            word_hash = (word_hash ^ folded) * _WORD_BASE
            continue
        if token_class == SYMBOL and kind == SYMBOL and last_symbol == folded:
            continue  # a run of one symbol, such as a drawn line, is one token
        if kind != SEPARATOR:
            count = _add_token(state, mix64(word_hash), _WEIGHTS[kind], shingles, count)
        kind = token_class
        word_hash = (seed ^ folded) * _WORD_BASE
        last_symbol = folded if token_class == SYMBOL else np.uint64(0)
    if position >= end and state[_DONE] == np.uint64(0):
        if kind != SEPARATOR:
            count = _add_token(state, mix64(word_hash), _WEIGHTS[kind], shingles, count)
        if state[_NUM_SHINGLES] == np.uint64(0) and state[_LENGTH] != np.uint64(0):
            shingles[count] = _window_shingle(state)
            state[_LONGEST] = state[_LENGTH]
            count += 1
        state[_DONE] = np.uint64(1)
    state[_POSITION] = np.uint64(position)
    state[_KIND] = np.uint64(kind)
    state[_WORD_HASH] = word_hash
    state[_LAST_SYMBOL] = last_symbol
    return count


@kernel
def longest_window(state: NDArray[np.uint64]) -> np.uint64:
    """Return the number of tokens in the longest shingle of the document so far."""
    return np.uint64(state[_LONGEST])


@kernel
def _window_shingle(state: NDArray[np.uint64]) -> np.uint64:
    return mix64(state[_WINDOW_HASH] + state[_LENGTH] * _LENGTH_FACTOR)


@kernel
def _add_token(
    state: NDArray[np.uint64],
    token: np.uint64,
    weight: int,
    shingles: NDArray[np.uint64],
    count: int,
) -> int:
    """Slide the window over one more token; write its shingle if it is full and new."""
    ring = 16
    head = signed(state[_HEAD])
    length = signed(state[_LENGTH])
    total = signed(state[_WINDOW_TOTAL]) + weight
    window_hash = state[_WINDOW_HASH] * _WINDOW_BASE + token
    slot = (head + length) & _RING_MASK
    state[ring + slot] = token
    state[ring + _RING + slot] = np.uint64(weight)
    length += 1
    while True:
        oldest = signed(state[ring + _RING + head])
        if total - oldest < _WINDOW_WEIGHT:
            break
        window_hash -= state[ring + head] * _POWERS[length - 1]
        total -= oldest
        head = (head + 1) & _RING_MASK
        length -= 1
    state[_HEAD] = np.uint64(head)
    state[_LENGTH] = np.uint64(length)
    state[_WINDOW_TOTAL] = np.uint64(total)
    state[_WINDOW_HASH] = window_hash
    if total < _WINDOW_WEIGHT:
        return count
    state[_LONGEST] = max(state[_LONGEST], np.uint64(length))
    shingle = _window_shingle(state)
    if state[_NUM_SHINGLES] != np.uint64(0) and shingle == state[_LAST_SHINGLE]:
        return count
    state[_LAST_SHINGLE] = shingle
    state[_NUM_SHINGLES] += np.uint64(1)
    shingles[count] = shingle
    return count + 1


assert WINDOW_WEIGHT // min(weight for weight in TOKEN_WEIGHTS if weight) + 1 < _RING
assert TOKEN_WEIGHTS[IDEOGRAPH] > 0
