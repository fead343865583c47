"""What a trainer gets: the arrays of one sample, and what can be asked for samples.

    tokens, labels: int64[S]    labels[j] is the token after tokens[j]: they are shifted here, as
                                Megatron's dataset does. Hugging Face models shift by themselves:
                                give them `tokens` as labels, with -100 where loss_mask is 0.
    loss_mask: float32[S]       1 where the label counts. By position, never by token value; 0 also
                                where the side stream `loss_mask` of the dataset, if any, has 0 for
                                the label.
    position_ids: int64[S]      place in the sample, or in the document (documents="separate").
    dataset_id: int             number of the dataset in a blend.
    cu_seqlens: int32[S + 1]    documents="separate" only: bounds of the documents in the sample,
                                filled up with S so that samples can be stacked.

A sample's tokens and labels are its own and may be changed. A loss_mask or position_ids that
every sample has alike is one array for all: it is read-only, so changing it in place is an error;
copy it first. A PyTorch DataLoader, which warns of read-only arrays, is given copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NotRequired, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .samples import SampleDataset


class Sample(TypedDict):
    """What a trainer gets; the module's docstring has shapes and meaning."""

    tokens: NDArray[np.int64]
    labels: NDArray[np.int64]
    loss_mask: NDArray[np.float32]
    position_ids: NDArray[np.int64]
    dataset_id: int
    cu_seqlens: NotRequired[NDArray[np.int32]]


class OrderedSamples(Protocol):
    """Samples by position, and where each lies."""

    def sample(self, position: int) -> Sample:
        """Return the sample at a position."""

    def place(self, position: int) -> tuple[SampleDataset, int]:
        """Return the dataset, and the number in it, of the sample at a position."""

    @property
    def is_remote(self) -> bool:
        """Whether any of its files lies in an object store."""


class Samples(OrderedSamples, Protocol):
    """A `SampleDataset`, a `BlendedDataset` or a `PhasedBlend`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def own_arrays(sample: Sample) -> Sample:
    """Return a sample with copies of the arrays that it shares with others."""
    return {  # type: ignore[return-value] # the keys are those of the sample
        key: value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value
        for key, value in sample.items()
    }
