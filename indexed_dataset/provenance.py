"""A sample in; the documents that its tokens come from, with their place in the input, out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from .orders import EOD_BEFORE_SPLIT
from .reader import IndexedDataset
from .samples import SampleDataset


@dataclass(frozen=True, slots=True)
class Passage:
    """Tokens of one document that stand side by side in a sample."""

    offset: int
    """Place of the first one in the sample."""
    shard: IndexedDataset
    """Where the document lies."""
    document: int
    """Its number there."""
    first_token: int
    """Tokens of the document before the passage."""
    num_tokens: int
    """Tokens of the passage."""
    document_tokens: int
    """Tokens of the whole document."""

    @property
    def origin(self) -> tuple[str, int] | None:
        """Input file and row or byte offset of the document; None where it was not kept."""
        return self.shard.origin(self.document)

    def read(self) -> NDArray[np.int64]:
        """Return int64[num_tokens]: the tokens of the passage."""
        document = self.shard.get_document(self.document)
        return document[self.first_token :][: self.num_tokens].astype(np.int64)


def passages(dataset: SampleDataset, index: int) -> list[Passage]:
    """Return the documents of a sample in order, with the last label's token left aside.

    Args:
        dataset: whose `sample(index)` is meant.
        index: what `BlendedDataset.locate` gives for a position of a blend.
    """
    found: list[Passage] = []
    offset = 0
    for start, stop in dataset.spans(index):
        if (start, stop) == EOD_BEFORE_SPLIT:
            offset += 1
            continue
        stop = min(stop, start + dataset.sequence_length - offset)
        for passage in _in_range(dataset, start, stop, offset):
            found.append(passage)
            offset += passage.num_tokens
    return found


def _in_range(dataset: SampleDataset, start: int, stop: int, offset: int) -> Iterator[Passage]:
    """Yield the passages of the split's tokens [start, stop)."""
    shards = dataset.split.shards
    ends = list(accumulate(shard.num_tokens for shard in shards))
    while start < stop:
        number = bisect_right(ends, start)
        shard, base = shards[number], ends[number] - shards[number].num_tokens
        document = shard.document_at(start - base)
        first, last = shard.document_span(document)
        count = min(last, stop - base) - (start - base)
        yield Passage(offset, shard, document, start - base - first, count, last - first)
        start, offset = start + count, offset + count
