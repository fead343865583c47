"""The order `best_fit`: samples are bins of whole documents, visited in a computed random order.

When it is opened, the documents of the split are packed into bins of S tokens (`kernels.packing`;
arXiv 2404.10830): no document is cut but one longer than S, whose full pieces are a sample each.
Epoch e visits the N bins by a permutation that follows from (seed, fingerprint of the data, e), as
in `stable`: not from the length of the run, the number of ranks or the rest of a blend.

Packing reads the index once and needs numba: about 0.3 microseconds and, while it lasts, 80 bytes a
document; 12 bytes a piece and 8 a bin are kept. `stable` needs none of that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import IndexedDatasetError
from .orders import Span
from .split import TokenSplit
from .stable import TOGETHER, epoch_key

_VERSION = 1
_CHUNK_DOCUMENTS = 1 << 18


class BestFitOrder:
    """Places of the bins of one split.

    Args:
        split: the tokens.
        sequence_length: S, tokens of a bin.
        seed: another seed, another order of the same bins.

    Example: documents of 3, 9, 2 and 1 tokens and S = 4 give the bins [3, 1], [2, 1], [4] and [4].
    """

    spans_are_documents = True
    max_samples = None

    def __init__(self, split: TokenSplit, sequence_length: int, seed: int) -> None:
        from ..kernels import pack_best_fit

        self.sequence_length, self.seed = sequence_length, seed
        self._split = split
        lengths = _document_lengths(split)
        try:
            bins, documents, offsets = pack_best_fit(lengths, sequence_length)
        except ValueError as error:
            raise IndexedDatasetError(f"{split.name} cannot be packed: {error}") from None
        self._bins: NDArray[np.int64] = bins
        rest = lengths[documents] - offsets
        # A full piece that its document goes on after takes the next token along, as a last label.
        self._sizes = np.minimum(rest, sequence_length + 1).astype(np.int32)
        starts = np.cumsum(lengths) - lengths
        self._starts: NDArray[np.int64] = starts[documents] + offsets
        self.samples_per_epoch = len(bins) - 1
        self.num_scored_tokens = int(lengths.sum() - np.count_nonzero(lengths))
        """All tokens but the first of each document."""
        self._known: tuple[int, NDArray[np.int64]] = (0, np.empty(0, dtype=np.int64))

    @property
    def identity(self) -> str:
        """Name, version and seed."""
        return f"best_fit {_VERSION} seed {self.seed}"

    def spans(self, position: int) -> list[Span]:
        """Return the pieces of sample `position`, each of another document."""
        number = self._bin(position)
        pieces = slice(int(self._bins[number]), int(self._bins[number + 1]))
        starts = self._starts[pieces]
        stops = starts + self._sizes[pieces]
        return list(zip(starts.tolist(), stops.tolist(), strict=True))

    def _bin(self, position: int) -> int:
        """Return the bin of sample `position`; those that follow are found together with it."""
        from ..kernels.reference.permutation import permute

        first, bins = self._known
        if not 0 <= position - first < len(bins):
            epoch, number = divmod(position, self.samples_per_epoch)
            keys, _ = epoch_key(
                f"best_fit order {_VERSION}", self.seed, self._split.fingerprint, epoch
            )
            begin = number - number % TOGETHER
            numbers = np.arange(begin, min(begin + TOGETHER, self.samples_per_epoch))
            bins = permute(numbers, self.samples_per_epoch, np.array(keys, dtype=np.uint64))
            first = position - number + begin
            self._known = first, bins
        return int(bins[position - first])


def _document_lengths(split: TokenSplit) -> NDArray[np.int64]:
    """Return int64[num_documents], tokens of the documents of all shards."""
    lengths = np.empty(split.num_documents, dtype=np.int64)
    filled = 0
    for shard in split.shards:
        for first in range(0, shard.num_documents, _CHUNK_DOCUMENTS):
            chunk = shard.document_lengths_between(first, first + _CHUNK_DOCUMENTS)
            lengths[filled : filled + len(chunk)] = chunk
            filled += len(chunk)
    return lengths
