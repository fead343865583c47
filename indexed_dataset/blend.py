"""A blend of datasets: a position in, (dataset, index in it) and the sample out.

`CappedBlend` says which dataset a position belongs to; a dataset's samples are given in its own
order, whatever else is in the blend. Nothing is stored and nothing is walked through.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Sequence
from fractions import Fraction

from .caps import CappedBlend
from .errors import IndexedDatasetError
from .megatron_blend import MegatronBlend
from .read_ahead import items_together
from .samples import Sample, SampleDataset
from .split import require_same_tokenizer
from .weights import temperature_weights

Epochs = float | None


class BlendedDataset:
    """Samples of several datasets in fixed proportions: `len(blend)`, `blend[i]`.

    Args:
        datasets: one `SampleDataset` for each source or language (a prefix, or a group of
            shards), all of one sequence length.
        weights: whole numbers; share of the *samples* that each dataset gives, 0: none. Default:
            by tokens, times the repetitions that manifests ask for. `temperature_weights` and
            `whole_weights` make them. A `MegatronBlend` draws as Megatron does, as many samples as
            it says (`build_megatron_blend` makes it all).
        max_epochs: how often each dataset is given at most, one number for all or one for each;
            None: any number of times. Where a dataset reaches it, the blend starts anew without
            it at exactly that position: the others share the samples in their proportions.
        num_samples: what `len` says; default: the samples of one epoch of all datasets together,
            or all there are under `max_epochs` if these are fewer. It never changes the order.
        starts: samples that each dataset gave earlier (`consumed` of an earlier blend), so that a
            changed blend goes on where each dataset was. Default: from the start.

    Raises:
        TokenizerMismatchError: datasets made with different tokenizers.
        IndexedDatasetError: weights, caps, starts or sequence lengths that do not fit.

    The position in a blend is its whole state: `blend.sample(consumed_samples)` is the next one.
    """

    def __init__(
        self,
        datasets: Sequence[SampleDataset],
        weights: Sequence[int] | MegatronBlend | None = None,
        *,
        max_epochs: Epochs | Sequence[Epochs] = None,
        num_samples: int | None = None,
        starts: Sequence[int] | None = None,
    ) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise IndexedDatasetError("a blend has one dataset or more")
        if weights is None:
            weights = temperature_weights([d.split.drawn_tokens for d in self.datasets], 1.0)
        self.starts = [0] * len(self.datasets) if starts is None else list(starts)
        if max_epochs is None or isinstance(max_epochs, (int, float)):
            max_epochs = [max_epochs] * len(self.datasets)
        self.max_epochs = list(max_epochs)
        given = weights.weights if isinstance(weights, MegatronBlend) else weights
        for noun, count in (
            ("weights", len(given)),
            ("starts", len(self.starts)),
            ("largest numbers of epochs", len(self.max_epochs)),
        ):
            if count != len(self.datasets):
                raise IndexedDatasetError(
                    f"there are {count} {noun} for {len(self.datasets)} datasets: give one for each"
                )
        if min(self.starts) < 0:
            raise IndexedDatasetError(f"the starts are {self.starts}; none can be negative")
        lengths = sorted({dataset.sequence_length for dataset in self.datasets})
        if len(lengths) > 1:
            raise IndexedDatasetError(
                f"the datasets have the sequence lengths {lengths}: samples of a blend must stack. "
                "Give all the same, or let a `PhasedBlend` change the length between phases"
            )
        require_same_tokenizer(
            (shard.prefix, shard.manifest) for d in self.datasets for shard in d.split.shards
        )
        self.tree: CappedBlend | MegatronBlend
        self._num_samples = num_samples
        if isinstance(weights, MegatronBlend):
            self.tree = weights
            self._require_megatrons_samples()
            return
        limits = [
            _limit(dataset, epochs, start)
            for dataset, epochs, start in zip(
                self.datasets, self.max_epochs, self.starts, strict=True
            )
        ]
        self.tree = CappedBlend(weights, limits)

    def __len__(self) -> int:
        """Return `num_samples`, else one epoch of all datasets (or what the caps leave of it)."""
        if self._num_samples is not None:
            return self._num_samples
        if isinstance(self.tree, MegatronBlend):
            return self.tree.num_samples
        drawn = zip(self.datasets, self.tree.weights, strict=True)
        epoch = sum(dataset.samples_per_epoch for dataset, weight in drawn if weight)
        return epoch if self.tree.num_samples is None else min(epoch, self.tree.num_samples)

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
        """Return the sample at any position from 0 on; `dataset_id` is its dataset's number.

        Raises:
            IndexError: every dataset has reached its largest number of epochs before.
        """
        dataset, index = self.locate(position)
        sample = self.datasets[dataset].sample(index)
        sample["dataset_id"] = dataset
        return sample

    def locate(self, position: int) -> tuple[int, int]:
        """Return (dataset, index to give to its `sample`) of one position."""
        dataset, index = self.tree.locate(position)
        return dataset, self.starts[dataset] + index

    def place(self, position: int) -> tuple[SampleDataset, int]:
        """Return the dataset of one position, and the index to give to its `sample`."""
        dataset, index = self.locate(position)
        return self.datasets[dataset], index

    @property
    def is_remote(self) -> bool:
        """Whether any dataset has shards in an object store."""
        return any(dataset.is_remote for dataset in self.datasets)

    def consumed(self, num_samples: int) -> list[int]:
        """Return the samples each dataset has given after the first `num_samples` of the blend.

        `starts` are included. `PhasedBlend.state` keeps the same for a resume with a changed blend.
        """
        counts = self.tree.counts(num_samples)
        return [start + count for start, count in zip(self.starts, counts, strict=True)]

    @property
    def sequence_length(self) -> int:
        """S, tokens of a sample."""
        return self.datasets[0].sequence_length

    @property
    def names(self) -> list[str]:
        """Names of the datasets; `dataset_id` counts in this list."""
        return [dataset.name for dataset in self.datasets]

    @property
    def fingerprint(self) -> str:
        """Hex of 32 digits: data, orders, weights, caps and starts; equal ones, equal samples."""
        digest = hashlib.blake2b(digest_size=16)
        if isinstance(self.tree, MegatronBlend):
            digest.update(self.tree.identity.encode())
        for dataset, weight, epochs, start in zip(
            self.datasets, self.tree.weights, self.max_epochs, self.starts, strict=True
        ):
            digest.update(
                f"{dataset.fingerprint} {dataset.sequence_length} {dataset.order_identity} "
                f"{dataset.documents} {weight} {epochs} {start}\n".encode()
            )
        return digest.hexdigest()

    def _require_megatrons_samples(self) -> None:
        """Refuse a `MegatronBlend` of datasets that it would exhaust, or with what it cannot do."""
        assert isinstance(self.tree, MegatronBlend)
        if any(self.starts) or any(epochs is not None for epochs in self.max_epochs):
            raise IndexedDatasetError(
                f"max_epochs {self.max_epochs} and starts {self.starts} were given with a "
                "MegatronBlend, which knows neither: its datasets have the samples they were built "
                "with. Give whole weights to have them"
            )
        if (self._num_samples or 0) > self.tree.num_samples:
            raise IndexedDatasetError(
                f"num_samples is {self._num_samples}, but the MegatronBlend was made for "
                f"{self.tree.num_samples}. Make it for more"
            )
        sizes = [d.max_samples if d.max_samples is not None else 2**62 for d in self.datasets]
        for number, drawn in self.tree.overdrawn(sizes).items():
            raise IndexedDatasetError(
                f"the blend of {self.tree.num_samples} samples draws {drawn} from "
                f"{self.names[number]}, which has {sizes[number]}. Build it with num_samples "
                f"{drawn} or more"
            )

    def __repr__(self) -> str:
        return f"BlendedDataset({', '.join(self.names)}: weights {self.tree.weights})"


def _limit(dataset: SampleDataset, max_epochs: Epochs, start: int) -> int | None:
    """Return how many samples a dataset can still give; None: any number."""
    if max_epochs is None or max_epochs == math.inf:
        return None
    if not max_epochs > 0:
        raise IndexedDatasetError(
            f"{dataset.name}: max_epochs is {max_epochs}, but it is the number of times that the "
            "dataset is given at most, above 0. To leave a dataset out give it the weight 0"
        )
    # repr: 0.1 means one tenth, not the binary number next to it.
    return max(math.floor(Fraction(repr(max_epochs)) * dataset.samples_per_epoch) - start, 0)
