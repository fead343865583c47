"""What is a document's own: runs of shingles that few documents of its source have."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from ..payload import PAYLOAD_WINDOWS


def shingle_sets(
    values: NDArray[np.uint64],
    list_offsets: NDArray[np.int64],
    windows: NDArray[np.uint8],
    sources: NDArray[np.uint64],
    boilerplate: NDArray[np.uint64],
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """Return (sets, set_offsets, payloads, payload_offsets) as the kernel does."""
    frequent = set(boilerplate.tolist())
    sets: list[int] = []
    payloads: list[int] = []
    set_offsets, payload_offsets = [0], [0]
    for document in range(len(list_offsets) - 1):
        shingles = values[list_offsets[document] : list_offsets[document + 1]].tolist()
        source = int(sources[document])
        sets += sorted(set(shingles))
        is_frequent = [shingle ^ source in frequent for shingle in shingles]
        own: set[int] = set()
        if windows[document] and any(is_frequent):
            for frequent_run, pairs in groupby(
                zip(is_frequent, shingles, strict=True), key=lambda pair: pair[0]
            ):
                run = [shingle for _, shingle in pairs]
                if not frequent_run and len(run) >= PAYLOAD_WINDOWS * int(windows[document]):
                    own |= set(run)
        payloads += sorted(own)
        set_offsets.append(len(sets))
        payload_offsets.append(len(payloads))
    return (
        np.array(sets, np.uint64),
        np.array(set_offsets, np.int64),
        np.array(payloads, np.uint64),
        np.array(payload_offsets, np.int64),
    )


def source_shingles(
    values: NDArray[np.uint64],
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    sources: NDArray[np.uint64],
    low: int,
    high: int,
) -> NDArray[np.uint64]:
    """Return the distinct shingles of each document, marked by its source, within the bounds."""
    selected: list[int] = []
    for start, size, source in zip(starts.tolist(), sizes.tolist(), sources.tolist(), strict=True):
        words = {value ^ source for value in values[start : start + size].tolist()}
        selected += sorted(word for word in words if low <= word <= high)
    return np.array(selected, np.uint64)
