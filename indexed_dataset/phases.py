"""Phases with proportions and sequence lengths of their own in, the samples of all of them out.

A phase lasts until a number of tokens was consumed in all: an annealing mix at the end, say, or a
phase of long samples. Each dataset goes on where the phase before left it. So that this works
across sequence lengths, the order of a dataset permutes blocks as long as the longest samples,
and shorter samples are parts of a block, one after the other. What is guaranteed:

- within an epoch of a dataset no token is given twice, whatever the phases;
- where samples grow longer, less than one new sample of each dataset is left out of its epoch;
- a dataset shorter than the longest samples has blocks of the longest length that fits; where even
  one sample does not fit, it gives one padded sample, which counts as an epoch.
"""

from __future__ import annotations

import hashlib
import operator
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

from .blend import BlendedDataset, Epochs
from .errors import IndexedDatasetError, UnknownOrderError
from .read_ahead import items_together
from .samples import Documents, Sample, SampleDataset
from .split import PrefixLike, TokenSplit
from .state import BlendState, SourceState, tokens_per_sample


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """What is drawn until a number of tokens was consumed."""

    sequence_length: int
    """S: tokens of a sample."""
    weights: Sequence[float] | None = None
    """As in `BlendedDataset`, one for each dataset; 0 leaves a dataset out of this phase. With the
    order "megatron" as in `build_megatron_blend`: any numbers above 0."""
    max_epochs: Epochs | Sequence[Epochs] = None
    """As in `BlendedDataset`; epochs of earlier phases count."""
    until_tokens: int | None = None
    """Tokens consumed in all when the phase ends; None (the last phase): it does not."""


@dataclass(frozen=True, slots=True)
class PlacedPhase:
    """A phase at its place in the whole."""

    blend: BlendedDataset
    """Its samples; position 0 is the phase's first."""
    first_sample: int
    """Position of its first sample."""
    first_token: int
    """Tokens of all samples before it."""
    num_samples: int | None
    """Its samples; None: without end."""


