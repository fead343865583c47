"""The opened train groups and `[pretrain.data]` in, the blend that a training draws from out.

On resume the blend of the checkpoint is built again, from where *it* began. If the config or the
folder now says another one, that is an error, or, where it is allowed, a new blend that begins at
the checkpoint: each group goes on where it was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ..indexed_dataset import (
    BlendState,
    DataChangedError,
    IndexedDataset,
    IndexedDatasetError,
    Phase,
    PhasedBlend,
    language_of,
    manifest_weight,
    temperature_weights,
    whole_weights,
)
from ..indexed_dataset.loss_masks import fingerprint
from ..indexed_dataset.split import TokenSplit
from .config import DataConfig, PhaseConfig, PretrainConfig
from .schedule import num_samples

logger = logging.getLogger(__name__)

_CHANGES_SHOWN = 5

Groups = Mapping[str, list[IndexedDataset]]


def build_blend(
    config: PretrainConfig, train: Groups, eod_id: int | None, start: BlendState | None = None
) -> PhasedBlend:
    """Return the blend that the config asks for.

    Args:
        train: group -> its shards.
        eod_id: of datasets without manifest.
        start: where an earlier blend got to; None: a new training.

    Raises:
        IndexedDatasetError: weights, caps or phases that do not fit the groups.
    """
    data = config.data
    train = _drawn(data, train)
    splits = [TokenSplit(shards) for shards in train.values()]
    names = list(train)
    _require_groups("data.max_epochs_of", data.max_epochs_of, names)
    caps = [data.max_epochs_of.get(name, data.max_epochs) or None for name in names]
    phases = data.phases or (PhaseConfig(),)
    return PhasedBlend(
        splits,
        [
            Phase(
                sequence_length=phase.sequence_length or data.sequence_length,
                weights=_weights(data, phase, names, splits),
                max_epochs=caps,
                until_tokens=phase.until_tokens or None,
            )
            for phase in phases
        ],
        names=names,
        seed=config.training.seed,
        order=data.order,
        documents=documents_of(data),
        eod_id=eod_id,
        start=start,
        batch_size=config.training.global_batch_size,
        block_length=data.block_length,
        num_samples=num_samples(config) if data.order == "megatron" else None,
    )


def _drawn(data: DataConfig, train: Groups) -> Groups:
    """Return the groups that samples come from: Megatron's blend has no weights of 0."""
    if data.order != "megatron":
        return train
    return {name: shards for name, shards in train.items() if data.weights.get(name, 1) > 0}


def documents_of(data: DataConfig) -> Literal["joined", "separate"]:
    """Return what `data.documents` means: "auto" goes by the order."""
    if data.documents == "auto":
        return "separate" if data.order == "best_fit" else "joined"
    return data.documents


def blend_state(blend: PhasedBlend, consumed: int) -> dict[str, Any]:
    """Return what a checkpoint keeps of the blend: JSON values."""
    datasets = blend.phases[0].blend.datasets
    return {
        "blend": blend.fingerprint,
        "datasets": dict(zip(blend.names, (d.fingerprint for d in datasets), strict=True)),
        "start": blend.start.to_dict(),
        "consumed": blend.state(consumed).to_dict(),
    }


def resume_blend(
    config: PretrainConfig,
    train: Groups,
    eod_id: int | None,
    state: Mapping[str, Any],
    where: str,
) -> PhasedBlend:
    """Return the blend of a checkpoint, or one that takes over from it where that is allowed.

    Args:
        state: what `blend_state` gave when the checkpoint was written.
        where: names the checkpoint in messages.

    Raises:
        DataChangedError: other data than the checkpoint's; says what differs.
    """
    if "start" not in state:
        raise DataChangedError(
            f"{where} was written by an older gristmill, whose order of samples this one does not "
            "have: going on would repeat some samples and miss others. Go on with the gristmill "
            "that wrote it, or train in a new output folder"
        )
    megatrons = config.data.order == "megatron"
    old, train = state["datasets"], _drawn(config.data, train)
    new = {name: fingerprint(TokenSplit(shards)) for name, shards in train.items()}
    rewritten = [
        f"{k} has other tokens or another loss mask" for k in old if k in new and old[k] != new[k]
    ]
    changes = [f"{name} is gone" for name in old if name not in new]
    changes += [f"{name} is new" for name in new if name not in old]
    if not rewritten and not changes:
        blend = build_blend(config, train, eod_id, BlendState.from_dict(state["start"]))
        if blend.fingerprint == state["blend"]:
            return blend
        changes = ["the weights, caps or phases of the blend differ"]
        if megatrons:
            changes = [
                "the weights or the number of samples of the whole training (training.num_steps, "
                'global_batch_size) differ, and data.order = "megatron" depends on all of them'
            ]
    every = rewritten + changes
    more = f" and {len(every) - _CHANGES_SHOWN} more" if len(every) > _CHANGES_SHOWN else ""
    shown = "; ".join(every[:_CHANGES_SHOWN]) + more
    if rewritten or not config.data.allow_changed_blend:
        way = (
            "Put the old data back, give the new data another group name"
            if rewritten
            else "Put the old data and settings back"
            if megatrons
            else "Put the old data and settings back, set data.allow_changed_blend = true to go on "
            "with each group where it was"
        )
        raise DataChangedError(
            f"{where} was trained on other data: {shown}. Going on would repeat some samples and "
            f"miss others. {way}, or train in a new output folder"
        )
    start = BlendState.from_dict(state["consumed"])
    logger.info("the blend changes after %d samples: %s", start.samples, shown)
    return build_blend(config, train, eod_id, start)


def require_samples(blend: PhasedBlend, needed: int) -> None:
    """Refuse a training that is longer than `max_epochs` and the phases let the blend be.

    Raises:
        IndexedDatasetError: names both numbers.
    """
    try:
        blend.locate(max(needed - 1, blend.start.samples))
    except IndexError as error:
        raise IndexedDatasetError(
            f"the training needs {needed:,} samples, more than the data give: {error}"
        ) from None


def _weights(
    data: DataConfig, phase: PhaseConfig, names: Sequence[str], splits: Sequence[TokenSplit]
) -> Sequence[float] | None:
    """Return the weights of a phase: its explicit shares, the data's, or by temperature.

    They are whole but for Megatron's order, which takes explicit ones as they are, and none for a
    single group.
    """
    shares = phase.weights or ({} if phase.alpha >= 0 else data.weights)
    megatrons = data.order == "megatron"
    if shares:
        if megatrons:
            shares = {name: share for name, share in shares.items() if share > 0}
        if set(shares) != set(names):
            raise IndexedDatasetError(
                f"data.weights names {', '.join(sorted(shares))}; the train groups are "
                f"{', '.join(names)}. Give each of them a share, 0 to leave one out, or leave "
                "data.weights empty"
            )
        given = [shares[name] for name in names]
        return given if megatrons else whole_weights(given)
    if megatrons and len(names) == 1:
        return None
    manifests = [split.manifests for split in splits]
    if data.weights_from_manifests and phase.alpha < 0:
        return whole_weights(
            [manifest_weight(name, found) for name, found in zip(names, manifests, strict=True)]
        )
    return temperature_weights(
        [split.drawn_tokens for split in splits],
        data.alpha if phase.alpha < 0 else phase.alpha,
        languages=[language_of(name, m) for name, m in zip(names, manifests, strict=True)],
    )


def _require_groups(setting: str, given: Mapping[str, object], names: Sequence[str]) -> None:
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise IndexedDatasetError(
            f"{setting} names {', '.join(unknown)}; the train groups are {', '.join(names)}. Check "
            "the spelling, or take it out"
        )
