"""What lies in a file of documents, verdicts or text, or in a tokenizer: a path in, a page out."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from .formats import compression_of
from .lines import read_lines

NUM_ROWS = 3
MAX_CHARACTERS = 200


def describe_parquet(path: Path) -> str:
    """Return row count, row groups, columns and the first rows of a Parquet file."""
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        lines = [
            f"{path}: Parquet, {metadata.num_rows:,} rows in {metadata.num_row_groups} row groups, "
            f"{path.stat().st_size / 1e6:.2f} MB",
            "",
            *(f"  {field.name:<15} {field.type}" for field in file.schema_arrow),
        ]
        batch = next(file.iter_batches(batch_size=NUM_ROWS), None)
        rows = batch.to_pylist() if batch is not None else []
    return "\n".join([*lines, *_show_rows(rows)])


def describe_text(path: Path) -> str:
    """Return the first lines of a text or JSONL file, compressed or not."""
    block = next(read_lines(path, compression_of(str(path))), None)
    data = block.data if block is not None else b""
    head = [line.decode(errors="replace") for line in data.split(b"\n", NUM_ROWS)[:NUM_ROWS]]
    lines = [f"{path}: {path.stat().st_size / 1e6:.2f} MB on disk; its first lines:"]
    for line in head:
        lines += ["", *textwrap.wrap(line[: 3 * MAX_CHARACTERS], 100)]
    return "\n".join(lines)


def describe_tokenizer(path: Path) -> str:
    """Return vocabulary size, EOD, fingerprint and an example of a tokenizer."""
    from .tokenizer import Tokenizer

    tokenizer = Tokenizer(path)
    example = "Grind 12 grains: 谷物, зерно, अनाज, ธัญพืช."
    (ids,) = tokenizer.encode_batch([example])
    pieces = [tokenizer.decode(ids[n : n + 1]) for n in range(len(ids))]
    return "\n".join(
        [
            f"{path}: vocabulary of {tokenizer.vocab_size:,} ids, stored as {tokenizer.dtype}",
            f"  EOD          {tokenizer.eod_id}",
            f"  fingerprint  {tokenizer.fingerprint}",
            f"  example      {example}",
            f"               {len(ids)} tokens: {' '.join(pieces)}",
        ]
    )


def _show_rows(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for number, row in enumerate(rows):
        lines += ["", f"row {number}"]
        for name, value in row.items():
            shown = value.hex() if isinstance(value, bytes) else str(value)
            shown = shown.replace("\n", "⏎")
            cut = shown[:MAX_CHARACTERS] + ("…" if len(shown) > MAX_CHARACTERS else "")
            lines.append(f"  {name:<15} {cut}")
    return lines
