"""What Megatron's command line says about its data in; the same blend of the same samples out.

Does what `BlendedMegatronDatasetBuilder` of megatron-core 0.16 does for one of train, valid and
test: how many samples each dataset is asked for decides its epochs, and with them its whole order,
so identity begins here. Call it once for each part.
"""

from __future__ import annotations

from collections.abc import Sequence

from .blend import BlendedDataset
from .errors import IndexedDatasetError
from .megatron_blend import SURPLUS, MegatronBlend, megatron_requests
from .megatron_order import MegatronOptions
from .samples import Documents, SampleDataset
from .split import PrefixLike

Prefixes = PrefixLike | Sequence[PrefixLike]


def build_megatron_blend(
    prefixes: Sequence[Prefixes],
    sequence_length: int,
    *,
    weights: Sequence[float] | None = None,
    num_samples: int | None = None,
    seed: int = 1234,
    options: MegatronOptions | None = None,
    documents: Documents = "joined",
    surplus: float = SURPLUS,
) -> BlendedDataset:
    """Return the samples that Megatron trains on, in its order, for the same arguments.

    Args:
        prefixes: the datasets of --data-path, or of --train-data-path and so on; the shards of a
            group are one dataset, as if they were merged.
        sequence_length: S.
        weights: one for each prefix, with `num_samples`; None: by their samples.
        num_samples: train_iters * global_batch_size for "train". With weights the blend has a few
            more, as each dataset's share is rounded up. None: all samples of one epoch.
        seed: --seed; Megatron's default is 1234.
        options: `split` is None with --train-data-path and its like; else `part` names which.
        documents: as `SampleDataset` takes it.
        surplus: --mid-level-dataset-surplus. Where Megatron stops because a dataset is short of
            samples in spite of it, that dataset is asked for exactly what the blend draws.

    Raises:
        IndexedDatasetError: weights that do not fit the prefixes or stand without `num_samples`,
            or a dataset without a single sample in this part.
    """
    if weights is not None and len(weights) != len(prefixes):
        raise IndexedDatasetError(
            f"there are {len(weights)} weights for {len(prefixes)} prefixes: give one for each"
        )
    options = options or MegatronOptions()

    def dataset(
        prefix: PrefixLike | Sequence[PrefixLike], num_samples: int | None
    ) -> SampleDataset:
        return SampleDataset(
            prefix,
            sequence_length,
            seed=seed,
            order=options,
            documents=documents,
            num_samples=num_samples,
        )

    if len(prefixes) == 1 and (weights is None or options.split is None):
        # Megatron takes a single dataset as it is, with no surplus and nothing to blend.
        only = dataset(prefixes[0], num_samples)
        return BlendedDataset([only], MegatronBlend(None, sizes=[_size(only)]))
    if weights is None:
        datasets = [dataset(prefix, None) for prefix in prefixes]
        sizes = [_size(one) for one in datasets]
        return BlendedDataset(datasets, MegatronBlend(None, num_samples, sizes=sizes))
    blend = MegatronBlend(weights, num_samples)
    requests = megatron_requests(weights, num_samples or 0, surplus)
    datasets = [dataset(prefix, size) for prefix, size in zip(prefixes, requests, strict=True)]
    for number, drawn in blend.overdrawn([_size(one) for one in datasets]).items():
        datasets[number] = dataset(prefixes[number], drawn)
    return BlendedDataset(datasets, blend)


def _size(dataset: SampleDataset) -> int:
    assert dataset.max_samples is not None
    return dataset.max_samples
