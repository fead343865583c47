"""The order `megatron`: a sample's number in, the pieces of documents that make it out.

Same samples, to the last token, as `GPTDataset` of megatron-core 0.16 draws for the same seed,
sequence length and number of samples. The documents of all epochs are shuffled and laid end to end;
sample j is their tokens from j * S on; the samples are shuffled once more. numpy's `RandomState`
(MT19937, frozen for good by NEP 19) does both shuffles, out of one stream.

Megatron also stores where every sample starts. Here that is computed from the running sum of the
document lengths when a sample is asked for. The two shuffles and the sum are made on first use.

What a longer run changes: `num_samples` decides the number of epochs and whether the last one is
shuffled apart, and both change the whole order. `stable` is the order that does not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .errors import IndexedDatasetError
from .orders import Span
from .sequences import SequenceTable
from .split import TokenSplit

Part = Literal["train", "valid", "test"]

_SEPARATE_FINAL_EPOCH_BELOW = 0.80  # share of an epoch; fixed in Megatron


@dataclass(frozen=True, slots=True)
class MegatronOptions:
    """What Megatron's command line says about one dataset, beside seed and sequence length."""

    split: str | None = None
    """Shares of train, valid and test, e.g. "969,30,1"; None: the part is the whole prefix."""
    part: Part = "train"
    """Which of the three; it changes nothing where `split` is None."""
    add_extra_token: bool = True
    """Samples read S + 1 tokens, so that S labels count. If not, the last label is masked."""
    drop_last_partial: bool = True
    """Leave out the last sample if it is short. Megatron lets only "valid" keep (and pad) it."""
    float32_count: bool = False
    """Count the samples of an order that keeps the partial one in float32, as megatron-core's
    compiled helper does: from 2**24 tokens on it can lose the last sample or add an empty one."""


def split_bounds(split: str, num_sequences: int) -> dict[str, tuple[int, int] | None]:
    """Return the sequences [first, stop) of each part; None for a part of share 0.

    The three parts lie one after the other and are never shuffled into each other.

    Example: split_bounds("969,30,1", 100) == {"train": (0, 97), "valid": (97, 100),
    "test": (100, 100)}.

    Raises:
        IndexedDatasetError: no share above 0, or more than three.
    """
    shares = [float(share) for share in re.findall(r"[.0-9]+", split)]
    if not 1 <= len(shares) <= 3 or sum(shares) <= 0:
        raise IndexedDatasetError(
            f"split is {split!r}: give one to three shares, one of them above 0, like '969,30,1'"
        )
    edges = [0.0]
    for share in normalize(shares + [0.0] * (3 - len(shares))):
        edges.append(edges[-1] + share)
    return {
        # round is Python's: a half goes to the even number, as in Megatron.
        part: (round(low * float(num_sequences)), round(high * float(num_sequences)))
        if high > low
        else None
        for part, (low, high) in zip(get_args(Part), pairwise(edges), strict=True)
    }


def normalize(weights: list[float]) -> list[float]:
    """Return the weights over their sum, in numpy's float64 and its order of adding."""
    values = np.array(weights, dtype=np.float64)
    normal: list[float] = (values / np.sum(values)).tolist()
    return normal


