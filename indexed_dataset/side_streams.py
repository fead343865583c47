"""Side streams: a prefix and a name in, the entries that belong to its tokens out.

A side stream is an array with one entry for each token of the .bin, in a file of its own beside
it (`PREFIX.loss_mask.side`). `IndexedDatasetBuilder(..., streams={"loss_mask": "uint8"})` writes
one; the manifest holds its dtype and checksums; merging and dividing take it along.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import IndexedDatasetError, PrefixNotFoundError, TruncatedDataError
from .open_files import open_for_reading
from .reader import IndexedDataset


class SideStream:
    """One side stream of a dataset.

    Example: `SideStream(dataset, "loss_mask").read(start, n)` belongs to
    `dataset.read_tokens(start, n)`.

    Raises:
        IndexedDatasetError: the dataset has no such stream.
        PrefixNotFoundError: its file is missing.
        TruncatedDataError: its file does not have one entry for each token.
    """

    def __init__(self, dataset: IndexedDataset, name: str) -> None:
        entries = {} if dataset.manifest is None else dataset.manifest.side_streams
        if name not in entries:
            raise IndexedDatasetError(
                f"{dataset.prefix} has no side stream {name!r}; it has "
                f"{', '.join(sorted(entries)) or 'none'}. Write the dataset with it"
            )
        self.path = dataset.local_file(entries[name].suffix)
        self.dtype = np.dtype(entries[name].dtype)
        self.num_tokens = dataset.num_tokens
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            raise PrefixNotFoundError(
                f"there is no file {self.path}, which the manifest names. Copy the dataset again"
            ) from None
        if size != self.num_tokens * self.dtype.itemsize:
            raise self._truncated(size)

    def read(self, start: int, num_tokens: int) -> NDArray[Any]:
        """Return the entries of `num_tokens` tokens from position `start` of the .bin on."""
        if start < 0 or num_tokens < 0 or start + num_tokens > self.num_tokens:
            raise IndexedDatasetError(
                f"{self.path}: the entries {start} to {start + num_tokens} were asked for, but "
                f"there are {self.num_tokens}"
            )
        # Opened for each read: streams are many, and reading them is not the hot path yet.
        with os.fdopen(open_for_reading(self.path), "rb", buffering=0) as stream:
            entries = np.fromfile(
                stream, self.dtype, num_tokens, offset=start * self.dtype.itemsize
            )
            if len(entries) != num_tokens:
                raise self._truncated(os.fstat(stream.fileno()).st_size)
        return entries

    def _truncated(self, size: int) -> TruncatedDataError:
        return TruncatedDataError(
            f"{self.path} has {size} bytes, but {self.num_tokens} tokens need "
            f"{self.num_tokens * self.dtype.itemsize}: it is cut off or of another dataset. Copy "
            "or write the dataset again"
        )
