"""Samples of one split: a sample's number in, arrays of `sequence_length` out.

What a sample holds stands in `sample.py`.
"""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .best_fit import BestFitOrder
from .errors import IndexedDatasetError, UnknownOrderError
from .loss_masks import find_loss_masks, fingerprint
from .megatron_order import MegatronOptions, MegatronOrder
from .orders import EOD_BEFORE_SPLIT, SampleOrder, Span
from .read_ahead import items_together
from .sample import Sample as Sample
from .sequential import SequentialOrder
from .split import PrefixLike, TokenSplit
from .stable import StableOrder

logger = logging.getLogger(__name__)

Order = Literal["stable", "best_fit", "sequential", "megatron"]
Documents = Literal["joined", "separate"]


class SampleDataset:
    """Fixed-length samples of one split: `len(dataset)`, `dataset[i]`, each in constant time.

    Args:
        prefixes: a prefix, or all shards of a group in order; names or opened datasets.
        sequence_length: S, tokens of a sample.
        seed: of the order; unused by "sequential".
        order: "stable" (training): windows visited in a computed random order, epoch after epoch.
            The last token of the split is followed by its first, as another document would be.
            "best_fit" (training): bins of whole documents, padded; only documents longer than a
            sample are cut. The bins are made when the dataset is opened (`best_fit.py`: what that
            costs), and visited in a computed random order.
            "sequential" (evaluation): windows from first to last, the last one padded and masked,
            every token a label exactly once. The split's first token is predicted from `eod_id`;
            if that is unknown it is context only and not scored (`num_scored_tokens` tells).
            "megatron", or `MegatronOptions(...)` for a part of the prefix and other rules: the
            samples of Megatron's GPTDataset. It alone depends on `num_samples`.
        documents: "joined": loss and attention cross document bounds, as Megatron's default.
            "separate": positions start anew, the bounds are in `cu_seqlens`, and the first token of
            a document is not scored. Default: "joined", but "separate" with "best_fit", which
            puts documents together only because they fit.
        num_samples: what `len` says; default: one epoch. It changes no order but "megatron".
        eod_id: end-of-document token, for a dataset without a manifest.
        dataset_id: put into each sample; a blend puts its own numbers there.
        block_length: of order "stable": tokens of the units that it permutes, a multiple of
            `sequence_length`. Samples of all lengths that divide it share one order of tokens, so
            that a later phase can change the length. 0: the sequence length.

    Raises:
        UnknownOrderError: another order or treatment of documents.
        IndexedDatasetError: a prefix that cannot be read, or without tokens.
    """

    def __init__(
        self,
        prefixes: PrefixLike | Sequence[PrefixLike],
        sequence_length: int,
        *,
        seed: int = 0,
        order: Order | MegatronOptions = "stable",
        documents: Documents | None = None,
        num_samples: int | None = None,
        eod_id: int | None = None,
        dataset_id: int = 0,
        block_length: int = 0,
    ) -> None:
        self._megatron = order if isinstance(order, MegatronOptions) else None
        if isinstance(order, MegatronOptions):
            order = "megatron"
        _require_offered("order", order, get_args(Order))
        documents = documents or ("separate" if order == "best_fit" else "joined")
        _require_offered("documents", documents, get_args(Documents))
        if (order, documents) == ("best_fit", "joined"):
            raise IndexedDatasetError(
                'order "best_fit" puts documents together that have nothing to do with each other, '
                'and documents="joined" would let loss and attention cross from one to the next. '
                'Give documents="separate", or another order'
            )
        if sequence_length < 1:
            raise IndexedDatasetError(
                f"sequence_length is {sequence_length}; a sample has one token or more"
            )
        self.split = TokenSplit(prefixes)
        self._targets = find_loss_masks(self.split)
        self.sequence_length = sequence_length
        self.seed = seed
        self.order: Order = order
        self.documents: Documents = documents
        self.dataset_id = dataset_id
        self.eod_id = _eod_id(self.split, eod_id)
        self.block_length = block_length or sequence_length
        _require_fitting_blocks(self, block_length)
        self._ones = np.ones(sequence_length, dtype=np.float32)
        self._places = np.arange(sequence_length, dtype=np.int64)
        for shared in (self._ones, self._places):
            shared.flags.writeable = False
        self._num_samples = num_samples
        self._order = self._new_order()
        self._max_samples = there_are = self._order.max_samples
        if there_are is not None and (num_samples or 0) > there_are:
            raise IndexedDatasetError(
                f"{self.name} has {there_are} {order} samples, but num_samples is {num_samples}: "
                "tokens would be scored twice. Ask for fewer"
            )
        if order == "stable":
            self._warn_of_input_order()

    def __len__(self) -> int:
        """Return `num_samples`, else the samples of one epoch."""
        return self.samples_per_epoch if self._num_samples is None else self._num_samples

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`, 0 to `len` - 1 (or from the end, if negative)."""
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(
                f"{self.name}: sample {number} was asked for, but there are {len(self)}"
            )
        return self.sample(number % len(self))

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return samples that share no array; what a PyTorch DataLoader asks a dataset for."""
        return items_together(self, indices)

    def sample(self, position: int) -> Sample:
        """Return sample `position`; of a stable order any from 0 on, epoch after epoch."""
        return self.sample_of(self._spans(position))

    def sample_of(self, spans: Sequence[Span]) -> Sample:
        """Return the sample that `spans` gave the places of."""
        size = self.sequence_length
        values = self._read(spans)
        num_scored = len(values) - 1
        loss_mask = self._ones
        if num_scored < size:
            values = np.concatenate((values, np.zeros(size - num_scored, dtype=values.dtype)))
            loss_mask = (self._places < num_scored).astype(np.float32)
        if self._targets is not None:
            loss_mask = loss_mask.copy()
            loss_mask[:num_scored] *= self._targets.read_spans(spans)[1:]
        # Both are widened from what was read: copying one from the other takes three times as
        # long, because the two lie at almost the same place of different memory pages.
        sample: Sample = {
            "tokens": values[:-1].astype(np.int64),
            "labels": values[1:].astype(np.int64),
            "loss_mask": loss_mask,
            "position_ids": self._places,
            "dataset_id": self.dataset_id,
        }
        if self.documents == "separate":
            self._separate(sample, spans, num_scored)
        return sample

    def place(self, position: int) -> tuple[SampleDataset, int, int]:
        """Return itself, the position and its number: what a blend says of its positions."""
        return self, position, self.dataset_id

    def cu_seqlens(self, position: int) -> NDArray[np.int32]:
        """Return the bounds of the documents in a sample: int32[num_pieces + 1], from 0 to S.

        They come from the index, in either mode. Padding is a piece of its own.
        """
        spans = self._spans(position)
        num_scored = sum(stop - start for start, stop in spans) - 1
        return self._bounds(self._document_starts(spans), num_scored)

    def spans(self, position: int) -> Sequence[Span]:
        """Return the tokens of the split that make a sample and its last label, as ranges.

        (-1, 0) stands for the end-of-document token before the split's first token.
        """
        return self._spans(position)

    @property
    def name(self) -> str:
        """Name of the group, e.g. eng_Latn."""
        return self.split.name

    @property
    def is_remote(self) -> bool:
        """Whether any of its shards lies in an object store."""
        return self.split.is_remote

    @property
    def num_tokens(self) -> int:
        """T: tokens of the split, or of the part that Megatron's options name."""
        if isinstance(self._order, MegatronOrder):
            return self._order.tokens_per_epoch
        return self.split.num_tokens

    @property
    def samples_per_epoch(self) -> int:
        """Samples until every window was given once."""
        return self._order.samples_per_epoch

    @property
    def max_samples(self) -> int | None:
        """How many samples `sample` can give; None: without end, epoch after epoch."""
        return self._order.max_samples

    @property
    def padding_share(self) -> float:
        """Share of the places of an epoch's samples that hold no token."""
        places = self.samples_per_epoch * self.sequence_length
        return max(places - self.num_tokens, 0) / places

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of an epoch's blocks, whatever the sequence length they are cut to.

        Of bins all places count, padding too; of Megatron's order those of whole samples.
        """
        if self.order in ("best_fit", "megatron"):
            return self.samples_per_epoch * self.sequence_length
        return max(self.num_tokens // self.block_length, 1) * self.block_length

    @property
    def num_scored_tokens(self) -> int:
        """Labels of one epoch whose loss_mask is 1, with joined documents (not "best_fit").

        A side stream `loss_mask` is left aside.
        """
        return self._order.num_scored_tokens

    @property
    def order_identity(self) -> str:
        """What the order depends on, the data left aside: with its fingerprint, all of it."""
        return self._order.identity

    @property
    def fingerprint(self) -> str:
        """Hex of 32 digits: tokens and loss masks, whatever the order and sequence length.

        Orders follow from the tokens alone: a mask changes what counts, not what is drawn.
        """
        return fingerprint(self.split)

    def __repr__(self) -> str:
        return (
            f"SampleDataset({self.name!r}: {self.num_tokens} tokens, {self.samples_per_epoch} "
            f"samples of {self.sequence_length} an epoch, order {self.order}, documents "
            f"{self.documents})"
        )

    def _new_order(self) -> SampleOrder:
        num_tokens, size = self.split.num_tokens, self.sequence_length
        if self.order == "megatron":
            return MegatronOrder(self.split, size, self.seed, self._num_samples, self._megatron)
        if self.order == "best_fit":
            return BestFitOrder(self.split, size, self.seed)
        if self.order == "stable":
            return StableOrder(
                num_tokens, size, self.seed, self.split.fingerprint, self.block_length
            )
        if num_tokens == 1 and self.eod_id is None:
            raise IndexedDatasetError(
                f"{self.name}: its only token has no context, so nothing can be scored. Give "
                "eod_id, or leave the dataset out"
            )
        return SequentialOrder(num_tokens, size, self.eod_id is not None)

    def _spans(self, position: int) -> Sequence[Span]:
        if position < 0:
            raise IndexError(f"{self.name}: there is no sample {position}")
        there_are = self._max_samples
        if there_are is not None and position >= there_are:
            raise IndexError(
                f"{self.name}: sample {position} was asked for, but there are {there_are}"
            )
        return self._order.spans(position)

    def _read(self, spans: Sequence[Span]) -> NDArray[Any]:
        """Return the tokens of the spans as one array, in a dtype that holds them."""
        if spans[0] == EOD_BEFORE_SPLIT:
            assert self.eod_id is not None
            before = np.array([self.eod_id], dtype=np.int64)
            return np.concatenate((before, self.split.read_spans(spans[1:])))
        return self.split.read_spans(spans)

    def _document_starts(self, spans: Sequence[Span]) -> NDArray[np.int64]:
        """Return the places in a sample, from 1 on, at which documents start."""
        found: list[NDArray[np.int64]] = []
        filled = 0
        for start, stop in spans:
            if filled:
                found.append(np.array([filled], dtype=np.int64))
            if not self._order.spans_are_documents:
                inside = self.split.document_starts(start + 1, stop)
                found.append(inside + (filled - start))
            filled += stop - start
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def _bounds(self, starts: NDArray[np.int64], num_scored: int) -> NDArray[np.int32]:
        size = self.sequence_length
        end_of_tokens = min(num_scored + 1, size)
        inside = starts[starts < end_of_tokens]
        return np.unique(np.concatenate(([0], inside, [end_of_tokens, size]))).astype(np.int32)

    def _separate(self, sample: Sample, spans: Sequence[Span], num_scored: int) -> None:
        """Cut a sample at its document bounds."""
        starts = self._document_starts(spans)
        sample["loss_mask"] = sample["loss_mask"].copy()
        sample["loss_mask"][starts - 1] = 0
        bounds = self._bounds(starts, num_scored)
        sample["position_ids"] = self._places - np.repeat(bounds[:-1], np.diff(bounds))
        padded = np.full(self.sequence_length + 1, self.sequence_length, dtype=np.int32)
        padded[: len(bounds)] = bounds
        sample["cu_seqlens"] = padded

    def _warn_of_input_order(self) -> None:
        if any(manifest.document_order == "input" for manifest in self.split.manifests):
            logger.warning(
                "%s: its documents lie in the order of the input, and order 'stable' reads "
                "neighbours together: a sample holds related documents. Pack it with "
                "document_order = 'shuffled' if that matters",
                self.name,
            )


def _require_offered(noun: str, asked: str, offered: Sequence[str]) -> None:
    if asked not in offered:
        raise UnknownOrderError(
            f"{noun} is {asked!r}, which is not offered. Choose one of: {', '.join(offered)}"
        )


def _require_fitting_blocks(dataset: SampleDataset, block_length: int) -> None:
    """Refuse blocks that cannot be cut into samples; a split below one sample is not cut."""
    size, num_tokens = dataset.sequence_length, dataset.split.num_tokens
    if block_length in (0, size) or num_tokens < size:
        return
    if dataset.order != "stable" or block_length % size or not size <= block_length <= num_tokens:
        raise IndexedDatasetError(
            f"{dataset.name}: block_length is {block_length}; it belongs to the order 'stable', "
            f"and is a multiple of sequence_length ({size}), at most the {num_tokens} tokens that "
            "there are. Leave it out, or choose another"
        )


def _eod_id(split: TokenSplit, given: int | None) -> int | None:
    """Return the end-of-document id of the manifests, or the one given for a foreign dataset."""
    known = {manifest.eod_id for manifest in split.manifests} - {None}
    if given is not None and known - {given}:
        raise IndexedDatasetError(
            f"{split.name}: eod_id {given} was given, but its manifest says {known.pop()}. Leave "
            "it out: the manifest knows which tokenizer was used"
        )
    return next(iter(known), given)
