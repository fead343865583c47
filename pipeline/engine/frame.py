"""The engine's frame: documents flow in, chunk by chunk, ids flow out.

    documents ─► added tokens (raw) ─► normalize ─► added tokens (normalized) ─► model ─► ids

A chunk is some whole documents, or a part of a long one between two certified cuts. In a chunk,
text that stands between added tokens and ends of documents is a *segment*: what a segment ends
with is the end of input to everything behind. Nothing here loops over documents in Python.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...kernels.jit import as_readonly
from ...kernels.tokenizer.added import TokenTrie, find_added_tokens, next_candidate
from ...kernels.tokenizer.classes import load_classes
from ...kernels.tokenizer.pieces import SLACK
from ...kernels.tokenizer.utf8 import first_invalid
from .. import cuts
from .memory import on_huge_pages

CHUNK_BYTES = 1 << 18
"""Text that goes through the kernels at a time: it stays in the second cache level."""


_ROOMY = 4 * CHUNK_BYTES


class Segments(NamedTuple):
    """Ranges of a chunk's bytes; see the module."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    tokens: NDArray[np.int32]
    """-1: text; else the id that is put out for this segment, whatever its bytes."""
    first: NDArray[np.uint8]
    """1: text that begins with the first byte of its document."""


class Normalizer(Protocol):
    """Turns the text of segments into what the pre-tokenizer sees."""

    def normalize(
        self, data: NDArray[np.uint8], segments: Segments
    ) -> tuple[NDArray[np.uint8], Segments]:
        """Return the normalized bytes (readable `SLACK` behind the last) and segments, as many."""


class Model(Protocol):
    """A tokenizer's model (and its pre-tokenizer), compiled."""

    @property
    def normalizer(self) -> Normalizer | None:
        """Return what turns text into what the model sees, or None."""

    @property
    def expansion(self) -> int:
        """Return the most ids that a byte of text becomes."""

    @property
    def cuts(self) -> str | None:
        """Return the name in `cuts.RULES` of where a document may be cut, or None."""

    def new_state(self) -> Any:
        """Return what one worker needs beside the tables: its memo and scratch."""

    def encode_segments(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        tokens: NDArray[np.int32],
        first: NDArray[np.uint8],
        state: Any,
        out: NDArray[np.int32],
        segment_ids: NDArray[np.int64],
    ) -> int:
        """Write ids to `out` and the number of ids before each segment; return how many."""


@dataclass(slots=True)
class Chunk:
    """Some documents of a batch, or a part of one."""

    begin: int
    end: int
    first_document: int
    last_document: int
    """Documents first_document up to last_document (included) have bytes or bounds here."""
    opens: bool
    """The first document begins here (else it goes on)."""
    closes: bool
    """The last document ends here."""


