"""A line flows in, what it says about its document flows out: bullets, ellipses, C4's line rules.

C4's rules are those of its `c4_utils.clean_page`: a line is kept if no word is too long, it ends in
a final mark, and has three words; `lorem ipsum` and `{` condemn the document, JavaScript and
policies the line, in this order (Raffel et al., 2020).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .character_classes import KIND_MASK, SPACE
from .jit import as_readonly
from .jit import borrowing_kernel as kernel
from .statistics_columns import (
    BULLET_LINES,
    C4_MAX_WORD_CHARACTERS,
    C4_MIN_LINE_WORDS,
    C4_SENTENCES,
    C4_SENTENCES_ANY_ENDING,
    ELLIPSES,
    ELLIPSIS_LINES,
    HASHES,
)
from .tokens import AFTER_TERMINAL, SENTENCE_STARTS, flags_at
from .words import add_plain_word, add_run

_LOREM, _JAVASCRIPT, _POLICY, _CURLY = 1, 2, 4, 8
_IS_LOOKED_AT = np.zeros(256, np.bool_)
_IS_LOOKED_AT[[*b".#{jJmMvVkK", 0xA6]] = True


def _phrase(text: str) -> NDArray[np.uint8]:
    phrase: NDArray[np.uint8] = as_readonly(np.frombuffer(text.encode(), np.uint8), np.uint8)
    return phrase


_LOREM_IPSUM = _phrase("lorem ipsum")
_JAVA_SCRIPT = _phrase("javascript")
_PRIVACY_POLICY = _phrase("privacy policy")
_TERMS_OF_USE = _phrase("terms of use")
_COOKIE_POLICY = _phrase("cookie policy")
_USES_COOKIES = _phrase("uses cookies")
_USE_OF_COOKIES = _phrase("use of cookies")
_USE_COOKIES = _phrase("use cookies")
_CITATION_EDIT = _phrase("[edit]")
_CITATION_NEEDED = _phrase("[citation needed]")


@kernel
def count_line(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
    stops: NDArray[np.uint64],
    counts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
    row: NDArray[np.int64],
) -> None:
    """Count what is in data[start:end], a line without white space at its ends."""
    if data[start] == 0x2D or (
        end - start >= 3
        and data[start] == 0xE2
        and data[start + 1] == 0x80
        and data[start + 2] == 0xA2
    ):
        row[BULLET_LINES] += 1
    if _ends_in_ellipsis(data, start, end):
        row[ELLIPSIS_LINES] += 1
    phrases = _find_phrases(data, start, end, row)
    counts[SENTENCE_STARTS] = 0
    counts[AFTER_TERMINAL] = 0
    runs, longest = 0, 0
    position = start
    while position < end:
        run_start = position
        position = add_plain_word(
            data, position, end, block_numbers, blocks, stops, counts, hashes, sums
        )
        run_characters = position - run_start
        if run_characters:
            runs += 1
            longest = max(longest, run_characters)
            position += 1  # the space
            continue
        while position < end:
            if data[position] > 32 and data[position] < 127:
                position += 1
            else:
                flags, taken = flags_at(data, position, end, block_numbers, blocks)
                if flags & KIND_MASK == SPACE:
                    break
                position += taken
            run_characters += 1
        if run_characters:
            runs += 1
            longest = max(longest, run_characters)
            add_run(data, run_start, position, block_numbers, blocks, stops, counts, hashes, sums)
        if position < end:
            position += flags_at(data, position, end, block_numbers, blocks)[1]
    if longest > C4_MAX_WORD_CHARACTERS or runs < C4_MIN_LINE_WORDS:
        return
    sentences = counts[SENTENCE_STARTS] + 1
    _count_c4_line(phrases, sentences, C4_SENTENCES_ANY_ENDING, row)
    if _has_c4_ending(data, start, end):
        _count_c4_line(phrases, sentences, C4_SENTENCES, row)


@kernel
def _count_c4_line(phrases: int, sentences: int, column: int, row: NDArray[np.int64]) -> None:
    """Apply C4's line rules, in their order, to a line that is long enough."""
    if phrases & _LOREM:
        row[column + 1] += 1
    if phrases & _JAVASCRIPT:
        return
    if phrases & _CURLY:
        row[column + 2] += 1
    if phrases & _POLICY:
        return
    row[column] += sentences


