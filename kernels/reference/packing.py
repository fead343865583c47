"""Best-fit decreasing with a list of bins for each amount of room, looked through one by one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack_best_fit(
    lengths: NDArray[np.int64], capacity: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Put documents into bins; see `kernels/packing.py`."""
    if capacity < 1 or min(lengths, default=0) < 0:
        raise ValueError(f"lengths from 0 on and a capacity from 1 on, not {capacity}")
    rests = [(int(n) % capacity, d) for d, n in enumerate(lengths) if n % capacity]
    bins: list[list[tuple[int, int]]] = []
    with_room: dict[int, list[int]] = {room: [] for room in range(capacity + 1)}
    for length, document in sorted(rests, key=lambda rest: (-rest[0], rest[1])):
        room = next((r for r in range(length, capacity) if with_room[r]), capacity)
        if room == capacity:
            chosen = len(bins)
            bins.append([])
        else:
            chosen = with_room[room].pop()
        bins[chosen].append((document, int(lengths[document]) - length))
        with_room[room - length].append(chosen)
    for pieces in bins:
        pieces.sort()
    for document, length in enumerate(lengths):
        bins += [[(document, k * capacity)] for k in range(int(length) // capacity)]
    listed = [piece for pieces in bins for piece in pieces]
    return (
        np.cumsum([0, *map(len, bins)], dtype=np.int64),
        np.array([document for document, _ in listed], dtype=np.int64),
        np.array([offset for _, offset in listed], dtype=np.int64),
    )
