"""Documents and hashes of windows flow in, the places where a document has such a window flow out.

This is n-gram matching, exact but for equal 64-bit hashes: a window of a document is found when the
list has one of the same tokens. Texts lighter than a window are found whole: their last tokens (or
all, where they are lighter than that too) are the anchor that is looked for at each token, and what
stands in front of an anchor is compared by the hash of the whole text.

Almost no token of a usual document is part of a match, so what counts is to say no quickly: a bit
of the hash's upper half, one of sixteen set, answers most questions from the cache; a directory by
the same bits leads the others to their place in the sorted list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .folding import fold_table
from .hashing import check_offsets
from .jit import as_readonly, kernel
from .shingling import word_seed
from .token_spans import (
    BLOCK_TOKENS,
    extend_prefix,
    new_token_state,
    next_tokens,
    ring_size,
    start_tokens,
    window_hash,
    window_powers,
)

_FILTER_BITS = 4
"""The filter has 2**4 bits for each place of the directory."""

_ONE = np.uint64(1)
_SIX = np.uint64(6)
_SIXTY_THREE = np.uint64(63)
_SIXTY_FOUR = np.uint64(64)


def find_windows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    weight: int,
    anchor_weight: int,
    windows: NDArray[np.uint64],
    anchors: NDArray[np.uint64],
    wholes: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    seed: int = 0,
) -> tuple[
    NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]
]:
    """Return where documents have the given windows or whole short texts.

    Args:
        data: uint8[num_bytes], UTF-8 of the documents one after another.
        offsets: int64[num_documents + 1], non-decreasing, within `data`.
        weight: of a window, 48 a word.
        anchor_weight: of the last tokens of a short text; at most `weight`.
        windows: uint64[n], ascending, distinct: hashes of `text_windows(..., weight, seed)`.
        anchors: uint64[m], ascending: of each short text the hash of its last window by
            `text_windows(..., anchor_weight, seed)`.
        wholes: uint64[m], hash of all tokens of the short text.
        lengths: int64[m], how many tokens that are; all weigh less than `weight`.
        seed: that of the hashes.

    Returns:
        documents int64[k]; starts int64[k] and ends int64[k], the bytes in `data` from the first
        token up to the end of the last; entries int64[k], place in `windows`, or n + place in
        `anchors`; lasts int64[k], number of the last token in its document. In the order of
        documents, last tokens and entries.
    """
    data, offsets = as_readonly(data, np.uint8), as_readonly(offsets, np.int64)
    check_offsets(data, offsets)
    if not 0 < anchor_weight <= weight:
        raise ValueError(f"anchor_weight {anchor_weight} must be from 1 to weight {weight}")
    listed = as_readonly(windows, np.uint64), as_readonly(anchors, np.uint64)
    short = as_readonly(wholes, np.uint64), as_readonly(lengths, np.int64)
    powers = window_powers(ring_size(weight))
    room = 1024
    while True:
        found = np.empty((5, room), np.int64)
        count = _find_windows(
            data, offsets, fold_table(), word_seed(seed), weight, anchor_weight, powers,
            listed[0], *_directory(listed[0]), listed[1], *_directory(listed[1]), *short, found,
        )  # fmt: skip
        if count <= room:
            documents, starts, ends, entries, lasts = found[:, :count].copy()
            return documents, starts, ends, entries, lasts
        room = count


def _directory(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return where hashes of each leading bits begin, and the filter."""
    bits = max(len(hashes), 1).bit_length()
    starts = np.zeros((1 << bits) + 1, np.int64)
    marks = np.zeros(1 << max(bits + _FILTER_BITS - 6, 0), np.uint64)
    _fill_directory(hashes, bits, starts, marks)
    return starts, marks


@kernel
def _fill_directory(
    hashes: NDArray[np.uint64], bits: int, starts: NDArray[np.int64], marks: NDArray[np.uint64]
) -> None:
    shift = _SIXTY_FOUR - np.uint64(bits)
    finer = _SIXTY_FOUR - np.uint64(bits + _FILTER_BITS)
    for value in hashes:
        starts[np.int64(value >> shift) + 1] += 1
        mark = value >> finer
        marks[np.int64(mark >> _SIX)] |= _ONE << (mark & _SIXTY_THREE)
    for place in range(1, len(starts)):
        starts[place] += starts[place - 1]


