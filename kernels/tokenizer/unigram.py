"""Segments of normalized text flow in, ids of the most probable Unigram pieces flow out.

The model (Kudo 2018, arXiv:1804.10959) gives every vocabulary string a log probability and takes
the path of strings through a piece of text whose sum is highest. Ids depend on ties and on the
last bit of each sum, so the search does what `tokenizers` does, in its order: from left to right,
at each character all strings that begin there from short to long, `score + best so far` in
float64, replaced only by something strictly greater; last, if the character alone is no string, the
unknown token with the lowest score - 10. Unknown tokens in a row are one; if its text is no string,
it becomes bytes (with byte fallback, where all are strings) or the unknown id.

Pieces come from `Metaspace` or `WhitespaceSplit` with it. Sums begin anew in each piece, so pieces
of equal bytes have equal ids and are remembered; parts of a piece would not be, for rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..jit import borrowing_kernel as kernel
from ..jit import inner_kernel as inner
from .code_points import decode
from .intrinsics import prefetch
from .memo import BATCH, LONG_BYTES, Batch, Memo, find, home_slot, keep, recall, word_key
from .trie import child

META = 0x2581
PREFIX_NEVER, PREFIX_ALWAYS, PREFIX_FIRST = 0, 1, 2
"""When a piece (with SPLIT_SPACES: the first of a segment) that does not begin with U+2581 gets
one: never, always, or at the begin of a document only."""
SPLIT_NOWHERE, SPLIT_META, SPLIT_SPACES = 0, 1, 2
"""Where pieces begin: nowhere, at each U+2581, at white space (which vanishes) and each U+2581."""

_SPACE = 32


class UnigramTables(NamedTuple):
    """What `pipeline.engine.unigram` makes of a tokenizer.json."""

    roots: NDArray[np.int32]
    """int32[0x110000]: node of each code point at the begin of a string, or -1."""
    edges: NDArray[np.uint64]
    """Edges of the trie of the vocabulary."""
    ids: NDArray[np.int32]
    """Ids of its nodes."""
    scores: NDArray[np.float64]
    """float64[number of nodes + 1]: score of its string, -inf if it is none; the last: of an
    unknown character."""
    byte_ids: NDArray[np.int32]
    """int32[256]: ids of <0x00> to <0xFF>, -1 where there is none or no byte fallback."""
    settings: NDArray[np.int64]
    """int64[5]: unknown id; prefix mode; split mode; 1 if U+2581 splits too (SPLIT_SPACES); the
    first node of the trie without children."""


class Path(NamedTuple):
    """Scratch: the search through one piece, of n characters."""

    text: NDArray[np.int32]
    """int32[n]: the piece."""
    best: NDArray[np.float64]
    """float64[n + 1]: best sum up to each end."""
    came: NDArray[np.int32]
    """int32[n + 1]: where the last string of the best path to each end begins."""
    took: NDArray[np.int32]
    """int32[n + 1]: node of that string, or -1."""


def new_path(size: int) -> Path:
    """Return scratch for pieces of `size` characters, U+2581 before them counted."""
    return Path(
        np.zeros(size, np.int32),
        np.zeros(size + 1, np.float64),
        np.zeros(size + 1, np.int32),
        np.zeros(size + 1, np.int32),
    )


@kernel
def encode_unigram(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    tokens: NDArray[np.int32],
    first: NDArray[np.uint8],
    tables: UnigramTables,
    memo: Memo,
    batch: Batch,
    path: Path,
    out: NDArray[np.int32],
    segment_ids: NDArray[np.int64],
) -> int:
    """Encode text segments; arguments and result as of `encode_sentencepiece`.

    `path`: for pieces of the longest segment's bytes, and one.
    """
    roots, edges, ids, scores, byte_ids, settings = tables
    slots, kept_ids, kept_text, used = memo
    prefix_mode, split_mode, meta_splits = settings[1], settings[2], settings[3] != 0
    begins, lengths, prefixed, keys, _ = batch
    text, best, came, took = path
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
            # Find some pieces and ask for their places in the memo, then look at these places.
            count = 0
            while at < end and count < BATCH:
                begin = at
                code_point, width = decode(data, at)
                if split_mode == SPLIT_SPACES and is_white(code_point):
                    at += width
                    continue
                meta = code_point in (_SPACE, META)
                # A piece inside a word of SPLIT_SPACES begins with U+2581: no prefix.
                prefixed[count] = np.int32(
                    not meta
                    and (
                        prefix_mode == PREFIX_ALWAYS
                        or (
                            prefix_mode == PREFIX_FIRST
                            and first[segment] != 0
                            and begin == starts[segment]
                        )
                    )
                )
                at += width
                if split_mode == SPLIT_NOWHERE:
                    at = end
                while at < end:
                    code_point, width = decode(data, at)
                    if code_point == _SPACE or (code_point == META and meta_splits):
                        break
                    if split_mode == SPLIT_SPACES and is_white(code_point):
                        break
                    at += width
                begins[count], lengths[count] = begin, at - begin
                if at - begin <= LONG_BYTES:
                    low, high = word_key(data, begin, at - begin)
                    prefetch(slots, home_slot(slots, low, high))
                    keys[2 * count], keys[2 * count + 1] = low, high
                count += 1
            for index in range(count):
                begin, length = begins[index], lengths[index]
                found, slot = False, np.uint64(0)
                low, high = keys[2 * index], keys[2 * index + 1]
                # With PREFIX_FIRST a segment's first piece has a prefix or not: its key is silent.
                known = length <= LONG_BYTES and not (
                    prefix_mode == PREFIX_FIRST and begin == starts[segment]
                )
                if known:
                    slot, found = find(slots, kept_text, data, begin, length, low, high)
                if found:
                    cursor = recall(slots, kept_ids, slot, length, out, cursor)
                    continue
                size = 0
                if prefixed[index] != 0:
                    text[0] = META
                    size = 1
                place = begin
                while place < begin + length:
                    code_point, width = decode(data, place)
                    text[size] = np.int32(META if code_point == _SPACE else code_point)
                    size += 1
                    place += width
                _search(text, size, roots, edges, scores, settings[4], best, came, took)
                number = _write_path(
                    text, size, edges, ids, byte_ids, np.int32(settings[0]), came, took, out, cursor
                )
                if known and number <= LONG_BYTES:
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
def is_white(code_point: int) -> bool:
    """Say whether a code point is one of the 25 with the property White_Space."""
    if code_point < 0x80:
        return code_point == 32 or 9 <= code_point <= 13
    if code_point < 0x1680:
        return code_point == 0x85 or code_point == 0xA0
    return 0x2000 <= code_point <= 0x200A or code_point in (
        0x1680,
        0x2028,
        0x2029,
        0x202F,
        0x205F,
        0x3000,
    )


@inner
def _search(
    text: NDArray[np.int32],
    size: int,
    roots: NDArray[np.int32],
    edges: NDArray[np.uint64],
    scores: NDArray[np.float64],
    num_inner: int,
    best: NDArray[np.float64],
    came: NDArray[np.int32],
    took: NDArray[np.int32],
) -> None:
    """Fill, for each end in the text: the best sum, where its last string begins, and its node.

    The node of an unknown character is -1.
    """
    for index in range(size + 1):
        best[index] = -np.inf
    best[0] = 0.0
    unknown_score = scores[len(scores) - 1]
    for start in range(size):
        so_far = best[start]
        node: Any = np.int64(roots[text[start]])
        stop = start + 1
        if node < 0 or scores[node] == -np.inf:  # tried last, as the order of ties wants it
            alone = False
        else:
            alone = True
            total = scores[node] + so_far
            if total > best[stop]:
                best[stop], came[stop], took[stop] = total, start, node
        while 0 <= node < num_inner and stop < size:
            node = child(edges, node, np.int64(text[stop]))
            stop += 1
            if node >= 0:
                total = scores[node] + so_far
                if total > best[stop]:
                    best[stop], came[stop], took[stop] = total, start, node
        if not alone:
            stop = start + 1
            total = unknown_score + so_far
            if total > best[stop]:
                best[stop], came[stop], took[stop] = total, start, -1


@inner
def _write_path(
    text: NDArray[np.int32],
    size: int,
    edges: NDArray[np.uint64],
    ids: NDArray[np.int32],
    byte_ids: NDArray[np.int32],
    unknown: np.int32,
    came: NDArray[np.int32],
    took: NDArray[np.int32],
    out: NDArray[np.int32],
    cursor: int,
) -> int:
    """Write the ids of the best path, unknown ones fused, and return their number."""
    # From the end to the begin: the place of each string's end goes to came[] of its begin.
    stop: Any = size
    behind: Any = size
    while stop > 0:
        start: Any = np.int64(came[stop])
        came[stop] = behind
        behind = stop
        stop = start
    came[0] = behind
    count = 0
    start = 0
    while start < size:
        stop = np.int64(came[start])
        number = _taken(took, stop, ids, unknown)
        if number != unknown:
            out[cursor + count] = number
            count += 1
            start = stop
            continue
        while stop < size and _taken(took, np.int64(came[stop]), ids, unknown) == unknown:
            stop = np.int64(came[stop])
        count += _write_unknown(
            text, start, stop, edges, ids, byte_ids, unknown, out, cursor + count
        )
        start = stop
    return count


@inner
def _taken(took: NDArray[np.int32], stop: Any, ids: NDArray[np.int32], unknown: np.int32) -> Any:
    return ids[took[stop]] if took[stop] >= 0 else unknown


@inner
def _write_unknown(
    text: NDArray[np.int32],
    start: int,
    stop: int,
    edges: NDArray[np.uint64],
    ids: NDArray[np.int32],
    byte_ids: NDArray[np.int32],
    unknown: np.int32,
    out: NDArray[np.int32],
    cursor: int,
) -> int:
    """Write the ids of text[start:stop], which is unknown as strings of its characters."""
    node = 0
    for index in range(start, stop):
        node = child(edges, node, np.int64(text[index]))
        if node < 0:
            break
    if node >= 0 and ids[node] >= 0:
        out[cursor] = ids[node]
        return 1
    count = 0
    for index in range(start, stop):
        code_point = np.int64(text[index])
        length = 1 + (code_point >= 0x80) + (code_point >= 0x800) + (code_point >= 0x10000)
        for position in range(length):
            bits = code_point >> 6 * (length - 1 - position)
            if position > 0:
                byte = 0x80 | bits & 0x3F
            elif length > 1:
                byte = (0xF00 >> length & 0xFF) | bits
            else:
                byte = bits
            number = byte_ids[byte]
            if number < 0:
                out[cursor] = unknown
                return 1
            out[cursor + count] = number
            count += 1
    return count
