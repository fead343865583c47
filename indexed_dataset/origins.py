"""PREFIX.origin: document numbers in, (file number, row or byte offset) of each out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import PrefixNotFoundError, TruncatedDataError
from .open_files import open_for_reading

ROW_BYTES = 16


def read_origins(path: Path, num_documents: int, first: int, count: int) -> NDArray[np.int64]:
    """Return int64[count, 2], the rows of `count` documents from `first` on.

    Args:
        path: the .origin file.
        num_documents: of the dataset; the file has a row for each.

    Raises:
        PrefixNotFoundError: there is no such file.
        TruncatedDataError: it has another number of rows.
    """
    try:
        descriptor = open_for_reading(path)
    except FileNotFoundError:
        raise PrefixNotFoundError(
            f"there is no file {path}, which says where the documents came from. Copy the dataset "
            "again"
        ) from None
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        _check_size(path, os.fstat(descriptor).st_size, num_documents)
        rows = np.fromfile(stream, "<i8", 2 * count, offset=ROW_BYTES * first)
    if len(rows) != 2 * count:
        _check_size(path, path.stat().st_size, num_documents)  # cut off while it was read
    return rows.reshape(-1, 2)


def _check_size(path: Path, size: int, num_documents: int) -> None:
    """Refuse an .origin that does not have one row for each document."""
    if size != ROW_BYTES * num_documents:
        raise TruncatedDataError(
            f"{path} has {size} bytes, but {num_documents} documents need "
            f"{ROW_BYTES * num_documents}: it is cut off or of another dataset. Copy or write the "
            "dataset again"
        )
