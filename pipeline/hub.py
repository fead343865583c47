"""Data sets on the Hugging Face hub: an id in, batches of documents out, as a stream."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from .batches import Piece, ReadBatch
from .columnar import read_table_rows

ROWS_AT_A_TIME = 256


def read_hub(piece: Piece) -> Iterator[ReadBatch]:
    """Yield the documents of one split of a data set; `origin_offset` is the row.

    Raises:
        ValueError: the data set cannot be opened: the message says why.
    """
    import datasets

    file = piece.file
    source = file.source
    try:
        data_set = datasets.load_dataset(
            file.path,
            name=source.subset or None,
            split=source.split,
            revision=source.revision or None,
            streaming=source.streaming,
        )
    except Exception as error:  # whatever the library, its loaders or the network raise
        raise ValueError(
            f"{file.path} (subset {source.subset!r}, split {source.split!r}) cannot be read from "
            f"the hub: {type(error).__name__}: {error}. Check these names and the network, or "
            "download the data set and give its folder as the path"
        ) from error
    row = 0
    for table in data_set.with_format("arrow").iter(batch_size=ROWS_AT_A_TIME):
        # A column in several chunks becomes several batches.
        for batch in pa.Table.from_batches(table.to_batches()).to_batches():
            yield from read_table_rows(file, batch, row)
            row += batch.num_rows
