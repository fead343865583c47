"""Document numbers flow in, the rows that a sorted table on disk has for them flow out.

Rows are read, not mapped: pages of a map count as memory of the process once touched, with some
beside them, so that a few rows here and there soon make a whole table resident.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dedup_layout import VERIFIED

CHUNK_ROWS = 65_536
"""Rows that are read at once where only their document numbers stay: 4 MB."""
GAP_ROWS = 64
"""Rows so near to each other are read with what lies between them: a page."""


class RowFile:
    """A file of VERIFIED rows, by ascending document: 8 bytes of memory a row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with open(path, "rb", buffering=0) as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            assert dtype == VERIFIED, dtype
            self._start = file.tell()
            self.documents = np.empty(shape[0], np.int64)
            for first in range(0, shape[0], CHUNK_ROWS):
                rows = self._rows(file.fileno(), first, min(first + CHUNK_ROWS, shape[0]))
                self.documents[first : first + len(rows)] = rows["document"]

    def read(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows at some places, in the order in which they are asked for."""
        found = np.empty(len(places), VERIFIED)
        order = np.argsort(places, kind="stable")
        ordered = places[order]
        cuts = np.flatnonzero(np.diff(ordered) > GAP_ROWS) + 1
        with open(self._path, "rb", buffering=0) as file:
            for wanted, near in zip(np.split(order, cuts), np.split(ordered, cuts), strict=True):
                if len(near):
                    rows = self._rows(file.fileno(), int(near[0]), int(near[-1]) + 1)
                    found[wanted] = rows[near - near[0]]
        return found

    def _rows(self, file: int, first: int, last: int) -> NDArray[Any]:
        size = VERIFIED.itemsize
        content = os.pread(file, size * (last - first), self._start + size * first)
        return np.frombuffer(content, VERIFIED)


def find_sorted(
    table: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (places in the ascending table, rows of `wanted`) of the numbers that are in both."""
    places = np.searchsorted(table, wanted)
    rows = np.flatnonzero(places < len(table))
    rows = rows[table[places[rows]] == wanted[rows]]
    return places[rows], rows
