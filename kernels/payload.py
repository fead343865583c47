"""Shingle lists flow in; sets to compare, and what is the documents' own in them, flow out.

Pages that are made from one template share most of their shingles and are different documents all
the same. A shingle that very many documents of a source have is *boilerplate* there. A document's
*payload* are its shingles in runs of at least PAYLOAD_WINDOWS windows of consecutive ones that are
no boilerplate: 15 shingles of a spaced script, so 11 new words in a row. A single word that was
exchanged touches 5, so copies that differ by a name, a date or a number have no payload.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .distinct import sort_unique
from .jit import as_readonly, kernel

PAYLOAD_WINDOWS = 3

_TOP_BITS = 16
_TOP_SHIFT = np.uint64(64 - _TOP_BITS)
_MIN_INDEXED = 1024  # a smaller table is searched whole


def shingle_sets(
    values: NDArray[np.uint64],
    list_offsets: NDArray[np.int64],
    windows: NDArray[np.uint8],
    sources: NDArray[np.uint64],
    boilerplate: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Return the set of each shingle list, and the payload where a document has boilerplate.

    Args:
        values, list_offsets, windows: as `shingle_lists` returns them.
        sources: uint64[num_documents], a word for the source of each document.
        boilerplate: uint64[num_shingles], ascending: shingle xor source word of each frequent one.

    Returns:
        sets: uint64[], the distinct shingles of each document in ascending order.
        set_offsets: int64[num_documents + 1] into `sets`.
        payloads, payload_offsets: the same of the payloads; empty for a document without
            boilerplate, and for one whose order is lost (window 0).
    """
    values, list_offsets = as_readonly(values, np.uint64), as_readonly(list_offsets, np.int64)
    boilerplate = as_readonly(boilerplate, np.uint64)
    sets = np.empty(len(values), np.uint64)
    payloads = np.empty(len(values) if len(boilerplate) else 0, np.uint64)
    set_offsets = np.zeros(len(list_offsets), np.int64)
    payload_offsets = np.zeros(len(list_offsets), np.int64)
    tops = np.arange(1 << _TOP_BITS, dtype=np.uint64) << _TOP_SHIFT
    starts = np.empty(0, np.int64)
    if len(boilerplate) >= _MIN_INDEXED:
        starts = np.append(np.searchsorted(boilerplate, tops), len(boilerplate)).astype(np.int64)
    _shingle_sets(
        values,
        list_offsets,
        as_readonly(windows, np.uint8),
        as_readonly(sources, np.uint64),
        boilerplate,
        starts,
        sets,
        set_offsets,
        payloads,
        payload_offsets,
    )
    return (
        sets[: set_offsets[-1]],
        set_offsets,
        payloads[: payload_offsets[-1]],
        payload_offsets,
    )


def source_shingles(
    values: NDArray[np.uint64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    sources: NDArray[np.uint64],
    low: int,
    high: int,
) -> NDArray[np.uint64]:
    """Return shingle xor source word of each document's distinct shingles, where in [low, high].

    Args:
        values: uint64[], shingle lists.
        starts, sizes: int64[num_documents], where each document's list lies in `values`.
        sources: uint64[num_documents], a word for the source of each document.
        low, high: bounds of what is returned, both included, 0 to 2^64 - 1.

    Returns:
        uint64[], the documents one after another: a shingle that two documents of one source have
        is there twice.
    """
    values = as_readonly(values, np.uint64)
    starts, sizes = as_readonly(starts, np.int64), as_readonly(sizes, np.int64)
    sources = as_readonly(sources, np.uint64)
    if len(starts) and (starts.min() < 0 or (starts + sizes).max() > len(values)):
        raise ValueError(
            f"a shingle list ends at {(starts + sizes).max()}, but there are {len(values)} shingles"
        )
    selected = np.empty(_count_shingles(values, starts, sizes, sources, low, high), np.uint64)
    size = _source_shingles(
        values, starts, sizes, sources, np.uint64(low), np.uint64(high), selected
    )
    return selected[:size]


def _count_shingles(
    values: NDArray[np.uint64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    sources: NDArray[np.uint64],
    low: int,
    high: int,
) -> int:
    return int(
        _source_shingles(
            values, starts, sizes, sources, np.uint64(low), np.uint64(high), np.empty(0, np.uint64)
        )
    )


@kernel
def _source_shingles(
    values: NDArray[np.uint64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    sources: NDArray[np.uint64],
    low: np.uint64,
    high: np.uint64,
    selected: NDArray[np.uint64],
) -> int:
    """Fill `selected` and return its size; with an empty one, only return how many may come."""
    only_count = len(selected) == 0
    size = 0
    for document in range(len(starts)):
        first = size
        for place in range(starts[document], starts[document] + sizes[document]):
            word = values[place] ^ sources[document]
            if low <= word and word <= high:
                if not only_count:
                    selected[size] = word
                size += 1
        if not only_count:
            size = first + sort_unique(selected[first:size], size - first)
    return size


@kernel
def _shingle_sets(
    values: NDArray[np.uint64],
    list_offsets: NDArray[np.int64],
    windows: NDArray[np.uint8],
    sources: NDArray[np.uint64],
    boilerplate: NDArray[np.uint64],
    starts: NDArray[np.int64],
    sets: NDArray[np.uint64],
    set_offsets: NDArray[np.int64],
    payloads: NDArray[np.uint64],
    payload_offsets: NDArray[np.int64],
) -> None:
    num_sets, num_payloads = 0, 0
    for document in range(len(list_offsets) - 1):
        begin, end = list_offsets[document], list_offsets[document + 1]
        size = end - begin
        sets[num_sets : num_sets + size] = values[begin:end]
        num_sets += sort_unique(sets[num_sets : num_sets + size], size)
        set_offsets[document + 1] = num_sets
        payload_offsets[document + 1] = num_payloads
        if windows[document] == 0 or len(boilerplate) == 0:
            continue
        least = np.int64(windows[document]) * PAYLOAD_WINDOWS
        first = num_payloads
        run = 0  # rare shingles up to here
        has_boilerplate = False
        for place in range(begin, end):
            if _holds(boilerplate, starts, values[place] ^ sources[document]):
                has_boilerplate = True
                run = 0
                continue
            run += 1
            if run == least:
                payloads[num_payloads : num_payloads + run] = values[place + 1 - run : place + 1]
                num_payloads += run
            elif run > least:
                payloads[num_payloads] = values[place]
                num_payloads += 1
        num_payloads = first + sort_unique(payloads[first:num_payloads], num_payloads - first)
        if not has_boilerplate:
            num_payloads = first
        payload_offsets[document + 1] = num_payloads


@kernel
def _holds(table: NDArray[np.uint64], starts: NDArray[np.int64], word: np.uint64) -> bool:
    """Say whether an ascending table has a value; `starts` has places by the highest bits."""
    low, high = np.int64(0), np.int64(len(table))
    if len(starts):
        top = np.int64(word >> _TOP_SHIFT)
        low, high = starts[top], starts[top + 1]
    while low < high:
        middle = (low + high) // 2
        if table[middle] < word:
            low = middle + 1
        else:
            high = middle
    return bool(low < len(table) and table[low] == word)