@kernel
def _first_equal(
    value: np.uint64,
    hashes: NDArray[np.uint64],
    starts: NDArray[np.int64],
    marks: NDArray[np.uint64],
    shift: np.uint64,
    finer: np.uint64,
) -> int:
    """Return the first place of a hash in the sorted list, -1 where it is not there."""
    mark = value >> finer
    if not marks[np.int64(mark >> _SIX)] >> (mark & _SIXTY_THREE) & _ONE:
        return -1
    slot = np.int64(value >> shift)
    for place in range(starts[slot], starts[slot + 1]):
        if hashes[place] == value:
            return place
    return -1


@kernel
def _find_windows(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    table: NDArray[np.uint32],
    seed: np.uint64,
    weight: int,
    anchor_weight: int,
    powers: NDArray[np.uint64],
    windows: NDArray[np.uint64],
    window_starts: NDArray[np.int64],
    window_marks: NDArray[np.uint64],
    anchors: NDArray[np.uint64],
    anchor_starts: NDArray[np.int64],
    anchor_marks: NDArray[np.uint64],
    wholes: NDArray[np.uint64],
    lengths: NDArray[np.int64],
    found: NDArray[np.int64],
) -> int:
    """Fill `found` as far as it reaches; return how many places there are."""
    tokens, places = np.empty(BLOCK_TOKENS, np.uint64), np.empty((3, BLOCK_TOKENS), np.int64)
    ring = len(powers)
    mask = ring - 1
    prefixes, weights = np.zeros(ring, np.uint64), np.zeros(ring, np.int64)
    begins = np.zeros(ring, np.int64)
    state = new_token_state()
    window_shift, window_finer = _shifts(len(window_starts))
    anchor_shift, anchor_finer = _shifts(len(anchor_starts))
    stored = 0
    for document in range(len(offsets) - 1):
        end = offsets[document + 1]
        start_tokens(state, offsets[document])
        # Tokens so far; the first token of the window, and of the anchor; weight so far.
        number, first, near, total = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
        stop = np.int64(0)  # byte after the last token
        prefix = np.uint64(0)
        prefixes[0], weights[0] = prefix, total
        while True:
            count = next_tokens(data, end, table, seed, state, tokens, places)
            is_end = count == 0
            if is_end and (number == 0 or total >= anchor_weight):
                break
            for index in range(max(count, 1)):
                if not is_end:
                    begins[number & mask] = places[0, index]
                    stop = places[1, index]
                    prefix = extend_prefix(prefix, tokens[index])
                    total += places[2, index]
                    number += 1
                    prefixes[number & mask], weights[number & mask] = prefix, total
                    while total - weights[(first + 1) & mask] >= weight:
                        first += 1
                    if total - weights[first & mask] >= weight:
                        length = number - first
                        before = prefixes[first & mask]
                        value = window_hash(before, prefix, powers[length], length)
                        entry = _first_equal(
                            value, windows, window_starts, window_marks, window_shift, window_finer
                        )
                        if entry >= 0:
                            if stored < found.shape[1]:
                                found[0, stored] = document
                                found[1, stored] = begins[first & mask]
                                found[2, stored] = stop
                                found[3, stored] = entry
                                found[4, stored] = number - 1
                            stored += 1
                    while total - weights[(near + 1) & mask] >= anchor_weight:
                        near += 1
                    if total - weights[near & mask] < anchor_weight:
                        continue
                if len(anchors) == 0:
                    continue
                # At the end of a document without a whole anchor, all its tokens are one.
                length = number - near
                before = prefixes[near & mask]
                value = window_hash(before, prefix, powers[length], length)
                entry = _first_equal(
                    value, anchors, anchor_starts, anchor_marks, anchor_shift, anchor_finer
                )
                while 0 <= entry < len(anchors) and anchors[entry] == value:
                    length = lengths[entry]
                    if length <= number and length < ring:
                        start = number - length
                        before = prefixes[start & mask]
                        if window_hash(before, prefix, powers[length], length) == wholes[entry]:
                            if stored < found.shape[1]:
                                found[0, stored] = document
                                found[1, stored] = begins[start & mask]
                                found[2, stored] = stop
                                found[3, stored] = len(windows) + entry
                                found[4, stored] = number - 1
                            stored += 1
                    entry += 1
            if is_end:
                break
    return stored


@kernel
def _shifts(num_starts: int) -> tuple[np.uint64, np.uint64]:
    """Return the shifts to a place of the directory, and of the filter, by the former's size."""
    bits = 0
    while (1 << bits) + 1 < num_starts:
        bits += 1
    return _SIXTY_FOUR - np.uint64(bits), _SIXTY_FOUR - np.uint64(bits + _FILTER_BITS)
