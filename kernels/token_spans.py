"""A document's UTF-8 flows in, block by block its tokens flow out: hash, place and weight of each.

Tokens are those that shingles are made of (`shingling`, `folding`): folded words, characters of
scripts without spaces, symbols. Here they come one by one, with the bytes that they stand in, so
that what is found can be named and cut.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .folding import (
    CLASS_SHIFT,
    IGNORED,
    MARK,
    SEPARATOR,
    SYMBOL,
    TOKEN_WEIGHTS,
    WORD,
    fold_table,
)
from .hashing import check_offsets
from .jit import as_readonly, kernel
from .mixing import mix64, signed
from .shingling import LENGTH_FACTOR, WINDOW_BASE, WORD_BASE, decode_code_point, word_seed

LIGHTEST_TOKEN = min(weight for weight in TOKEN_WEIGHTS if weight)
BLOCK_TOKENS = 512
"""Tokens that are made before they are used."""

_STATE_WORDS = 8
_POSITION, _KIND, _WORD_HASH, _LAST_SYMBOL, _START, _END, _DONE = range(7)
_START_ROW, _END_ROW, _WEIGHT_ROW = range(3)

_WEIGHTS = np.array(TOKEN_WEIGHTS, np.int64)
_WORD_BASE = np.uint64(WORD_BASE)
_WINDOW_BASE = np.uint64(WINDOW_BASE)
_LENGTH_FACTOR = np.uint64(LENGTH_FACTOR)
_CODE_POINT_MASK = np.uint32((1 << CLASS_SHIFT) - 1)
_CLASS_SHIFT = np.uint32(CLASS_SHIFT)


def text_windows(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], weight: int, seed: int = 0
) -> tuple[
    NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]:
    """Return every window of each document: the shortest run of tokens that ends here and weighs
    `weight`; of a lighter document the one window of all its tokens.

    Args:
        data: uint8[num_bytes], UTF-8 of the documents one after another.
        offsets: int64[num_documents + 1], non-decreasing, within `data`.
        weight: 48 a word: see `folding.TOKEN_WEIGHTS`.
        seed: any integer; windows of different seeds cannot be compared.

    Returns:
        hashes: uint64[num_windows], those of `shingling` for a window of the same tokens.
        lasts: int64[num_windows], number of the window's last token in its document.
        lengths: int64[num_windows], tokens of the window.
        window_offsets: int64[num_documents + 1] into the three.
        totals: int64[num_documents], weight of all tokens of each document.
    """
    data, offsets = as_readonly(data, np.uint8), as_readonly(offsets, np.int64)
    check_offsets(data, offsets)
    room = int(offsets[-1] - offsets[0])  # each window ends at a byte of its own
    hashes, places = np.empty(room, np.uint64), np.empty((2, room), np.int64)
    window_offsets = np.zeros(len(offsets), np.int64)
    totals = np.zeros(len(offsets) - 1, np.int64)
    ring = ring_size(weight)
    _text_windows(
        data, offsets, fold_table(), word_seed(seed), weight, window_powers(ring),
        hashes, places, window_offsets, totals,
    )  # fmt: skip
    count = window_offsets[-1]
    return hashes[:count].copy(), places[0, :count].copy(), places[1, :count].copy(), \
        window_offsets, totals  # fmt: skip


def ring_size(weight: int) -> int:
    """Return a power of two that is larger than the number of tokens of any window."""
    return 1 << (max(weight, 1) // LIGHTEST_TOKEN + 2).bit_length()


def window_powers(count: int) -> NDArray[np.uint64]:
    """Return uint64[count]: powers of the base of a window's polynomial."""
    return np.array([pow(WINDOW_BASE, power, 1 << 64) for power in range(count)], np.uint64)


@kernel
def new_token_state() -> NDArray[np.uint64]:
    """Return memory for `start_tokens` and `next_tokens`; use it again for every document."""
    return np.zeros(_STATE_WORDS, np.uint64)


@kernel
def start_tokens(state: NDArray[np.uint64], start: int) -> None:
    """Set the state to byte `start`, the first of a document."""
    state[:] = np.uint64(0)
    state[_POSITION] = np.uint64(start)


