"""Documents and the filters' decisions flow in, verdict rows of what was dropped flow out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .documents import VERDICT_SCHEMA
from .text_column import FILTERS, read_all_rows

TEXT_BYTES = "text_bytes"
"""Column of documents/ with the size of the text, which filters need."""


def dropped_tables(documents: Path | None, copied: Sequence[str]) -> Iterator[pa.Table]:
    """Yield verdicts (of VERDICT_SCHEMA) of the documents that the filters dropped, in order.

    Args:
        documents: the unit's documents file; None: it has none.
        copied: columns that verdicts have from the documents, besides `id` and `text_bytes`.
    """
    if documents is None:
        return
    decisions = documents.parent.parent / FILTERS / documents.name
    if not decisions.is_file():
        return
    decided = pq.read_table(decisions, columns=["kept", "reason"])
    first = 0
    for table in read_all_rows(documents, ["id", TEXT_BYTES, *copied]):
        own = decided.slice(first, table.num_rows)
        first += table.num_rows
        dropped = pc.invert(own["kept"])
        rows = table.filter(dropped)
        count = rows.num_rows
        if not count:
            continue
        columns = {
            **{name: rows[name] for name in ["id", *copied]},
            "kept": pa.array(np.zeros(count, np.bool_)),
            "reason": own["reason"].filter(dropped),
            "cluster_id": pa.nulls(count, pa.binary(16)),
            "cluster_size": pa.array(np.ones(count, np.int64)),
            "duplicate_of": pa.nulls(count, pa.binary(16)),
            "jaccard": pa.nulls(count, pa.float64()),
            "text_bytes": rows[TEXT_BYTES],
        }
        yield pa.table([columns[name] for name in VERDICT_SCHEMA.names], schema=VERDICT_SCHEMA)
