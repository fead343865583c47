"""Segments of raw text flow in, ids of SentencePiece-style byte-pair encoding flow out.

Llama 2, Mistral and Gemma replace each space by U+2581 and merge a whole gap as one word. Here the
text stays as it is: U+0020 has U+2581's entries in the tables. And a gap is cut into short words:

**Certified cut.** Between two characters x, y there is a cut unless the string of some merge's
result has y right after x. Why this changes nothing: a symbol is a single character, or what a
merge made, so its string is a stretch of the text. If no result's string contains "xy", no symbol
ever covers both sides of the boundary, and no merge joins across it. The merges of one side then
never look at the other: the order (lowest rank, leftmost first) puts the merges of the whole gap
in a sequence whose part on each side is that side's own sequence. Characters outside the
vocabulary become byte tokens or the unknown token; the table compiler makes sure that no merge
takes one of these, so they may stand on either side of a cut or within a word.

"Has y after x" is asked of a table with one hash per pair. A pair that collides with another one
only leaves a cut out, which is always right. So most words are a space with a few letters, and
equal bytes between two cuts have equal ids: the memo's key is the raw bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .code_points import decode, place
from .intrinsics import prefetch
from .memo import BATCH, LONG_BYTES, STAGE, Batch, Memo, find, home_slot, keep, recall, word_key
from .merges import NO_RANK, SHORT, Scratch, ask, merge_long, merge_short, pair_rank

META = 0x2581
"""The character that stands for a space in the vocabulary."""

PREFIX_NEVER, PREFIX_ALWAYS, PREFIX_UNLESS_META, PREFIX_FIRST_UNLESS_META = 0, 1, 2, 3
"""When a segment gets a U+2581 before it: never, always (`Prepend`), unless it begins with one
(`Metaspace` with "always"), or that at the begin of a document only ("first")."""

_SPACE = 32
_HASH = np.uint64(0x9E3779B97F4A7C15)
_ONE, _SIX = np.uint64(1), np.uint64(6)
_SHIFT_X, _SHIFT_HASH = np.uint64(21), np.uint64(45)
JOINED_BITS = 1 << 19
_MERGES, _KNOWN, _STAGED = np.int32(-1), np.int32(-2), np.int32(-3)
# what else than an id stands for a word: it is merged; the memo may have it; it has not


class SentencePieceTables(NamedTuple):
    """What `pipeline.engine.sentencepiece` makes of a tokenizer.json."""

    stage1: NDArray[np.uint16]
    """uint16[4352]: block of each 256 code points."""
    characters: NDArray[np.int32]
    """int32[256 * blocks]: id of the character alone, or -1. Of U+0020: that of U+2581."""
    joined_ascii: NDArray[np.uint64]
    """uint64[256]: bit y of words 2x, 2x + 1: no cut between ASCII x and y."""
    joined: NDArray[np.uint64]
    """uint64[JOINED_BITS / 64]: bit of the hash of (x, y): no cut between them."""
    pairs: NDArray[np.uint64]
    """Ranks of the merges, see `merges.pair_rank`."""
    rank_ids: NDArray[np.int32]
    """int32[number of merges]: id of each result."""
    byte_ids: NDArray[np.int32]
    """int32[256]: ids of <0x00> to <0xFF>; all -1 without byte fallback."""
    settings: NDArray[np.int64]
    """int64[4]: unknown id (-1: none); 1 if unknown characters in a row are one; prefix mode; 1 if
    each U+2581 begins a piece (which the cut tables know already)."""


@inner
def joined_bit(x: int, y: int) -> np.uint64:
    """Return the place of the pair (x, y) of code points in a table of JOINED_BITS bits."""
    return (np.uint64(x) << _SHIFT_X | np.uint64(y)) * _HASH >> _SHIFT_HASH


@kernel
def mark_joined(x: NDArray[np.int64], y: NDArray[np.int64], joined: NDArray[np.uint64]) -> None:
    """Set the bit of each pair (x[i], y[i])."""
    for index in range(len(x)):
        bit = joined_bit(x[index], y[index])
        joined[bit >> _SIX] |= _ONE << (bit & np.uint64(63))


@kernel
def encode_sentencepiece(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    tokens: NDArray[np.int32],
    first: NDArray[np.uint8],
    tables: SentencePieceTables,
    memo: Memo,
    batch: Batch,
    scratch: Scratch,
    out: NDArray[np.int32],
    segment_ids: NDArray[np.int64],
) -> int:
    """Encode text segments; see the module's docstring.

    Args:
        data: valid UTF-8, readable 64 bytes past the largest end.
        starts: int64[s], and `ends`: the bytes of each segment.
        tokens: int32[s]: -1 for text, else the id that the segment is.
        first: uint8[s]: 1 where a segment begins its document.
        tables: of the tokenizer.
        memo: of the worker; changes nothing but the speed.
        batch, scratch: overwritten; `scratch` for words of the longest segment's bytes, and 2.
        out: int32[at least bytes of text + 16 * s + 64], written.
        segment_ids: int64[s + 1], written: number of ids before each segment.

    Returns:
        The number of ids written.
    """
    stage1, characters, joined_ascii, joined, pairs, rank_ids, byte_ids, settings = tables
    slots, kept_ids, kept_text, used = memo
    begins, lengths, symbols, keys, staged = batch
    unknown, fuses, mode = np.int32(settings[0]), settings[1] != 0, settings[2]
    cursor = 0
    segment_ids[0] = 0
    for segment in range(len(starts)):
        if tokens[segment] >= 0:
            out[cursor] = tokens[segment]
            cursor += 1
            segment_ids[segment + 1] = cursor
            continue
        at, end = starts[segment], ends[segment]
        begin = cursor
        prefixed = False
        if at < end and mode != PREFIX_NEVER:
            x, _ = decode(data, at)
            meta = x in (_SPACE, META)
            prefixed = mode == PREFIX_ALWAYS or (
                not meta and (mode == PREFIX_UNLESS_META or first[segment] != 0)
            )
            if prefixed and not _is_joined(joined_ascii, joined, META, x):
                out[cursor] = characters[place(stage1, META)]
                cursor += 1
                prefixed = False
        while at < end:
            # Find some words and ask for their places in the memo, then look at these places.
            count = 0
            while at < end and count < BATCH:
                x, width = decode(data, at)
                stop = _end_of_word(data, at + width, end, x, joined_ascii, joined)
                length = stop - at
                symbol = _MERGES
                alone = not (prefixed and at == starts[segment])
                if alone and length == width:
                    symbol = characters[place(stage1, x)]
                elif alone and length <= LONG_BYTES:
                    low, high = word_key(data, at, length)
                    prefetch(slots, home_slot(slots, low, high))
                    keys[2 * count], keys[2 * count + 1] = low, high
                    symbol = _KNOWN
                begins[count], lengths[count], symbols[count] = at, length, symbol
                count += 1
                at = stop
            # Of those that the memo does not have, ask for the ranks that they begin with.
            for word in range(count):
                start, length = begins[word], lengths[word]
                if symbols[word] == _KNOWN and length < STAGE:
                    low, high = keys[2 * word], keys[2 * word + 1]
                    _, found = find(slots, kept_text, data, start, length, low, high)
                    if not found:
                        number: Any = _write_symbols(
                            data,
                            start,
                            length,
                            False,
                            stage1,
                            characters,
                            byte_ids,
                            unknown,
                            fuses,
                            staged,
                            word * STAGE + 1,
                        )
                        staged[word * STAGE] = np.int32(number)
                        symbols[word] = _STAGED
                        for index in range(word * STAGE + 1, word * STAGE + number):
                            ask(pairs, staged[index], staged[index + 1])
            for word in range(count):
                before = cursor
                symbol = symbols[word]
                if symbol >= 0:
                    out[cursor] = symbol
                    cursor += 1
                    continue
                start, length = begins[word], lengths[word]
                found, slot = False, np.uint64(0)
                if symbol != _MERGES:
                    low, high = keys[2 * word], keys[2 * word + 1]
                    slot, found = find(slots, kept_text, data, start, length, low, high)
                if found:
                    cursor = recall(slots, kept_ids, slot, length, out, cursor)
                else:
                    if symbol == _STAGED:
                        number = np.int64(staged[word * STAGE])
                        for index in range(number):
                            scratch.symbols[index] = staged[word * STAGE + 1 + index]
                    else:
                        number = _write_symbols(
                            data,
                            start,
                            length,
                            prefixed,
                            stage1,
                            characters,
                            byte_ids,
                            unknown,
                            fuses,
                            scratch.symbols,
                            0,
                        )
                    prefixed = False
                    number = _merge(number, scratch, pairs, rank_ids)
                    for index in range(number):
                        out[cursor + index] = scratch.symbols[index]
                    if symbol != _MERGES:
                        keep(
                            slots,
                            kept_ids,
                            kept_text,
                            used,
                            slot,
                            data,
                            start,
                            length,
                            low,
                            high,
                            out,
                            cursor,
                            number,
                        )
                    cursor += number
                if fuses and before > begin and out[before] == unknown == out[before - 1]:
                    for index in range(before + 1, cursor):
                        out[index - 1] = out[index]
                    cursor -= 1
        segment_ids[segment + 1] = cursor
    return cursor


@inner
def _is_joined(joined_ascii: NDArray[np.uint64], joined: NDArray[np.uint64], x: int, y: int) -> Any:
    if (x | y) < 0x80:
        word = joined_ascii[np.uint64(2 * x + (y >> 6))]  # no index that could be negative
        return word >> np.uint64(y & 63) & _ONE != np.uint64(0)
    bit = joined_bit(x, y)
    return joined[bit >> _SIX] >> (bit & np.uint64(63)) & _ONE != np.uint64(0)


@inner
def _end_of_word(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    x: int,
    joined_ascii: NDArray[np.uint64],
    joined: NDArray[np.uint64],
) -> int:
    """Return where the word ends whose character x ends at `at`."""
    while at < end:
        y, width = decode(data, at)
        if not _is_joined(joined_ascii, joined, x, y):
            return at
        x = y
        at += width
    return end


@inner
def _merge(
    count: int, scratch: Scratch, pairs: NDArray[np.uint64], rank_ids: NDArray[np.int32]
) -> Any:
    """Merge the first `count` symbols of the scratch in place and return how many are left."""
    symbols, ranks = scratch.symbols, scratch.ranks
    for index in range(count - 1):
        ranks[index] = pair_rank(pairs, symbols[index], symbols[index + 1])
    ranks[count - 1] = NO_RANK
    if count <= 1:
        return np.int64(count)
    if count <= SHORT:
        return np.int64(merge_short(symbols, ranks, count, pairs, rank_ids))
    return np.int64(merge_long(scratch, count, pairs, rank_ids))


@inner
def _write_symbols(
    data: NDArray[np.uint8],
    start: int,
    length: int,
    prefixed: bool,
    stage1: NDArray[np.uint16],
    characters: NDArray[np.int32],
    byte_ids: NDArray[np.int32],
    unknown: np.int32,
    fuses: bool,
    symbols: NDArray[np.int32],
    begin: int,
) -> int:
    """Write what the merges of a word begin with to symbols[begin:] and return how many."""
    count = 0
    if prefixed:
        symbols[begin] = characters[place(stage1, META)]
        count = 1
    pending = False  # the symbol before is an unknown character
    at, end = start, start + length
    while at < end:
        code_point, width = decode(data, at)
        symbol = characters[place(stage1, code_point)]
        if symbol >= 0:
            symbols[begin + count] = symbol
            count += 1
            pending = False
        elif byte_ids[0] >= 0:
            for index in range(width):
                symbols[begin + count] = byte_ids[data[at + index]]
                count += 1
        elif not (pending and fuses):
            symbols[begin + count] = unknown
            count += 1
            pending = True
        at += width
    return count