@kernel
def next_tokens(
    data: NDArray[np.uint8],
    end: int,
    table: NDArray[np.uint32],
    seed: np.uint64,
    state: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    places: NDArray[np.int64],
) -> int:
    """Write the document's next tokens; return how many, 0 at its end.

    Args:
        data: uint8[num_bytes]; the document ends before `end`.
        table: uint32[0x110000] of `folding.fold_table`.
        seed: of `shingling.word_seed`.
        state: of `start_tokens`.
        hashes: uint64[n], overwritten from its start.
        places: int64[3, n]: first byte, byte after the last, weight.
    """
    position = signed(state[_POSITION])
    kind = signed(state[_KIND])  # class of the token being read; 0: none
    word_hash = state[_WORD_HASH]
    last_symbol = state[_LAST_SYMBOL]
    first = signed(state[_START])
    last = signed(state[_END])
    limit = len(hashes) - 1  # the document's end may add one more
    count = 0
    while position < end and count < limit:
        begin = position
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
                first = begin
            last_symbol = np.uint64(0)
            word_hash = (word_hash ^ folded) * _WORD_BASE
            last = position
            continue
        if token_class == WORD and kind == WORD:
            word_hash = (word_hash ^ folded) * _WORD_BASE
            last = position
            continue
        if token_class == SYMBOL and kind == SYMBOL and last_symbol == folded:
            last = position  # a run of one symbol, such as a drawn line, is one token
            continue
        if kind != SEPARATOR:
            count = _put(hashes, places, count, mix64(word_hash), first, last, _WEIGHTS[kind])
        kind = token_class
        word_hash = (seed ^ folded) * _WORD_BASE
        last_symbol = folded if token_class == SYMBOL else np.uint64(0)
        first, last = begin, position
    if position >= end and state[_DONE] == np.uint64(0):
        if kind != SEPARATOR:
            count = _put(hashes, places, count, mix64(word_hash), first, last, _WEIGHTS[kind])
        state[_DONE] = np.uint64(1)
    state[_POSITION] = np.uint64(position)
    state[_KIND] = np.uint64(kind)
    state[_WORD_HASH] = word_hash
    state[_LAST_SYMBOL] = last_symbol
    state[_START] = np.uint64(first)
    state[_END] = np.uint64(last)
    return count


@kernel
def _put(
    hashes: NDArray[np.uint64],
    places: NDArray[np.int64],
    count: int,
    token: np.uint64,
    first: int,
    last: int,
    weight: int,
) -> int:
    hashes[count] = token
    places[_START_ROW, count] = first
    places[_END_ROW, count] = last
    places[_WEIGHT_ROW, count] = weight
    return count + 1


@kernel
def window_hash(
    before: np.uint64, after: np.uint64, power: np.uint64, length: int | np.int64
) -> np.uint64:
    """Return the hash of the tokens between two prefix polynomials (Karp and Rabin, 1987)."""
    return mix64(after - before * power + np.uint64(length) * _LENGTH_FACTOR)


@kernel
def extend_prefix(prefix: np.uint64, token: np.uint64) -> np.uint64:
    """Return the prefix polynomial with one more token."""
    return np.uint64(prefix * _WINDOW_BASE + token)


@kernel
def _text_windows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint32],
    seed: np.uint64,
    weight: int,
    powers: NDArray[np.uint64],
    hashes: NDArray[np.uint64],
    found: NDArray[np.int64],
    window_offsets: NDArray[np.int64],
    totals: NDArray[np.int64],
) -> None:
    tokens, places = np.empty(BLOCK_TOKENS, np.uint64), np.empty((3, BLOCK_TOKENS), np.int64)
    mask = len(powers) - 1
    prefixes, weights = np.zeros(mask + 1, np.uint64), np.zeros(mask + 1, np.int64)
    state = new_token_state()
    stored = 0
    for document in range(len(offsets) - 1):
        start_tokens(state, offsets[document])
        number, first, total = np.int64(0), np.int64(0), np.int64(0)
        prefix = np.uint64(0)
        prefixes[0], weights[0] = prefix, total
        while True:
            count = next_tokens(data, offsets[document + 1], table, seed, state, tokens, places)
            if count == 0:
                break
            for index in range(count):
                prefix = extend_prefix(prefix, tokens[index])
                total += places[_WEIGHT_ROW, index]
                number += 1
                prefixes[number & mask], weights[number & mask] = prefix, total
                while total - weights[(first + 1) & mask] >= weight:
                    first += 1
                if total - weights[first & mask] >= weight:
                    length = number - first
                    before = prefixes[first & mask]
                    hashes[stored] = window_hash(before, prefix, powers[length], length)
                    found[0, stored] = number - 1
                    found[1, stored] = length
                    stored += 1
        if number > 0 and total < weight:
            hashes[stored] = window_hash(np.uint64(0), prefix, np.uint64(0), number)
            found[0, stored] = number - 1
            found[1, stored] = number
            stored += 1
        window_offsets[document + 1] = stored
        totals[document] = total
