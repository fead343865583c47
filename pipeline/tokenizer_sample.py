"""What a tokenizer learns from: verdicts and documents in, an even sample of texts out.

Languages share the byte budget evenly: one with less text gives all it has, and what it leaves is
spread over the others. Inside a language the documents with the smallest keyed hashes are taken,
so the sample depends on neither workers, units nor the order of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .placement import keyed_hash
from .text_column import id_words, text_arrays

MAX_DOCUMENT_BYTES = 100_000
"""Of a longer document only the beginning is learned from, so that none fills the budget."""

_SLACK = 2.0
_SLACK_BYTES = 20 * MAX_DOCUMENT_BYTES


def share_bytes(available: Mapping[str, int], budget: int) -> dict[str, int]:
    """Spread `budget` bytes evenly over languages that have `available` bytes.

    Example: share_bytes({"a": 10, "b": 100, "c": 100}, 90) == {"a": 10, "b": 40, "c": 40}.
    """
    shares: dict[str, int] = {}
    left = budget
    poorest_first = sorted(available, key=lambda language: (available[language], language))
    for position, language in enumerate(poorest_first):
        shares[language] = min(available[language], left // (len(poorest_first) - position))
        left -= shares[language]
    return shares


def read_sample(
    output: Path, units: Sequence[str], available: Mapping[str, int], budget: int
) -> dict[str, list[str]]:
    """Return the texts to learn from by language, languages and texts in a fixed order.

    Args:
        output: the run's output folder (documents/ and verdicts/ are read).
        units: names of the units.
        available: bytes of kept text in each language, as the verdicts' markers count them.
        budget: bytes to take in all.
    """
    shares = share_bytes(available, budget)
    candidates = _candidates(output, units, available, shares)
    chosen: dict[bytes, tuple[str, int]] = {}  # id -> language, place in it
    for language in sorted(candidates):
        words, hashes, sizes = candidates[language]
        order = np.lexsort((words[:, 1], words[:, 0], hashes))
        before = np.cumsum(sizes[order]) - sizes[order]
        for place, row in enumerate(order[before < shares[language]].tolist()):
            chosen[words[row].astype("<u8").tobytes()] = (language, place)
    found: dict[str, dict[int, str]] = {language: {} for language in sorted(candidates)}
    ids = pa.array(sorted(chosen), pa.binary(16))
    for unit in units:
        with pq.ParquetFile(output / "documents" / f"{unit}.parquet") as file:
            for group in range(file.num_row_groups):
                mask = pc.is_in(file.read_row_group(group, columns=["id"])["id"], value_set=ids)
                if not pc.any(mask).as_py():
                    continue
                table = file.read_row_group(group, columns=["id", "text"]).filter(mask)
                for own, text in zip(table["id"].to_pylist(), _beginnings(table), strict=True):
                    language, place = chosen[own]
                    found[language][place] = text
    return {language: [text for _, text in sorted(found[language].items())] for language in found}


def _candidates(
    output: Path, units: Sequence[str], available: Mapping[str, int], shares: Mapping[str, int]
) -> dict[str, tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]]:
    """Return (ids uint64[n, 2], hashes, bytes to learn from) of each language's likely documents.

    Only documents whose hash is below a limit are held in memory. The limit lets in twice the
    share and some more, so that falling short of the share is next to impossible; if it does
    happen, the sample is a little smaller, and the same each time.
    """
    limits = {
        language: min(1.0, (_SLACK * shares[language] + _SLACK_BYTES) / max(available[language], 1))
        for language in shares
    }
    parts: dict[str, list[tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]]] = {}
    for unit in units:
        with pq.ParquetFile(output / "verdicts" / f"{unit}.parquet") as file:
            for batch in file.iter_batches(columns=["id", "language", "kept", "text_bytes"]):
                kept = batch.filter(batch["kept"])
                if kept.num_rows == 0:
                    continue
                words = id_words(kept["id"])
                hashes = keyed_hash(words, 0, "tokenizer_sample")
                encoded = kept["language"].dictionary_encode()
                sizes = np.minimum(kept["text_bytes"].to_numpy(), MAX_DOCUMENT_BYTES)
                codes = encoded.indices.to_numpy()
                for code, language in enumerate(encoded.dictionary.to_pylist()):
                    limit = math.floor(limits[language] * 2**64)
                    rows = np.flatnonzero(codes == code)
                    if limit < 2**64:
                        rows = rows[hashes[rows] < np.uint64(limit)]
                    parts.setdefault(language, []).append((words[rows], hashes[rows], sizes[rows]))
    return {
        language: (
            np.concatenate([words for words, _, _ in pieces]),
            np.concatenate([hashes for _, hashes, _ in pieces]),
            np.concatenate([sizes for _, _, sizes in pieces]),
        )
        for language, pieces in parts.items()
    }


def _beginnings(table: pa.Table) -> Iterable[str]:
    """Yield each text, or its first `MAX_DOCUMENT_BYTES` bytes up to a whole code point."""
    data, offsets = text_arrays(table["text"])
    for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        raw = bytes(data[start : min(end, start + MAX_DOCUMENT_BYTES)])
        yield raw.decode(errors="ignore")  # only the last code point can be incomplete
