"""Kept documents of one unit in; hash and place of every passage that could repeat another, out.

```
UNIT.keys.npy    uint64[n], ascending: hash of kind, source (lines and paragraphs) and bytes
UNIT.places.npy  PLACE[n], which document's bytes
```
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from .array_files import save_array
from .config import PassagesConfig
from .executors import advance
from .kept_documents import read_kept
from .stage import UnitResult
from .text_column import text_arrays

KINDS = ("line", "paragraph", "span", "evaluation")
"""Kinds of what is cut; the last is no repetition, but evaluation data (see `contamination`)."""

PLACE = np.dtype(
    [
        ("row", "<i8"),  # of the document in documents/UNIT.parquet
        ("start", "<u4"),  # bytes of its text: from, with the line's end that goes along
        ("end", "<u4"),  # up to but not including
        ("kind", "<u1"),  # place in KINDS
    ]
)

_LINE_FEED = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacesArguments:
    """One unit's work."""

    documents: Path
    verdicts: Path
    places: Path
    """Path of the files to write, without suffix."""
    config: PassagesConfig


@dataclass(frozen=True, slots=True)
class Passages:
    """Passages of consecutive documents, one entry each."""

    documents: NDArray[np.int64]
    """Number of the document in the batch."""
    starts: NDArray[np.int64]
    """First byte in the batch."""
    ends: NDArray[np.int64]
    """Byte after the last that is compared."""
    cut_ends: NDArray[np.int64]
    """Byte after the last that goes when the passage goes."""


def places_files(path: Path) -> tuple[Path, Path]:
    """Return the names of UNIT.keys.npy and UNIT.places.npy."""
    return path.with_name(f"{path.name}.keys.npy"), path.with_name(f"{path.name}.places.npy")


def write_places(arguments: PlacesArguments) -> UnitResult:
    """Write the two files of one unit."""
    keys: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    places: list[NDArray[np.void]] = [np.zeros(0, PLACE)]
    if arguments.documents.is_file():
        batches = read_kept(arguments.documents, arguments.verdicts, ["text", "source"])
        for batch in batches:
            data, offsets = text_arrays(batch.table["text"])
            sources = batch.table["source"].to_pylist()
            for kind, passages, hashes in _passages(data, offsets, arguments.config):
                if kind != "span":  # templates are counted in each source
                    salts = np.array([_salt(kind, source) for source in sources], np.uint64)
                    hashes = hashes ^ salts[passages.documents]
                begins = offsets[:-1][passages.documents]
                rows = np.zeros(len(hashes), PLACE)
                rows["row"] = batch.rows[passages.documents]
                rows["start"] = passages.starts - begins
                rows["end"] = passages.cut_ends - begins
                rows["kind"] = KINDS.index(kind)
                keys.append(hashes)
                places.append(rows)
            advance(len(data))
    all_keys, all_places = np.concatenate(keys), np.concatenate(places)
    order = np.argsort(all_keys, kind="stable")
    paths = places_files(arguments.places)
    save_array(paths[0], all_keys[order])
    save_array(paths[1], all_places[order])
    return UnitResult(counts={"places": len(order)}, scratch=paths)


def _passages(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], config: PassagesConfig
) -> Iterator[tuple[str, Passages, NDArray[np.uint64]]]:
    """Yield kind, passages and their hashes."""
    for kind, mode in (("line", config.lines), ("paragraph", config.paragraphs)):
        if mode != "off":
            found = split(data, offsets, kind == "paragraph")
            is_long = found.ends - found.starts >= max(config.min_bytes, 1)
            found = Passages(
                found.documents[is_long],
                found.starts[is_long],
                found.ends[is_long],
                found.cut_ends[is_long],
            )
            bounds = np.stack([found.starts, found.ends], axis=1).ravel()
            bounds = np.append(bounds, bounds[-1:])  # text between passages is hashed in vain
            hashes = kernels.hash_documents(data, bounds)[::2, 0] if len(bounds) else np.zeros(0)
            yield kind, found, hashes.astype(np.uint64)
    if config.spans != "off":
        length = config.span_bytes * 4 // 5
        documents, starts, ends, hashes = kernels.winnow(
            data, offsets, length, config.span_bytes - length + 1
        )
        yield "span", Passages(documents, starts, ends, ends), hashes


def split(data: NDArray[np.uint8], offsets: NDArray[np.int64], by_paragraph: bool) -> Passages:
    """Cut documents at line ends, or at empty lines; passages without a byte are left out.

    What separates a passage from the next one goes with it.

    Args:
        data: uint8[num_bytes].
        offsets: int64[num_documents + 1].
        by_paragraph: cut where two or more line feeds follow each other.
    """
    begin, end = int(offsets[0]), int(offsets[-1])
    text = data[begin:end]
    bounds = offsets - begin
    is_feed = text == _LINE_FEED
    is_first = np.zeros(len(text) + 2, np.bool_)
    is_first[bounds] = True  # a document's first byte, and the place after the last one's end
    before = _later(is_feed, 1)  # the byte before is a line feed
    stops = is_feed
    if by_paragraph:
        # Two of them, or one at the beginning of a document.
        before = before & (_later(is_first[:-2], 1) | _later(is_feed, 2))
        followed = np.append(is_feed[1:], False)
        stops = is_feed & (followed | is_first[1:-1])
    starts = np.flatnonzero(~is_feed & (before | is_first[:-2]))
    documents = np.searchsorted(bounds, starts, side="right") - 1
    document_ends = bounds[documents + 1]
    cut_ends = np.minimum(np.append(starts[1:], len(text)), document_ends)[: len(starts)]
    places = np.append(np.flatnonzero(stops), len(text))
    ends = np.minimum(places[np.searchsorted(places, starts)], cut_ends)
    return Passages(documents, starts + begin, ends + begin, cut_ends + begin)


def _later(flags: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Return the flags `count` places further on."""
    moved = np.zeros(len(flags), np.bool_)
    moved[count:] = flags[: len(flags) - count] if count <= len(flags) else []
    return moved


def _salt(kind: str, source: str) -> int:
    """Return a number that keeps equal passages of different sources and kinds apart."""
    digest = hashlib.blake2b(f"{kind} {source}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")
