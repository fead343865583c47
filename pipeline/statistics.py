"""Texts of a batch flow in, the column `statistics` flows out: a struct of counts a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .. import kernels
from ..kernels.statistics_columns import COLUMNS

STATISTICS = "statistics"
STATISTICS_TYPE = pa.struct([pa.field(name, pa.uint32(), nullable=False) for name in COLUMNS])
STATISTICS_FIELD = pa.field(STATISTICS, STATISTICS_TYPE, nullable=False)


def statistics_array(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    languages: Sequence[str],
    stop_words: Mapping[str, Sequence[str]],
) -> pa.StructArray:
    """Return the statistics of texts.

    Args:
        data: uint8[num_bytes], offsets: int64[num_documents + 1]: the texts.
        languages: of each document.
        stop_words: language -> its words.
    """
    numbers = {language: number for number, language in enumerate(stop_words)}
    lists = np.array([numbers.get(language, -1) for language in languages], np.int32)
    rows = kernels.text_statistics(data, offsets, list(stop_words.values()), lists)
    columns = np.ascontiguousarray(rows.T)
    return pa.StructArray.from_arrays(
        [pa.array(column) for column in columns], fields=list(STATISTICS_TYPE)
    )


def counts_of(
    column: pa.ChunkedArray | pa.Array, names: Sequence[str]
) -> dict[str, NDArray[np.uint32]]:
    """Return some counts of a `statistics` column as name -> uint32[num_documents]."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    return {name: column.field(name).to_numpy(zero_copy_only=False) for name in names}
