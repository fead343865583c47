"""Documents that must go: their origins in, their numbers in a dataset out.

A document is known by where it came from: the name of its input file and its row or byte offset
there, which is what PREFIX.origin holds. Ids are looked up in a run's verdicts before
(`pipeline/takedown.py`), because a dataset does not store them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .chosen_documents import CHUNK_DOCUMENTS
from .errors import IndexedDatasetError
from .origins import read_origins
from .paths import prefix_paths
from .reader import IndexedDataset

Origin = tuple[str, int]
"""Name of an input file, relative to its source, and a row number or byte offset in it."""


class DocumentFacts(NamedTuple):
    """What a manifest counts by and a dataset does not store for a single document."""

    language: str
    source: str
    text_bytes: int


class WantedOrigins:
    """Origins to look for in datasets.

    Args:
        origins: each with what is known about the document, or None.
    """

    def __init__(self, origins: Mapping[Origin, DocumentFacts | None]) -> None:
        self.origins = list(origins)
        by_file: dict[str, list[int]] = {}
        for place, (file, _) in enumerate(self.origins):
            by_file.setdefault(file, []).append(place)
        self._by_file = {file: self._sorted(places) for file, places in by_file.items()}

    def find_in(self, dataset: IndexedDataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (document numbers, rising; the place of each one's origin in `origins`).

        Raises:
            IndexedDatasetError: the dataset does not know where its documents came from.
            TruncatedDataError: its .origin is cut off.
        """
        path = prefix_paths(dataset.prefix).origin
        numbers, places = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        if not self.origins or not dataset.num_documents:
            return numbers[0], places[0]
        if dataset.manifest is None or not path.exists():
            raise IndexedDatasetError(
                f"{dataset.prefix} does not say where its documents came from (there is no "
                f"{path.name}), so the documents to drop cannot be found in it. Make it again from "
                "its inputs without them"
            )
        wanted = {
            number: self._by_file[file]
            for number, file in enumerate(dataset.manifest.origin_files)
            if file in self._by_file
        }
        for first in range(0, dataset.num_documents, CHUNK_DOCUMENTS):
            count = min(CHUNK_DOCUMENTS, dataset.num_documents - first)
            rows = read_origins(path, dataset.num_documents, first, count)
            for number in np.unique(rows[:, 0]).tolist():
                if number not in wanted:
                    continue
                offsets, origins = wanted[number]
                mine = np.flatnonzero(rows[:, 0] == number)
                found = np.searchsorted(offsets, rows[mine, 1])
                found[found == len(offsets)] = 0
                hits = offsets[found] == rows[mine, 1]
                numbers.append(first + mine[hits])
                places.append(origins[found[hits]])
        found_numbers = np.concatenate(numbers)
        order = np.argsort(found_numbers)
        return found_numbers[order], np.concatenate(places)[order]

    def _sorted(self, places: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the offsets of some origins, rising, and where these origins stand."""
        offsets = np.array([self.origins[place][1] for place in places], np.int64)
        order = np.argsort(offsets)
        return offsets[order], np.array(places, np.int64)[order]
