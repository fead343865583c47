"""Ranges of a split in, which of its tokens are targets out: the side stream `loss_mask`.

Datasets for fine-tuning have one (uint8, 1: the loss of predicting this token counts); a sample's
loss_mask is 0 where it is 0. Datasets without it count every token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import IndexedDatasetError
from .orders import EOD_BEFORE_SPLIT, Span
from .side_streams import SideStream
from .split import TokenSplit

STREAM = "loss_mask"


class LossMasks:
    """The targets of one split.

    Args:
        split: whose shards all have the stream.

    Raises:
        IndexedDatasetError: a stream is missing, cut off or of another type.
    """

    def __init__(self, split: TokenSplit) -> None:
        self._split = split
        self._streams = {shard.prefix: SideStream(shard, STREAM) for shard in split.shards}
        for stream in self._streams.values():
            if stream.dtype != np.uint8:
                raise IndexedDatasetError(
                    f"{stream.path} is {stream.dtype}, but a loss mask is uint8: write it again"
                )

    def read_spans(self, spans: Sequence[Span]) -> NDArray[np.bool_]:
        """Return which tokens of the spans are targets, joined into one array.

        The end-of-document token before the split's first token is none.
        """
        parts: list[NDArray[np.bool_]] = []
        for span in spans:
            if span == EOD_BEFORE_SPLIT:
                parts.append(np.zeros(1, dtype=np.bool_))
                continue
            for shard, first, count in self._split.parts(span[0], span[1] - span[0]):
                parts.append(self._streams[shard.prefix].read(first, count) != 0)
        return np.concatenate(parts)


def find_loss_masks(split: TokenSplit) -> LossMasks | None:
    """Return the loss masks of a split; None if no shard has any.

    Raises:
        IndexedDatasetError: some shards have the stream and others do not.
    """
    with_masks = [
        shard.manifest is not None and STREAM in shard.manifest.side_streams
        for shard in split.shards
    ]
    if not any(with_masks):
        return None
    if not all(with_masks):
        without = split.shards[with_masks.index(False)].prefix
        raise IndexedDatasetError(
            f"{without} has no side stream {STREAM!r}, but other shards of {split.name} have: all "
            "its tokens would count. Write it again, or give it a group of its own"
        )
    return LossMasks(split)


def fingerprint(split: TokenSplit) -> str:
    """Return hex of 32 digits: the tokens of a split, and which of them are targets."""
    streams = [m.side_streams[STREAM] for m in split.manifests if STREAM in m.side_streams]
    if not streams:
        return split.fingerprint
    digest = hashlib.blake2b(split.fingerprint.encode(), digest_size=16)
    for stream in streams:
        digest.update("\n".join(("", *stream.blocks)).encode())
    return digest.hexdigest()
