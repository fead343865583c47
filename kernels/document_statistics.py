"""Documents flow in, a row of counts each flows out: all that the filters of the field ask about.

One pass over lines and their words, then one over the remembered tokens for each n-gram length.
Counts, not shares: they are exact, and a filter divides them as its rule says. Sources of the
rules: Rae et al. 2021 (Gopher), Raffel et al. 2020 (C4), Penedo et al. 2024 (FineWeb).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .character_classes import KIND_MASK, SPACE, TERMINAL, WORD_WEIGHT, class_table
from .hashing import check_offsets
from .jit import as_readonly
from .jit import borrowing_kernel as kernel
from .lines import count_line
from .mixing import mix64
from .repetition import duplicate_characters, find_slot, table_size, top_characters
from .shingling import WINDOW_BASE
from .statistics_columns import (
    ALPHABETIC_WORDS,
    CHARACTERS,
    CHARACTERS_OF_WORDS,
    DUPLICATE_LINE_CHARACTERS,
    DUPLICATE_LINES,
    DUPLICATE_PARAGRAPH_CHARACTERS,
    DUPLICATE_PARAGRAPHS,
    LINES,
    MAX_STOP_WORDS,
    NEWLINES,
    NUM_COLUMNS,
    PARAGRAPHS,
    PUNCTUATED_LINES,
    REPETITION_CHARACTERS,
    SHORT_LINE_CHARACTERS,
    SHORT_LINES,
    STOP_WORDS,
    TEXT_LINES,
    TOKENS,
    TOP_2GRAM_CHARACTERS,
    WORDS,
)
from .tokens import (
    ALPHABETIC_WEIGHT,
    MAX_TOKENS,
    NUM_COUNTS,
    REMEMBERED,
    STOP_WORDS_SEEN,
    TOKEN_WEIGHT,
    WORD_CHARACTERS,
    WORD_TOTAL_WEIGHT,
    count_characters,
    flags_at,
    hash_word,
    start_of_last,
)

MAX_REMEMBERED_LINES = 1 << 20
"""Different lines, and paragraphs, of one document that later ones are compared with."""

_WORD_WEIGHT = np.int64(WORD_WEIGHT)
_WINDOW_BASE = np.uint64(WINDOW_BASE)
_ONE = np.uint64(1)


def text_statistics(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    stop_words: Sequence[Sequence[str]] = (),
    stop_lists: NDArray[np.int32] | None = None,
) -> NDArray[np.uint32]:
    """Count what each document is made of.

    Args:
        data: uint8[num_bytes], UTF-8 of the documents one after another; lines end in LF.
        offsets: int64[num_documents + 1], non-decreasing, within `data`.
        stop_words: lists of at most 63 words each (as they are written, case and all).
        stop_lists: int32[num_documents], number of each document's list in `stop_words`, negative
            for none; None: none has one.

    Returns:
        uint32[num_documents, len(COLUMNS)], the counts that `COLUMNS` names.

    Raises:
        ValueError: a list is too long, or there is none of a number.
    """
    data, offsets = as_readonly(data, np.uint8), as_readonly(offsets, np.int64)
    check_offsets(data, offsets)
    num_documents = len(offsets) - 1
    lists = np.full(num_documents, -1, np.int32) if stop_lists is None else stop_lists
    lists = as_readonly(lists, np.int32)
    if len(lists) != num_documents or (num_documents and int(lists.max()) >= len(stop_words)):
        raise ValueError(
            f"stop_lists has {len(lists)} numbers up to {int(lists.max(initial=-1))} for "
            f"{num_documents} documents and {len(stop_words)} lists of stop words"
        )
    longest = max(map(len, stop_words), default=0)
    if longest > MAX_STOP_WORDS:
        raise ValueError(f"a list of {longest} stop words: at most {MAX_STOP_WORDS} are counted")
    encoded = [word.encode() for words in stop_words for word in words]
    stop_hashes = np.empty(len(encoded), np.uint64)
    for index, word in enumerate(encoded):
        stop_hashes[index] = hash_word(
            as_readonly(np.frombuffer(word, np.uint8), np.uint8), 0, len(word)
        )
    stop_offsets = np.cumsum([0, *map(len, stop_words)], dtype=np.int64)
    rows = np.zeros((num_documents, NUM_COLUMNS), np.uint32)
    longest_document = int(np.diff(offsets).max(initial=0))
    capacity = min(longest_document, MAX_TOKENS)
    hashes = np.zeros(capacity + 1, np.uint64)
    sums = np.zeros((3, capacity + 1), np.int32)
    keys = np.empty(table_size(min(longest_document + 1, MAX_REMEMBERED_LINES)), np.uint64)
    paragraph_keys = np.empty_like(keys)
    values = np.empty((2, len(keys)), np.int32)
    positions = np.empty((2, capacity), np.int32)
    counts, row, remembered = (np.empty(n, np.int64) for n in (NUM_COUNTS, NUM_COLUMNS, 2))
    _text_statistics(
        data, offsets, *class_table(), stop_hashes, stop_offsets, lists,
        hashes, sums, keys, paragraph_keys, values, positions, counts, row, remembered, rows,
    )  # fmt: skip
    return rows


@kernel
def _text_statistics(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
    stop_hashes: NDArray[np.uint64],
    stop_offsets: NDArray[np.int64],
    stop_lists: NDArray[np.int32],
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
    keys: NDArray[np.uint64],
    paragraph_keys: NDArray[np.uint64],
    values: NDArray[np.int32],
    positions: NDArray[np.int32],
    counts: NDArray[np.int64],
    row: NDArray[np.int64],
    remembered: NDArray[np.int64],
    rows: NDArray[np.uint32],
) -> None:
    for document in range(len(offsets) - 1):
        counts[:] = 0
        row[:] = 0
        stop_list = stop_lists[document]
        stops = stop_hashes[:0]
        if stop_list >= 0:
            stops = stop_hashes[stop_offsets[stop_list] : stop_offsets[stop_list + 1]]
        _count_lines(
            data, offsets[document], offsets[document + 1], block_numbers, blocks, stops, counts,
            hashes, sums, keys, paragraph_keys, remembered, row,
        )  # fmt: skip
        row[WORDS] = (counts[WORD_TOTAL_WEIGHT] + _WORD_WEIGHT // 2) // _WORD_WEIGHT
        row[CHARACTERS_OF_WORDS] = counts[WORD_CHARACTERS]
        row[TOKENS] = (counts[TOKEN_WEIGHT] + _WORD_WEIGHT // 2) // _WORD_WEIGHT
        row[ALPHABETIC_WORDS] = (counts[ALPHABETIC_WEIGHT] + _WORD_WEIGHT // 2) // _WORD_WEIGHT
        seen = counts[STOP_WORDS_SEEN]
        while seen:
            row[STOP_WORDS] += seen & 1
            seen >>= 1
        num_tokens = counts[REMEMBERED]
        num_positions = -1
        for words in range(2, 5):
            top, num_positions = top_characters(
                words, num_tokens, num_positions, hashes, sums, keys, values, positions
            )
            row[TOP_2GRAM_CHARACTERS + words - 2] = top
        for words in range(5, 11):
            repeated = duplicate_characters(
                words, num_tokens, num_positions, hashes, sums, keys, positions
            )
            row[TOP_2GRAM_CHARACTERS + words - 2] = repeated
            if repeated == 0:  # a longer n-gram repeats a shorter one
                break
        for column in range(NUM_COLUMNS):
            rows[document, column] = np.uint32(row[column])


@kernel
def _count_lines(
    data: NDArray[np.uint8],
    start: int,
    end: int,
    block_numbers: NDArray[np.uint8],
    blocks: NDArray[np.uint16],
    stops: NDArray[np.uint64],
    counts: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    sums: NDArray[np.int32],
    keys: NDArray[np.uint64],
    paragraph_keys: NDArray[np.uint64],
    remembered: NDArray[np.int64],
    row: NDArray[np.int64],
) -> None:
    """Fill a document's row but for what follows from all its tokens."""
    # No line is shorter than a byte and its LF, so half of the bytes bound the lines.
    size = min(table_size((end - start) // 2 + 1), len(keys))
    keys[:size] = np.uint64(0)
    paragraph_keys[:size] = np.uint64(0)
    remembered[:] = 0
    paragraph_hash, paragraph_characters, paragraph_lines = np.uint64(0), 0, 0
    position = start
    while position < end:
        line_end = position
        while line_end < end and data[line_end] != 10:
            line_end += 1
        characters = count_characters(data, position, line_end)
        row[CHARACTERS] += characters
        if line_end < end:
            row[CHARACTERS] += 1
            row[NEWLINES] += 1
        row[LINES] += 1
        first = position  # of the line without white space at its ends
        while first < line_end:
            flags, taken = flags_at(data, first, line_end, block_numbers, blocks)
            if flags & KIND_MASK != SPACE:
                break
            first += taken
        if first == line_end:
            paragraph_hash, paragraph_characters, paragraph_lines = _end_paragraph(
                paragraph_hash, paragraph_characters, paragraph_lines, size, paragraph_keys,
                remembered, row,
            )  # fmt: skip
            position = line_end + 1
            continue
        row[TEXT_LINES] += 1
        last = start_of_last(data, position, line_end)
        last_flags, _ = flags_at(data, last, line_end, block_numbers, blocks)
        if last_flags & TERMINAL:
            row[PUNCTUATED_LINES] += 1
        if characters <= SHORT_LINE_CHARACTERS:
            row[SHORT_LINES] += 1
        line_hash = hash_word(data, position, line_end) | _ONE
        slot = find_slot(keys, line_hash, size - 1)
        if keys[slot] == line_hash:
            row[DUPLICATE_LINES] += 1
            row[DUPLICATE_LINE_CHARACTERS] += characters
        elif remembered[0] < size // 2:
            keys[slot] = line_hash
            remembered[0] += 1
        paragraph_hash = paragraph_hash * _WINDOW_BASE + line_hash
        paragraph_characters += characters + (1 if paragraph_lines else 0)
        paragraph_lines += 1

        stop = line_end
        while True:
            last = start_of_last(data, first, stop)
            flags, _ = flags_at(data, last, stop, block_numbers, blocks)
            if flags & KIND_MASK != SPACE:
                break
            stop = last
        count_line(data, first, stop, block_numbers, blocks, stops, counts, hashes, sums, row)
        if counts[REMEMBERED] < len(hashes) - 1 or len(hashes) <= MAX_TOKENS:
            row[REPETITION_CHARACTERS] = row[CHARACTERS]
        position = line_end + 1
    if row[REPETITION_CHARACTERS] == 0 or counts[REMEMBERED] < len(hashes) - 1:
        row[REPETITION_CHARACTERS] = row[CHARACTERS]
    _end_paragraph(
        paragraph_hash, paragraph_characters, paragraph_lines, size, paragraph_keys, remembered, row
    )


@kernel
def _end_paragraph(
    word: np.uint64,
    characters: int,
    lines: int,
    size: int,
    keys: NDArray[np.uint64],
    remembered: NDArray[np.int64],
    row: NDArray[np.int64],
) -> tuple[np.uint64, int, int]:
    """Count a paragraph, if there is one; return what the next begins with."""
    if lines:
        row[PARAGRAPHS] += 1
        key = mix64(word + np.uint64(lines)) | _ONE
        slot = find_slot(keys, key, size - 1)
        if keys[slot] == key:
            row[DUPLICATE_PARAGRAPHS] += 1
            row[DUPLICATE_PARAGRAPH_CHARACTERS] += characters
        elif remembered[1] < size // 2:
            keys[slot] = key
            remembered[1] += 1
    return np.uint64(0), 0, 0
