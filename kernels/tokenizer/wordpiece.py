"""Segments of raw text flow in, ids of BERT's normalizer, pre-tokenizer and WordPiece flow out.

BERT's rules look at one code point at a time, so a table says of each whether it is white space
(ends a word and vanishes), stands alone (punctuation, Chinese characters), or belongs to a word,
and as what (lower case, without accents, not at all). Words are found in the raw text and
remembered by their raw bytes; only a word that is new is normalized, into code points, and cut
into the longest vocabulary strings from the left (Wu et al. 2016, arXiv:1609.08144).

One rule looks further: `strip_accents` decomposes canonically, which sorts marks by their
combining class. Accents go afterwards, but a few marks are none in its old tables and stay, in
sorted order. So a word keeps the class of each code point (in its top byte) and where the last
starter stood (`SORTS_FROM`), and sorts what it appends.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .code_points import decode, place
from .intrinsics import prefetch
from .memo import BATCH, LONG_BYTES, Batch, Memo, find, home_slot, keep, recall, word_key
from .trie import child

LETTER, SPACE, ALONE, MAPPED = 0, 1, 2, 3
"""Kinds of code points: itself, white space, a word of its own, an entry of `mapped`."""
KIND_BITS = 2

STARTER = 8
"""Bit of the first number of an entry of `mapped`, beside the length: marks sort behind it only."""

_CLASS_SHIFT = 24
_CODE_POINT = (1 << _CLASS_SHIFT) - 1


class WordPieceTables(NamedTuple):
    """What `pipeline.engine.wordpiece` makes of a tokenizer.json."""

    stage1: NDArray[np.uint16]
    """uint16[4352]: block of each 256 code points."""
    kinds: NDArray[np.int32]
    """int32[256 * blocks]: kind, and shifted by KIND_BITS: of ALONE the id, of MAPPED the place."""
    mapped: NDArray[np.int32]
    """Entries: length (+ STARTER), then that many combining class << 24 | code point."""
    edges: NDArray[np.uint64]
    """Edges of the trie of the vocabulary."""
    ids: NDArray[np.int32]
    """Ids of its nodes."""
    settings: NDArray[np.int64]
    """int64[3]: unknown id, most characters of a word, node where later pieces begin (-1: none)."""


@kernel
def encode_wordpiece(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    tokens: NDArray[np.int32],
    first: NDArray[np.uint8],
    tables: WordPieceTables,
    memo: Memo,
    batch: Batch,
    scratch: NDArray[np.int32],
    out: NDArray[np.int32],
    segment_ids: NDArray[np.int64],
) -> int:
    """Encode text segments; arguments and result as of `encode_sentencepiece`.

    `first` is not looked at. `scratch`: int32[most characters of a word + 8], overwritten.
    `out`: int32[3 * bytes of text + 16 * s + 64] at least.
    """
    stage1, kinds, mapped, edges, ids, settings = tables
    slots, kept_ids, kept_text, used = memo
    begins, lengths, alone, keys, _ = batch
    cursor = 0
    segment_ids[0] = 0
    for segment in range(len(starts)):
        if tokens[segment] >= 0:
            out[cursor] = tokens[segment]
            cursor += 1
            segment_ids[segment + 1] = cursor
            continue
        at, end = starts[segment], ends[segment]
        while at < end:
            # Find some words and ask for their places in the memo, then look at these places.
            count = 0
            while at < end and count < BATCH:
                code_point, width = decode(data, at)
                entry = kinds[place(stage1, code_point)]
                kind = entry & 3
                begin = at
                at += width
                if kind == SPACE:
                    continue
                begins[count] = begin
                alone[count] = entry >> KIND_BITS
                if kind != ALONE:
                    alone[count] = -1
                    while at < end:
                        code_point, width = decode(data, at)
                        kind = kinds[place(stage1, code_point)] & 3
                        if kind == SPACE or kind == ALONE:  # noqa: SIM109
                            break
                        at += width
                    if at - begin <= LONG_BYTES:
                        low, high = word_key(data, begin, at - begin)
                        prefetch(slots, home_slot(slots, low, high))
                        keys[2 * count], keys[2 * count + 1] = low, high
                lengths[count] = at - begin
                count += 1
            for index in range(count):
                if alone[index] >= 0:
                    out[cursor] = alone[index]
                    cursor += 1
                    continue
                begin, length = begins[index], lengths[index]
                found, slot = False, np.uint64(0)
                low, high = keys[2 * index], keys[2 * index + 1]
                if length <= LONG_BYTES:
                    slot, found = find(slots, kept_text, data, begin, length, low, high)
                if found:
                    cursor = recall(slots, kept_ids, slot, length, out, cursor)
                    continue
                size = _normalize_word(
                    data, begin, length, stage1, kinds, mapped, settings[1], scratch
                )
                number = _longest_pieces(scratch, size, edges, ids, settings, out, cursor)
                if length <= LONG_BYTES and number <= LONG_BYTES:
                    keep(
                        slots,
                        kept_ids,
                        kept_text,
                        used,
                        slot,
                        data,
                        begin,
                        length,
                        low,
                        high,
                        out,
                        cursor,
                        number,
                    )
                cursor += number
        segment_ids[segment + 1] = cursor
    return cursor


@inner
def _normalize_word(
    data: NDArray[np.uint8],
    begin: int,
    length: int,
    stage1: NDArray[np.uint16],
    kinds: NDArray[np.int32],
    mapped: NDArray[np.int32],
    most: int,
    word: NDArray[np.int32],
) -> int:
    """Write the code points of a word and return how many; more than `most` end early."""
    size = 0
    sorts_from = 0
    at, end = begin, begin + length
    while at < end and size <= most:
        code_point, width = decode(data, at)
        entry = np.int64(kinds[place(stage1, code_point)])
        at += width
        if entry & 3 != MAPPED:
            word[size] = np.int32(code_point)
            size += 1
            sorts_from = size
            continue
        entry >>= KIND_BITS
        number = np.int64(mapped[entry])
        for index in range(entry + 1, entry + 1 + (number & 7)):
            item = mapped[index]
            hole = size
            while hole > sorts_from and word[hole - 1] >> _CLASS_SHIFT > item >> _CLASS_SHIFT > 0:
                word[hole] = word[hole - 1]
                hole -= 1
            word[hole] = item
            size += 1
            if item >> _CLASS_SHIFT == 0:
                sorts_from = size
        if number & STARTER:
            sorts_from = size
    return size


@inner
def _longest_pieces(
    word: NDArray[np.int32],
    size: int,
    edges: NDArray[np.uint64],
    ids: NDArray[np.int32],
    settings: NDArray[np.int64],
    out: NDArray[np.int32],
    cursor: int,
) -> int:
    """Cut a word into the longest vocabulary strings from the left; write and count their ids."""
    unknown = np.int32(settings[0])
    if size > settings[1]:
        out[cursor] = unknown
        return 1
    count = 0
    at = 0
    node = 0
    while at < size:
        best, stop = np.int32(-1), at
        for index in range(at, size):
            if node < 0:
                break
            node = child(edges, node, np.int64(word[index] & _CODE_POINT))
            if node >= 0 and ids[node] >= 0:
                best, stop = ids[node], index + 1
        if best < 0:
            out[cursor] = unknown
            return 1
        out[cursor + count] = best
        count += 1
        at = stop
        node = settings[2]
    return count