@kernel
def _ends_in_ellipsis(data: NDArray[np.uint8], start: int, end: int) -> bool:
    if end - start < 3:
        return False
    a, b, c = data[end - 3], data[end - 2], data[end - 1]
    return bool((a == 0x2E and b == 0x2E and c == 0x2E) or (a == 0xE2 and b == 0x80 and c == 0xA6))


@kernel
def _has_c4_ending(data: NDArray[np.uint8], start: int, end: int) -> bool:
    """Say whether a line without its last citations ends in . ? ! " or ' and not in `...`."""
    while end > start and data[end - 1] == 0x5D:
        opening = end - 2
        while opening >= start and 48 <= data[opening] <= 57:
            opening -= 1
        if opening >= start and data[opening] == 0x5B:
            end = opening
        elif _is_phrase_at(data, end - len(_CITATION_EDIT), start, end, _CITATION_EDIT, 0):
            end -= len(_CITATION_EDIT)
        elif _is_phrase_at(data, end - len(_CITATION_NEEDED), start, end, _CITATION_NEEDED, 0):
            end -= len(_CITATION_NEEDED)
        else:
            return False
    if end == start:
        return False
    byte = data[end - 1]
    if byte == 0x2E:
        return not (end - start >= 3 and data[end - 2] == 0x2E and data[end - 3] == 0x2E)
    return bool(byte == 0x3F or byte == 0x21 or byte == 0x22 or byte == 0x27)


@kernel
def _is_phrase_at(
    data: NDArray[np.uint8],
    position: int,
    start: int,
    end: int,
    phrase: NDArray[np.uint8],
    case_bit: int,
) -> bool:
    """Say whether data[start:end] has `phrase` at `position`; case_bit 32 ignores ASCII's case."""
    if position < start or position + len(phrase) > end:
        return False
    for index in range(len(phrase)):
        byte = np.int64(data[position + index])
        if case_bit and 65 <= byte <= 90:
            byte |= case_bit
        if byte != np.int64(phrase[index]):
            return False
    return True


@kernel
def _find_phrases(data: NDArray[np.uint8], start: int, end: int, row: NDArray[np.int64]) -> int:
    """Count number signs and ellipses; return which of C4's phrases the line has.

    A phrase is looked for at its rarest letter: j, m, v or k.
    """
    found = 0
    position = start
    while position < end:
        byte = np.int64(data[position])
        position += 1
        if not _IS_LOOKED_AT[byte]:
            continue
        at = position - 1
        if byte == 0x2E:
            while position < end and data[position] == 0x2E:
                position += 1
            row[ELLIPSES] += (position - at) // 3
        elif byte == 0x23:
            row[HASHES] += 1
        elif byte == 0x7B:
            found |= _CURLY
        elif byte == 0xA6:
            if at >= start + 2 and data[at - 1] == 0x80 and data[at - 2] == 0xE2:
                row[ELLIPSES] += 1
        else:
            letter = byte | 32
            if letter == 106:
                if _is_phrase_at(data, at, start, end, _JAVA_SCRIPT, 32):
                    found |= _JAVASCRIPT
            elif letter == 109:
                if _is_phrase_at(data, at - 4, start, end, _LOREM_IPSUM, 32):
                    found |= _LOREM
                elif _is_phrase_at(data, at - 3, start, end, _TERMS_OF_USE, 32):
                    found |= _POLICY
            elif letter == 118:
                if _is_phrase_at(data, at - 3, start, end, _PRIVACY_POLICY, 32):
                    found |= _POLICY
            elif letter == 107 and (
                _is_phrase_at(data, at - 3, start, end, _COOKIE_POLICY, 32)
                or _is_phrase_at(data, at - 8, start, end, _USES_COOKIES, 32)
                or _is_phrase_at(data, at - 10, start, end, _USE_OF_COOKIES, 32)
                or _is_phrase_at(data, at - 7, start, end, _USE_COOKIES, 32)
            ):
                found |= _POLICY
    return found
