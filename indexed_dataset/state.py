"""How far each dataset was read: plain values for a checkpoint out, starts of a new blend in.

What a dataset has given is counted in *tokens* of its order, because a later phase may cut its
samples longer or shorter. With E tokens an epoch, `tokens` // E is its epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .errors import IndexedDatasetError
from .samples import SampleDataset


class DataChangedError(IndexedDatasetError):
    """A dataset has other content than when its state was kept."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """How far one dataset was read."""

    tokens: int
    """Tokens of its order that were given, over all epochs."""
    block_length: int
    """Tokens of the units that its order permutes (`SampleDataset.block_length`)."""
    fingerprint: str
    """Its content."""
    order: str = "stable"
    """Name of its order (`SampleDataset.order`)."""


@dataclass(frozen=True, slots=True)
class BlendState:
    """How far a blend was read; `PhasedBlend(..., start=state)` goes on from there."""

    samples: int = 0
    """Positions that were given."""
    tokens: int = 0
    """Tokens of these samples: what the phases count."""
    sources: Mapping[str, SourceState] | None = None
    """Name of each dataset -> how far it was read. None: nothing was."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BlendState:
        """Return the state that `to_dict` gave."""
        sources = values["sources"]
        return cls(
            values["samples"],
            values["tokens"],
            None
            if sources is None
            else {name: SourceState(**source) for name, source in sources.items()},
        )

    def starts(self, datasets: Mapping[str, SampleDataset]) -> list[int]:
        """Return the sample with which each dataset goes on; 0 for one that is new.

        A dataset goes on at the first whole sample that was not given. Where the sequence length
        grew, this leaves out less than one new sample of each dataset; nothing is repeated within
        an epoch. A dataset whose blocks changed has another order: it goes on with its next epoch.

        Raises:
            DataChangedError: a dataset of the same name has other content now.
        """
        known = self.sources or {}
        return [
            _first_sample(name, dataset, known[name]) if name in known else 0
            for name, dataset in datasets.items()
        ]


def tokens_per_sample(dataset: SampleDataset) -> int:
    """Return the tokens of its order by which one sample brings a dataset forward.

    It is the sequence length, but a whole epoch in a dataset shorter than one sample.
    """
    return dataset.tokens_per_epoch // dataset.samples_per_epoch


def _first_sample(name: str, dataset: SampleDataset, state: SourceState) -> int:
    if dataset.fingerprint != state.fingerprint:
        raise DataChangedError(
            f"{name} has other tokens than those that were read from it: going on would "
            "repeat some and miss others. Put the old files back, or give the new data another name"
        )
    if dataset.order != state.order or (
        dataset.order == "best_fit" and dataset.block_length != state.block_length
    ):
        raise DataChangedError(
            f"{name} was read in order {state.order!r} with {state.block_length} tokens a block, "
            f"and is to be read in order {dataset.order!r} with {dataset.block_length}: nobody "
            "could say which of its documents were given. Set the order and length back, or give "
            "the data another name"
        )
    if dataset.block_length == state.block_length:
        return -(-state.tokens // tokens_per_sample(dataset))
    before = max(dataset.num_tokens // state.block_length, 1) * state.block_length
    return -(-state.tokens // before) * dataset.samples_per_epoch
