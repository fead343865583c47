"""A run's folder and config in; where to go on, or why not, out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from .checkpoint import CheckpointError, Facts, find_checkpoints, read_facts
from .config import PretrainConfig, to_dict
from .data import TrainingData
from .schedule import learning_rate

_FIXED = {
    "model": None,
    "lora": None,
    "masking": None,
    "optimizer": None,
    "data": ("sequence_length", "order", "documents"),
    "training": (
        "global_batch_size",
        "initial_batch_size",
        "batch_warmup_tokens",
        "seed",
        "precision",
    ),
}
"""Sections and fields that shape the result; None: every field. What is not here (layout,
micro-batch, logging) may change from one start to the next."""


class Resume(NamedTuple):
    """Where a run goes on."""

    folder: Path
    """The checkpoint."""
    facts: Facts
    """What it says about itself."""
    data: TrainingData
    """The data, with the blend at the place of the checkpoint."""


def find_resume(output: Path, config: PretrainConfig, data: TrainingData) -> Resume | None:
    """Return the newest checkpoint of this run; None if there is none.

    Args:
        config: resolved: as it would be saved in a checkpoint.

    Raises:
        CheckpointError: the checkpoint is damaged, or of a run with other settings.
        DataChangedError: it was trained on other data.
    """
    found = find_checkpoints(output)
    if not found:
        return None
    folder = found[-1]
    facts = read_facts(folder)
    changed = _differences(facts.config, config) + _schedule_changes(facts, config)
    if changed:
        raise CheckpointError(
            f"{folder} is of a run with other settings: {'; '.join(changed)}. Going on would mix "
            "the two. Set them back, choose another output folder, or remove "
            f"{folder.parent} to start anew"
        )
    data = data.resumed(config, facts.data, str(folder))
    if facts.step > config.training.num_steps:
        raise CheckpointError(
            f"{folder} has taken {facts.step} steps already, training.num_steps is "
            f"{config.training.num_steps}. Raise it, or choose another output folder"
        )
    return Resume(folder, facts, data)


def _differences(saved: PretrainConfig, config: PretrainConfig) -> list[str]:
    old, new = to_dict(saved), to_dict(config)
    changes = []
    for section, fields in _FIXED.items():
        for field in fields or old[section]:
            before, now = old[section][field], new[section][field]
            if before != now:
                changes.append(f"{section}.{field} was {before!r} and is {now!r}")
    if saved.lora.rank and saved.training.init_from != config.training.init_from:
        changes.append(  # the checkpoint holds what is added to that model
            f"training.init_from was {saved.training.init_from!r} and is "
            f"{config.training.init_from!r}"
        )
    return changes


def _schedule_changes(facts: Facts, config: PretrainConfig) -> list[str]:
    """Compare the learning rates of the steps already taken: a longer training may go on."""

    def rates(of: PretrainConfig) -> list[float]:
        return [
            learning_rate(step, 1.0, of.schedule, of.training.num_steps)
            for step in range(facts.step)
        ]

    if rates(facts.config) == rates(config):
        return []
    old = {"num_steps": facts.config.training.num_steps} | dataclasses.asdict(facts.config.schedule)
    new = {"num_steps": config.training.num_steps} | dataclasses.asdict(config.schedule)
    names = [f"{key} was {old[key]!r} and is {new[key]!r}" for key in old if old[key] != new[key]]
    return [
        "the learning rates of the steps already taken would have been others ("
        + ", ".join(names)
        + "; schedule.decay_steps keeps a schedule when num_steps grows)"
    ]
