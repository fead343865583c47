"""A line's UTF-8 flows in, its tokens flow out: words, punctuation marks, unspaced characters.

The rules are those that rule-based tokenizers share (spaCy's English rules for one), without their
tables of abbreviations, and for every script. White space ends a run of characters. From a run's
ends punctuation is taken off mark by mark; what is left is one word, cut only

- around dashes between letters, commas between letters, `: < > = /` before a letter, operators
  between digits, a full stop between a lower-case and an upper-case letter, runs of full stops,
- before an apostrophe that one or two letters follow at the end (it's, we'll),
- around other symbols, and around punctuation that is not ASCII,
- around each character of a script without spaces.

A full stop belongs to an initial (`A.`) and to a few titles (`Dr.`).

`"don't stop," he said.` -> `"` `don` `'t` `stop` `,` `"` `he` `said` `.`
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .character_classes import (
    ALPHABETIC,
    CLOSES,
    DASH,
    DIGIT,
    IDEOGRAPH,
    KIND_MASK,
    LOWER,
    MARK,
    OPENS,
    PUNCTUATION,
    SPLITS,
    SYMBOL,
    UPPER,
    WORD,
)
from .jit import borrowing_kernel, kernel
from .mixing import mix64, signed
from .shingling import WORD_BASE
from .tokens import (
    UNSPACED,
    add_token,
    count_characters,
    count_token,
    flags_at,
    start_of_last,
)

_WORD_BASE = np.uint64(WORD_BASE)
_DOT, _COMMA, _HYPHEN, _PERCENT, _APOSTROPHE = 0x2E, 0x2C, 0x2D, 0x25, 0x27
_ALNUM = ALPHABETIC | DIGIT

TITLES = ("Dr", "Gen", "Jr", "Mr", "Mrs", "Ms", "Mt", "Prof", "Rev", "Sr", "St")
"""The only abbreviations that are known: elsewhere they would take many full stops for ends."""

_TITLES = np.array([int.from_bytes(title.encode(), "big") for title in TITLES], np.int64)


@borrowing_kernel
def _run_end(data: NDArray[np.uint8], position: int, end: int) -> int:
    """Return the end of the run of full stops that begins at `position`."""
    while position < end and data[position] == _DOT:
        position += 1
    return position


@borrowing_kernel
def _is_title(data: NDArray[np.uint8], start: int, end: int) -> bool:
    """Say whether data[start:end] is one of TITLES."""
    if not 2 <= end - start <= 4:
        return False
    word = np.int64(0)
    for position in range(start, end):
        word = (word << np.int64(8)) | signed(data[position])
    for title in _TITLES:  # noqa: SIM110 # numba knows no generators
        if word == title:
            return True
    return False


@borrowing_kernel
def _closing_start(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
) -> int:
    """Return where the punctuation at the end of data[start:end] begins."""
    while end > start:
        last = start_of_last(data, start, end)
        flags, _ = flags_at(data, last, end, block_numbers, blocks)
        before, before_flags = last, 0
        if last > start:
            before = start_of_last(data, start, last)
            before_flags, _ = flags_at(data, before, last, block_numbers, blocks)
        if data[last] == _DOT:
            if last > start and data[before] == _DOT:
                while last > start and data[last - 1] == _DOT:
                    last -= 1
            elif last == start or _is_title(data, start, last):
                return end
            elif before_flags & UPPER:  # an initial keeps its full stop: A. U.S.
                if before == start:
                    return end
                earlier = start_of_last(data, start, before)
                earlier_flags, _ = flags_at(data, earlier, before, block_numbers, blocks)
                if not earlier_flags & UPPER:
                    return end
        elif data[last] == _PERCENT:
            if not before_flags & DIGIT:
                return end
        elif not flags & CLOSES:
            return end
        end = last
    return end


@borrowing_kernel
def _starts_with_www(data: NDArray[np.uint8], start: int) -> bool:
    for position in range(start, start + 3):
        if data[position] != 119:
            return False
    return bool(data[start + 3] == _DOT)


@borrowing_kernel
def _is_address(data: NDArray[np.uint8], start: int, end: int) -> bool:
    """Say whether data[start:end] begins like a URL: `www.`, or letters and `://`."""
    if end - start > 4 and _starts_with_www(data, start):
        return True
    for position in range(start, min(start + 8, end - 2)):
        if data[position] == 0x3A:
            return position > start and data[position + 1] == 0x2F and data[position + 2] == 0x2F
        if not 97 <= data[position] <= 122:
            return False
    return False


@borrowing_kernel
def _is_clitic(
    data: NDArray[np.uint8],
    position: int,
    end: int,
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
) -> bool:
    """Say whether data[position:end] is one letter or two."""
    for _ in range(2):
        flags, taken = flags_at(data, position, end, block_numbers, blocks)
        if not flags & ALPHABETIC:
            return False
        position += taken
        if position >= end:
            return True
    return False


@borrowing_kernel
def _split_end(
    data: NDArray[np.uint8],
    position: int,
    taken: int,
    end: int,
    flags: int,
    before: int,
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
) -> int:
    """Return the end of the token that the punctuation at `position` is, `position` for none.

    `flags` are its own, `before` those of the character before it (0 at the beginning).
    """
    after = position + taken
    byte = data[position]
    next_flags, next_byte = 0, np.uint8(0)
    if after < end:
        next_flags, _ = flags_at(data, after, end, block_numbers, blocks)
        next_byte = data[after]
    if byte == _DOT:
        if next_byte == _DOT:
            return _run_end(data, position, end)
        if before & LOWER and next_flags & UPPER:
            return after
    if flags & SPLITS:
        return after
    if (UNSPACED >> (before & KIND_MASK)) & 1 or (UNSPACED >> (next_flags & KIND_MASK)) & 1:
        return after
    if flags & DASH and before & ALPHABETIC:
        stop = after
        while stop < end:
            stop_flags, stop_taken = flags_at(data, stop, end, block_numbers, blocks)
            if not stop_flags & DASH:
                if stop_flags & ALPHABETIC:
                    return stop
                break
            stop += stop_taken
    if byte == _COMMA and before & ALPHABETIC and next_flags & ALPHABETIC:
        return after
    if before & _ALNUM and next_flags & ALPHABETIC:
        if byte == 0x3A or byte == 0x2F or 0x3C <= byte <= 0x3E:  # : / < = >
            return after
    elif before & DIGIT and (next_flags & DIGIT or next_byte == _HYPHEN):
        is_operator = byte == 0x2B or byte == _HYPHEN or byte == 0x2A or byte == 0x5E  # + - * ^
        if is_operator:
            return after
    return position


@kernel(inline="always")
def add_plain_word(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
    stop_hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
) -> int:
    """Add a word of ASCII letters and perhaps a mark behind it, if a space or `end` follows.

    Return where they end, `start` if something else is there: the rest is up to `add_run`, which
    does the same to most words in four times the time.
    """
    word = np.uint64(0)
    position = start
    while position < end and np.uint8((data[position] | 0x20) - np.uint8(97)) < 26:
        word = (word ^ np.uint64(data[position])) * _WORD_BASE
        position += 1
    characters = position - start
    if characters == 0:
        return start
    mark = 0
    if position < end and data[position] != 32:
        mark = signed(data[position])
        if position + 1 < end and data[position + 1] != 32:
            return start
        if mark == _DOT:
            # After an initial or a title it is no token.
            if data[position - 1] < 97 or _is_title(data, start, position):
                return start
        elif mark != _COMMA and mark != 0x3A and mark != 0x3B and mark != 0x3F and mark != 0x21:
            return start
    count_token(mix64(word), characters, WORD, True, True, WORD, stop_hashes, counts, hashes, sums)
    if mark:
        count_token(
            mix64(np.uint64(mark) * _WORD_BASE), 1, PUNCTUATION, False, False,
            signed(blocks[block_numbers[0], mark]), stop_hashes, counts, hashes, sums,
        )  # fmt: skip
        position += 1
    return position


@borrowing_kernel
def add_run(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
    stop_hashes: NDArray[np.uint64],
    counts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
) -> None:
    """Add the tokens of data[start:end], characters without white space between them."""
    while start < end:
        flags, taken = flags_at(data, start, end, block_numbers, blocks)
        if data[start] == _DOT and start + 1 < end and data[start + 1] == _DOT:
            taken = _run_end(data, start, end) - start
        elif not flags & OPENS:
            break
        characters = taken if data[start] == _DOT else 1
        kind = flags & KIND_MASK
        add_token(
            data, start, start + taken, characters, kind, kind == SYMBOL, False, flags,
            stop_hashes, counts, hashes, sums,
        )  # fmt: skip
        start += taken
    closing = _closing_start(data, start, end, block_numbers, blocks)
    is_address = _is_address(data, start, closing)
    token_start = start  # the token that is being read: data[token_start:position]
    kind, characters, is_word, is_alphabetic, first_flags = 0, 0, False, False, 0
    before = 0
    position = start
    while position < closing:
        flags, taken = flags_at(data, position, closing, block_numbers, blocks)
        own_kind = flags & KIND_MASK
        split_end = position
        begins = False
        if own_kind == PUNCTUATION and not is_address:
            split_end = _split_end(
                data, position, taken, closing, flags, before, block_numbers, blocks
            )
            if split_end == position and before & ALPHABETIC:
                is_apostrophe = data[position] == _APOSTROPHE or (
                    taken == 3 and data[position + 1] == 0x80 and data[position + 2] == 0x99
                )
                begins = is_apostrophe and _is_clitic(
                    data, position + taken, closing, block_numbers, blocks
                )
        is_alone = own_kind >= IDEOGRAPH and not is_address
        if own_kind != MARK and not is_address and kind >= IDEOGRAPH:
            begins = True
        if characters and (begins or is_alone or split_end > position):
            add_token(
                data, token_start, position, characters, kind, is_word, is_alphabetic,
                first_flags, stop_hashes, counts, hashes, sums,
            )  # fmt: skip
            characters = 0
        if split_end > position:
            length = count_characters(data, position, split_end)
            add_token(
                data, position, split_end, length, PUNCTUATION, False, False, flags,
                stop_hashes, counts, hashes, sums,
            )  # fmt: skip
            kind = 0
            before = flags
            position = split_end
            continue
        if characters == 0:
            token_start = position
            kind = own_kind if is_alone else WORD
            is_word, is_alphabetic, first_flags = False, False, flags
        characters += 1
        if own_kind != PUNCTUATION:
            is_word = True
        if flags & ALPHABETIC:
            is_alphabetic = True
        if own_kind != MARK:
            before = flags
        position += taken
    if characters:
        add_token(
            data, token_start, closing, characters, kind, is_word, is_alphabetic, first_flags,
            stop_hashes, counts, hashes, sums,
        )  # fmt: skip
    position = closing
    while position < end:
        flags, taken = flags_at(data, position, end, block_numbers, blocks)
        characters = 1
        if data[position] == _DOT:
            taken = characters = _run_end(data, position, end) - position
        kind = flags & KIND_MASK
        add_token(
            data, position, position + taken, characters, kind, kind == SYMBOL, False, flags,
            stop_hashes, counts, hashes, sums,
        )  # fmt: skip
        position += taken