class PhasedBlend:
    """Samples of several sources in proportions that change at given token counts.

    Args:
        sources: what the blend draws from: each one a prefix, all shards of a group, or an opened
            `TokenSplit`. All phases have the same sources, by number.
        phases: one or more, in order; each but the last one with `until_tokens`.
        names: of the sources; default: those of their groups.
        seed, documents, eod_id: as in `SampleDataset`.
        order: "stable", or "best_fit": then all phases have one sequence length, and tokens are
            counted by places, padding included, as everywhere here. Or "megatron", which is made
            for `num_samples`: one phase without an end, caps or `start`.
        start: how far an earlier blend got (`state`): each source of a name that it knows goes on
            there, positions and tokens count on, and phases that are over are left out.
        batch_size: a phase ends with a whole number of batches, so that the samples of a batch
            stack; it may then last up to one batch longer than `until_tokens`.
        block_length: tokens of the blocks that the orders permute; 0: the longest sequence length
            of the phases. A multiple of every sequence length. Give it where a longer phase may be
            added later: another block length is another order.
        num_samples: of order "megatron": samples of the whole training (Megatron's train_iters *
            global_batch_size), on which all of that order depends.

    Raises:
        DataChangedError: a source has other content than `start` says.
        IndexedDatasetError: phases that do not follow each other, lengths that do not divide, or
            a phase for which `max_epochs` leaves too few samples.

    Example:
        blend = PhasedBlend(prefixes, [
            Phase(sequence_length=4096, weights=[9, 1], until_tokens=900_000_000_000),
            Phase(sequence_length=32768, weights=[1, 1]),
        ])
    """

    def __init__(
        self,
        sources: Sequence[PrefixLike | Sequence[PrefixLike] | TokenSplit],
        phases: Sequence[Phase],
        *,
        names: Sequence[str] | None = None,
        seed: int = 0,
        order: Literal["stable", "best_fit", "megatron"] = "stable",
        documents: Documents | None = None,
        eod_id: int | None = None,
        start: BlendState | None = None,
        batch_size: int = 1,
        block_length: int = 0,
        num_samples: int | None = None,
    ) -> None:
        self.start = start or BlendState()
        self.batch_size = batch_size
        self._splits = [s if isinstance(s, TokenSplit) else TokenSplit(s) for s in sources]
        self._options = (seed, order, documents, eod_id)
        self._lengths = _lengths(phases, block_length)
        self._num_samples = num_samples
        if order not in ("stable", "best_fit", "megatron"):
            raise UnknownOrderError(
                f"order is {order!r}; a PhasedBlend draws in one for training: stable, best_fit, "
                "megatron"
            )
        if (order == "megatron") != (num_samples is not None):
            raise IndexedDatasetError(
                f'order is {order!r} and num_samples {num_samples}: the order "megatron", and no '
                "other, depends on the samples of the whole training. Give both, or neither"
            )
        if order == "megatron":
            _require_megatrons_phase(phases, self.start, block_length)
        if order == "best_fit" and len(self._lengths) > 1:
            raise IndexedDatasetError(
                f'order "best_fit" packs documents into bins of one length, but the phases (and '
                f"block_length) have the lengths {self._lengths}. Give all the same, or use the "
                'order "stable"'
            )
        self.names = [split.name for split in self._splits] if names is None else list(names)
        """Names of the sources; `dataset_id` counts in this list."""
        _require_unique(self.names)
        self._datasets: dict[int, list[SampleDataset]] = {}
        self.phases: list[PlacedPhase] = []
        state = self.start
        for number, phase in enumerate(phases):
            if phase.until_tokens is None and number + 1 < len(phases):
                raise IndexedDatasetError(
                    f"phase {number + 1} of {len(phases)} says no until_tokens, so the phases "
                    "after it would never begin. Say when it ends"
                )
            if phase.until_tokens is not None and phase.until_tokens <= state.tokens:
                if number + 1 == len(phases) or self.phases:
                    raise IndexedDatasetError(
                        f"phase {number + 1} of {len(phases)} ends at {phase.until_tokens:,} "
                        f"tokens, but {state.tokens:,} are consumed before it begins: it would be "
                        "empty. Let it end later, or leave it out"
                    )
                continue
            state = self._place(phase, number, state)
        self._firsts = [placed.first_sample for placed in self.phases]

    def __len__(self) -> int:
        """Return the end of the last phase; if it has none, after one epoch of its datasets."""
        last = self.phases[-1]
        count = len(last.blend) if last.num_samples is None else last.num_samples
        return last.first_sample + count

    def __getitem__(self, index: int) -> Sample:
        """Return sample `index`, 0 to `len` - 1 (or from the end, if negative)."""
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"sample {number} was asked for, but the blend has {len(self)}")
        return self.sample(number % len(self))

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Return samples that share no array; what a PyTorch DataLoader asks a dataset for."""
        return items_together(self, indices)

    def sample(self, position: int) -> Sample:
        """Return the sample at a position; `dataset_id` is its source's number.

        Raises:
            IndexError: the position lies before `start`, or after the end of all phases.
        """
        placed = self.phase_at(position)
        return placed.blend.sample(position - placed.first_sample)

    def locate(self, position: int) -> tuple[int, int]:
        """Return (source, index to give to the `sample` of its dataset in this phase)."""
        placed = self.phase_at(position)
        return placed.blend.locate(position - placed.first_sample)

    def place(self, position: int) -> tuple[SampleDataset, int]:
        """Return the dataset of a position, and the index to give to its `sample`."""
        placed = self.phase_at(position)
        return placed.blend.place(position - placed.first_sample)

    @property
    def is_remote(self) -> bool:
        """Whether any dataset of any phase has shards in an object store."""
        return any(placed.blend.is_remote for placed in self.phases)

    def phase_at(self, position: int) -> PlacedPhase:
        """Return the phase that a position lies in."""
        number = bisect_right(self._firsts, position) - 1
        if number < 0:
            raise IndexError(
                f"sample {position} was asked for, but this blend took over at sample "
                f"{self.start.samples} from another one, which gave those before"
            )
        placed = self.phases[number]
        end = None if placed.num_samples is None else placed.first_sample + placed.num_samples
        if end is not None and position >= end:
            raise IndexError(
                f"sample {position} was asked for, but the last phase ends after {end}. Let it end "
                "later, or without until_tokens"
            )
        return placed

    def state(self, num_samples: int) -> BlendState:
        """Return how far every source is read after `num_samples` (those before `start` included).

        Sources that only `start` knows, because they left the blend, are kept.
        """
        placed = self.phase_at(max(num_samples - 1, self.start.samples))
        inside = num_samples - placed.first_sample
        consumed = placed.blend.consumed(inside)
        sources = dict(self.start.sources or {})
        for name, dataset, count in zip(self.names, placed.blend.datasets, consumed, strict=True):
            sources[name] = SourceState(
                count * tokens_per_sample(dataset),
                dataset.block_length,
                dataset.fingerprint,
                dataset.order,
            )
        return BlendState(num_samples, self.num_tokens(num_samples), sources)

    def num_tokens(self, num_samples: int) -> int:
        """Return the tokens of the first `num_samples` samples (padding counts)."""
        placed = self.phase_at(max(num_samples - 1, self.start.samples))
        inside = num_samples - placed.first_sample
        return placed.first_token + inside * placed.blend.sequence_length

    def epochs(self, num_samples: int) -> list[float]:
        """Return how often each source was given after the first `num_samples`."""
        sources = self.state(num_samples).sources or {}
        return [
            sources[name].tokens / dataset.tokens_per_epoch
            for name, dataset in zip(self.names, self.phases[0].blend.datasets, strict=True)
        ]

    @property
    def fingerprint(self) -> str:
        """Hex of 32 digits: phases, data, orders and start; equal ones give equal samples."""
        digest = hashlib.blake2b(digest_size=16)
        for placed in self.phases:
            digest.update(
                f"{placed.first_sample} {placed.num_samples} {placed.blend.fingerprint} "
                f"{[dataset.block_length for dataset in placed.blend.datasets]}\n".encode()
            )
        return digest.hexdigest()

    def __repr__(self) -> str:
        return f"PhasedBlend({', '.join(self.names)}: {len(self.phases)} phases)"

    def _place(self, phase: Phase, number: int, state: BlendState) -> BlendState:
        """Add a phase that begins at `state`; return the state at its end."""
        length = phase.sequence_length
        if self._num_samples is not None:
            blend = self._megatron_blend(phase)
            self.phases.append(PlacedPhase(blend, 0, 0, len(blend)))
            return state
        if length not in self._datasets:
            self._datasets[length] = [self._dataset(split, length) for split in self._splits]
        datasets = self._datasets[length]
        starts = state.starts(dict(zip(self.names, datasets, strict=True)))
        # BlendedDataset says what a weight that is no integer is to be.
        weights = cast("Sequence[int] | None", phase.weights)
        blend = BlendedDataset(datasets, weights, max_epochs=phase.max_epochs, starts=starts)
        count = None
        if phase.until_tokens is not None:
            missing = phase.until_tokens - state.tokens
            # The next multiple of the batch size, counted from the first sample of all.
            end = state.samples + -(-missing // phase.sequence_length)
            count = -(-end // self.batch_size) * self.batch_size - state.samples
            available = blend.tree.num_samples
            if available is not None and available < count:
                raise IndexedDatasetError(
                    f"phase {number + 1} needs {count:,} samples to reach {phase.until_tokens:,} "
                    f"tokens, but max_epochs leaves {available:,}. Raise it, add data, or let the "
                    "phase end earlier"
                )
        self.phases.append(PlacedPhase(blend, state.samples, state.tokens, count))
        self._firsts = [placed.first_sample for placed in self.phases]
        return state if count is None else self.state(state.samples + count)

    def _megatron_blend(self, phase: Phase) -> BlendedDataset:
        from .megatron_builder import build_megatron_blend

        seed, _, documents, _ = self._options
        return build_megatron_blend(
            [split.shards for split in self._splits],
            phase.sequence_length,
            weights=phase.weights,
            num_samples=self._num_samples,
            seed=seed,
            documents=documents or "joined",
        )

    def _dataset(self, split: TokenSplit, sequence_length: int) -> SampleDataset:
        seed, order, documents, eod_id = self._options
        fitting = [length for length in self._lengths if length <= split.num_tokens]
        return SampleDataset(
            split.shards,
            sequence_length,
            seed=seed,
            order=order,
            documents=documents,
            eod_id=eod_id,
            block_length=max(fitting, default=self._lengths[0]),
        )


def _require_megatrons_phase(phases: Sequence[Phase], start: BlendState, block_length: int) -> None:
    """Refuse what Megatron's order has no counterpart for."""
    asked = {
        "several phases": len(phases) > 1,
        "until_tokens": any(phase.until_tokens is not None for phase in phases),
        "max_epochs": any(_caps(phase) for phase in phases),
        "a start in the middle": start.samples > 0,
        "block_length": block_length > 0,
    }
    found = [name for name, is_asked in asked.items() if is_asked]
    if found:
        raise IndexedDatasetError(
            f'order "megatron" knows no {", ".join(found)}: all of it is made for one number of '
            'samples. Leave that out, or use the order "stable"'
        )


def _caps(phase: Phase) -> bool:
    given = phase.max_epochs
    if given is None or isinstance(given, (int, float)):
        return given is not None
    return any(epochs is not None for epochs in given)


def _lengths(phases: Sequence[Phase], block_length: int) -> list[int]:
    """Return the sequence lengths and the block length, ascending, each a divisor of the next."""
    if not phases:
        raise IndexedDatasetError("a blend has one phase or more")
    lengths = sorted({phase.sequence_length for phase in phases} | {block_length} - {0})
    for short, long in pairwise(lengths):
        if short < 1 or long % short:
            raise IndexedDatasetError(
                f"the sequence lengths (and block length) are {lengths}, and {long} is not a "
                f"multiple of {short}: samples of one phase could not be cut from those of "
                "another. Choose lengths of which each divides the next"
            )
    if block_length and block_length != lengths[-1]:
        raise IndexedDatasetError(
            f"block_length is {block_length}, but there are samples of {lengths[-1]} tokens: a "
            "sample is a part of a block. Raise it"
        )
    return lengths


def _require_unique(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise IndexedDatasetError(
            f"two sources have the name {twice[0]}: how far each was read is kept by name. Give "
            "them different groups (or file names), or make one source of both"
        )