@dataclass(slots=True)
class Engine:
    """Encodes documents with one model; made by `compile.compile_engine`."""

    model: Model
    raw: TokenTrie | None
    normalized: TokenTrie | None
    before: NDArray[np.int32]
    """Ids that the post-processor puts before a document."""
    after: NDArray[np.int32]
    """Ids that the post-processor puts behind a document."""
    num_added_tokens: int = 0
    """Added tokens that texts have spelled out so far."""
    _workers: list[tuple[Any, NDArray[np.int32]]] = field(default_factory=list)
    """State and output buffer of workers that are not at work."""

    def place_tables(self) -> None:
        """Move the model's tables to memory that random reads are fast in: once, before use."""
        model = self.model
        moved = {}
        for name in ("tables", "known"):
            tables: Any = getattr(model, name, None)
            if isinstance(tables, tuple):
                moved[name] = on_huge_pages(tables)
        self.model = replace(model, **moved)  # type: ignore[type-var] # models are dataclasses

    def prepare(self) -> None:
        """Call the kernels beside the model's own once: they are compiled or loaded by that."""
        find_invalid(np.zeros(1, np.uint8), np.array([0, 1]))
        text = np.zeros(SLACK + 4, np.uint8)
        text[:3] = (0x65, 0xCC, 0x81)  # e and an accent: one character once composed
        bounds = np.array([0]), np.array([3])
        none = Segments(*bounds, np.full(1, -1, np.int32), np.ones(1, np.uint8))
        if self.model.normalizer is not None:
            self.model.normalizer.normalize(as_readonly(text, np.uint8), none)
        for trie in (self.raw, self.normalized):
            if trie is not None:
                text[0] = np.flatnonzero(trie.begins)[0]
                split_added_tokens(as_readonly(text, np.uint8), none, trie, None)
        self.model.new_state()

    def encode(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        dtype: np.dtype[Any],
        *,
        add_special_tokens: bool = False,
        threads: int = 1,
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Encode documents; see `Tokenizer.encode`. The text must be valid UTF-8."""
        num_documents = len(offsets) - 1
        lengths = np.zeros(num_documents + 1, np.int64)
        chunks = self._chunks(data, offsets)
        parallel = threads > 1 and len(chunks) > 1

        def encode_chunk(chunk: Chunk) -> tuple[NDArray[Any], NDArray[np.int64], int]:
            return self._encode_chunk(data, offsets, chunk, add_special_tokens, dtype, parallel)

        ids, total = np.empty(0, dtype), 0
        with contextlib.ExitStack() as stack:
            results: Iterable[tuple[NDArray[Any], NDArray[np.int64], int]]
            if parallel:
                pool = stack.enter_context(ThreadPoolExecutor(min(threads, len(chunks))))
                jobs = [pool.submit(encode_chunk, chunk) for chunk in chunks]
                results = [job.result() for job in jobs]
            else:
                results = map(encode_chunk, chunks)
            for chunk, (found, counts, num_added) in zip(chunks, results, strict=True):
                lengths[chunk.first_document + 1 : chunk.last_document + 2] += counts
                self.num_added_tokens += num_added
                if total + len(found) > len(ids):
                    # As many for each byte as up to here, and a little; too many cost nothing.
                    done, whole = chunk.end - int(offsets[0]), int(offsets[-1] - offsets[0])
                    room = (total + len(found)) * (1.1 * whole / max(done, 1))
                    more = np.empty(max(int(room), total + len(found)), dtype)
                    more[:total] = ids[:total]
                    ids = more
                ids[total : total + len(found)] = found
                total += len(found)
        return ids[:total], np.cumsum(lengths)

    def _encode_chunk(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        chunk: Chunk,
        add_special_tokens: bool,
        dtype: np.dtype[Any],
        parallel: bool,
    ) -> tuple[NDArray[Any], NDArray[np.int64], int]:
        """Return (ids, ids of each document of the chunk, added tokens found).

        Unless `parallel`, the ids are good until the next chunk is encoded.
        """
        try:
            state, out = self._workers.pop()
        except IndexError:
            state, out = self.model.new_state(), np.empty(0, np.int32)
        inner = offsets[chunk.first_document + 1 : chunk.last_document + 1]
        bounds = np.concatenate(([chunk.begin], inner, [chunk.end])) - chunk.begin
        text = data[chunk.begin : chunk.end + SLACK]
        if len(text) < chunk.end - chunk.begin + SLACK:
            padded = np.zeros(chunk.end - chunk.begin + SLACK, np.uint8)
            padded[: len(text)] = text
            text = padded
        text = as_readonly(text, np.uint8)
        first = np.ones(len(bounds) - 1, np.uint8)
        first[0] = chunk.opens
        tokens = np.full(len(first), -1, np.int32)
        segments = Segments(bounds[:-1].copy(), bounds[1:].copy(), tokens, first)
        counts = None  # segments of each document, while they are not one each
        if self.raw is not None:
            segments, counts = split_added_tokens(text, segments, self.raw, counts)
        if self.model.normalizer is not None:
            text, segments = self.model.normalizer.normalize(text, segments)
        if self.normalized is not None:
            segments, counts = split_added_tokens(text, segments, self.normalized, counts)
        num_segments = len(segments.starts)
        num_bytes = int((segments.ends - segments.starts).sum())
        room = self.model.expansion * num_bytes + 16 * num_segments + 64
        if room > len(out):
            out = np.empty(2 * room, np.int32)
        segment_ids = np.zeros(num_segments + 1, np.int64)
        total = self.model.encode_segments(text, *segments, state, out, segment_ids)
        ends = segment_ids[1:] if counts is None else segment_ids[np.cumsum(counts)]
        num_added = int(np.count_nonzero(segments.tokens >= 0)) if counts is not None else 0
        lengths = ends.copy()  # np.diff takes ten times as long for so few
        lengths[1:] -= ends[:-1]
        ids = out[:total].astype(dtype) if parallel else out[:total]
        if len(out) > 8 * _ROOMY:  # not kept: one huge document needed it
            out = np.empty(0, np.int32)
        self._workers.append((state, out))
        if add_special_tokens and len(self.before) + len(self.after):
            ids, lengths = self._wrap(ids, lengths, chunk)
        return ids, lengths, num_added

    def _wrap(
        self, ids: NDArray[Any], lengths: NDArray[np.int64], chunk: Chunk
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Put the post-processor's ids around each document."""
        before = np.full(len(lengths), len(self.before))
        after = np.full(len(lengths), len(self.after))
        if not chunk.opens:
            before[0] = 0
        if not chunk.closes:
            after[-1] = 0
        wrapped = np.empty(len(ids) + before.sum() + after.sum(), ids.dtype)
        full = lengths + before + after
        starts = np.cumsum(full) - full
        inside = np.ones(len(wrapped), bool)
        for i, token in enumerate(self.before):
            places = (starts + i)[before > 0]
            wrapped[places], inside[places] = token, False
        for i, token in enumerate(self.after):
            places = (starts + full - len(self.after) + i)[after > 0]
            wrapped[places], inside[places] = token, False
        wrapped[inside] = ids
        return wrapped, full

    def _chunks(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[Chunk]:
        """Cut a batch into chunks of about `CHUNK_BYTES`."""
        chunks = []
        num_documents = len(offsets) - 1
        document = 0
        while document < num_documents:
            begin = int(offsets[document])
            last = int(np.searchsorted(offsets, begin + CHUNK_BYTES, side="right")) - 2
            last = min(max(last, document), num_documents - 1)
            end = int(offsets[last + 1])
            if end - begin <= 2 * CHUNK_BYTES or self.model.cuts is None:
                chunks.append(Chunk(begin, end, document, last, True, True))
            else:
                text = memoryview(as_readonly(data[begin:end], np.uint8))  # type: ignore[arg-type]
                places = cuts.cut(text, self.model.cuts, CHUNK_BYTES)
                chunks += [
                    Chunk(begin + a, begin + b, document, last, a == 0, b == end - begin)
                    for a, b in itertools.pairwise(places)
                ]
            document = last + 1
        return chunks


def split_added_tokens(
    data: NDArray[np.uint8],
    segments: Segments,
    trie: TokenTrie,
    counts: NDArray[np.int64] | None,
) -> tuple[Segments, NDArray[np.int64] | None]:
    """Cut segments at added tokens; `counts` says how many segments each document has by now."""
    num_segments = len(segments.starts)
    if num_segments == 0:
        return segments, counts
    begin, end = np.int64(segments.starts[0]), np.int64(segments.ends[-1])
    if next_candidate(data, begin, end, trie) >= end:
        return segments, counts
    stage1, stage2 = load_classes()
    room = 2 * num_segments + 256
    while True:
        new = Segments(
            np.empty(room, np.int64),
            np.empty(room, np.int64),
            np.empty(room, np.int32),
            np.empty(room, np.uint8),
        )
        pieces = np.empty(num_segments, np.int64)
        total = find_added_tokens(data, *segments, stage1, stage2, trie, *new, pieces)
        if total >= 0:
            break
        room *= 8
    if total == num_segments and np.array_equal(new.tokens[:total], segments.tokens):
        return segments, counts  # what looked like one was none
    if counts is not None:
        edges = np.concatenate(([0], np.cumsum(pieces)))[np.concatenate(([0], np.cumsum(counts)))]
        pieces = np.diff(edges)
    return Segments._make(array[:total] for array in new), pieces


def find_invalid(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> tuple[int, int] | None:
    """Return (document, its byte) of the first place that is no valid UTF-8, or None."""
    if len(offsets) < 2:
        return None
    begin, end = int(offsets[0]), int(offsets[-1])
    # The last bytes are checked in a copy, which is readable behind them.
    split = max(begin, end - SLACK)
    while split > begin and data[split] & 0xC0 == 0x80 and end - split < 2 * SLACK:
        split -= 1
    place = first_invalid(as_readonly(data, np.uint8), np.int64(begin), np.int64(split))
    if place < 0:
        tail = np.zeros(end - split + SLACK, np.uint8)
        tail[: end - split] = data[split:end]
        place = first_invalid(as_readonly(tail, np.uint8), np.int64(0), np.int64(end - split))
        place += split if place >= 0 else 0
    # A document may also begin in the middle of a character.
    starts = offsets[1:-1]
    starts = starts[starts < end]
    broken = starts[data[starts] & 0xC0 == 0x80]
    if len(broken) and (place < 0 or broken[0] <= place):
        document = int(np.searchsorted(offsets, broken[0], side="left")) - 1
        inside = int(broken[0])
        while inside > int(offsets[document]) and data[inside] & 0xC0 == 0x80:
            inside -= 1
        return document, inside - int(offsets[document])
    if place < 0:
        return None
    document = int(np.searchsorted(offsets, place, side="right")) - 1
    return document, int(place) - int(offsets[document])