class MegatronOrder:
    """Places of the samples of one part of a split.

    Args:
        split: the tokens; a group of shards is sampled as if it were merged into one prefix.
        sequence_length: S.
        seed: 0 to 2**32 - 1.
        num_samples: at least so many are drawn, in as many epochs as that takes. None: one epoch.
        options: part and rules.

    Raises:
        IndexedDatasetError: a seed or split out of range, or a part without tokens (Megatron would
            count epochs of no tokens for ever) or too small for a single sample.
    """

    def __init__(
        self,
        split: TokenSplit,
        sequence_length: int,
        seed: int,
        num_samples: int | None = None,
        options: MegatronOptions | None = None,
    ) -> None:
        self.options = options = options or MegatronOptions()
        if not 0 <= seed < 2**32:
            raise IndexedDatasetError(f"seed is {seed}; Megatron's go from 0 to {2**32 - 1}")
        if options.part not in get_args(Part):
            raise IndexedDatasetError(
                f"part is {options.part!r}. Choose one of: {', '.join(get_args(Part))}"
            )
        self.sequence_length, self.seed, self.num_samples = sequence_length, seed, num_samples
        self._table = SequenceTable(split)
        there_are = self._table.num_sequences
        bounds: tuple[int, int] | None = (0, there_are)
        if options.split is not None:
            bounds = split_bounds(options.split, there_are)[options.part]
        self.first_sequence, self.stop_sequence = bounds or (0, 0)
        self.tokens_per_epoch = int(self._part_lengths().sum(dtype=np.int64))
        self._extra = int(options.add_extra_token)
        smallest = sequence_length + self._extra
        self._require_tokens(smallest if options.drop_last_partial else 1 + self._extra, split.name)
        if num_samples is None:
            self.num_epochs = 1
        else:
            wanted = num_samples * sequence_length + self._extra
            self.num_epochs = max(1, -(-wanted // self.tokens_per_epoch))
        self._line_tokens = self.num_epochs * self.tokens_per_epoch
        self.separate_final_epoch = self._separates_final_epoch()

    @property
    def identity(self) -> str:
        """All that the order depends on, the data left aside."""
        return f"megatron 1 seed {self.seed} samples {self.num_samples} {self.options}"

    @property
    def samples_per_epoch(self) -> int:
        """Whole samples in the tokens of one epoch; at least the padded one."""
        return max(self._whole_samples(1), 1)

    @property
    def max_samples(self) -> int:
        """n: samples of all epochs together, `num_samples` or more."""
        if self.options.drop_last_partial:
            return self._whole_samples(self.num_epochs)
        num_tokens = self._line_tokens - self._extra
        if self.options.float32_count:
            size = np.float32(self.sequence_length)
            return int(np.ceil(np.int64(num_tokens).astype(np.float32) / size))
        return -(-num_tokens // self.sequence_length)

    @property
    def num_scored_tokens(self) -> int:
        """Labels of all samples of one epoch that count, with joined documents."""
        if not self.options.drop_last_partial:
            samples = -(-(self.tokens_per_epoch - self._extra) // self.sequence_length)
            return self.tokens_per_epoch - (1 if self._extra else samples)
        return self.samples_per_epoch * (self.sequence_length - 1 + self._extra)

    @property
    def spans_are_documents(self) -> bool:
        """A span lies inside of one sequence."""
        return True

    @property
    def document_index(self) -> NDArray[Any]:
        """int32[num_epochs * documents] (int64 from 2**31 sequences on): sequences, in order."""
        return self._shuffles[0]

    @property
    def shuffle_index(self) -> NDArray[Any]:
        """uint32[n] (int64 from 2**32 - 2 on): which sample of the line each position is."""
        return self._shuffles[1]

    def sample_index(self) -> NDArray[Any]:
        """Return (place in document_index, offset) of each sample's start, int32[n + 1, 2].

        What Megatron stores. Nothing here needs it; who hands indices to Megatron does.
        """
        from ..kernels import build_sample_index

        index: NDArray[Any] = build_sample_index(
            self._table.lengths(),
            self.document_index,
            self.sequence_length,
            self.max_samples,
            bool(self._extra),
        )
        return index

    def spans(self, position: int) -> list[Span]:
        """Return the pieces of documents that make sample `position`."""
        ends, starts = self._line
        start = self.shuffle_index.item(position) * self.sequence_length
        stop = min(start + self.sequence_length + self._extra, self._line_tokens)
        # A count in float32 can ask for a sample beyond the end; it is the last token.
        start = min(start, stop - 1)
        first = int(ends.searchsorted(start, side="right")) - 1
        last = int(ends.searchsorted(stop, side="left"))
        edges = ends[first : last + 1].tolist()
        places = starts[first:last].tolist()
        places[0] += start - edges[0]
        edges[0], edges[-1] = start, stop
        return [
            (place, place + high - low)
            for place, (low, high) in zip(places, pairwise(edges), strict=True)
            if low < high
        ]

    @cached_property
    def _shuffles(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Draw both shuffles out of the one stream, in the order in which Megatron draws."""
        random = np.random.RandomState(self.seed)
        narrow = self.stop_sequence <= np.iinfo(np.int32).max
        documents = np.arange(
            self.first_sequence, self.stop_sequence, dtype=np.int32 if narrow else np.int64
        )
        total = self.max_samples
        numbers = np.arange(total, dtype=np.uint32 if total < 2**32 - 2 else np.int64)
        together = self.num_epochs - self.separate_final_epoch
        document_index = np.tile(documents, self.num_epochs)
        cut = together * len(documents)
        _shuffle_parts(random, document_index, cut)
        _shuffle_parts(
            random, numbers, self._whole_samples(together) if self.separate_final_epoch else total
        )
        return document_index, numbers

    @cached_property
    def _line(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The documents of `document_index`, laid end to end.

        (int64[places + 1], where they start and end in the line; int64[places], the token of the
        split at which each starts.)
        """
        index = self.document_index
        ends = np.zeros(len(index) + 1, dtype=np.int64)
        np.cumsum(self._table.lengths()[index], dtype=np.int64, out=ends[1:])
        return ends, self._table.starts()[index]

    def _part_lengths(self) -> NDArray[np.int32]:
        return self._table.lengths()[self.first_sequence : self.stop_sequence]

    def _whole_samples(self, num_epochs: int) -> int:
        return (num_epochs * self.tokens_per_epoch - self._extra) // self.sequence_length

    def _separates_final_epoch(self) -> bool:
        """Say whether the last epoch is used so little that Megatron shuffles it apart."""
        if self.num_samples is None or self.num_epochs == 1:
            return False
        of_last_epoch = self.num_samples - self._whole_samples(self.num_epochs - 1)
        return of_last_epoch < int(_SEPARATE_FINAL_EPOCH_BELOW * self._whole_samples(1))

    def _require_tokens(self, needed: int, name: str) -> None:
        enough = self.tokens_per_epoch >= needed or (
            self.tokens_per_epoch > 0 and self.num_samples is not None
        )
        if not enough:
            options = self.options
            where = f" (part {options.part!r} of split {options.split!r})" if options.split else ""
            raise IndexedDatasetError(
                f"{name}{where} has {self.stop_sequence - self.first_sequence} of "
                f"{self._table.num_sequences} sequences with {self.tokens_per_epoch} tokens, but "
                f"one sample needs {needed}: nothing can be drawn. Give the part a larger share, "
                "or leave the dataset out"
            )


def _shuffle_parts(random: np.random.RandomState, values: NDArray[Any], cut: int) -> None:
    """Shuffle values[:cut], then the rest, in place."""
    random.shuffle(values[:cut])
    if cut < len(values):
        random.shuffle(values[cut:])
