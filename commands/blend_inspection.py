"""What a training draws: a config, a run or a data folder in; its plan, samples and documents out.

Nothing is trained and no accelerator is used: the blend is computed from the indexes, so the
documents of any past or future step are named as fast as those of the first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import ConfigError, RunConfig, build, read_config
from ..trainer.config import PretrainConfig

if TYPE_CHECKING:
    from ..indexed_dataset import BlendState, IndexedDataset, PhasedBlend
    from ..pipeline.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

Decode = Callable[[Sequence[int]], str]

_TEXT_SHOWN = 200
_IDS_SHOWN = 16


@dataclass(frozen=True, slots=True)
class PlannedBlend:
    """The blend of a training, and how much of it the training takes."""

    blend: PhasedBlend
    num_samples: int
    """Samples of the whole training; of a data folder alone, those of one epoch."""
    batch_size: int
    """Samples of a step."""
    folder: Path
    """With train/ and validation/."""


def has_blend(path: Path) -> bool:
    """Whether `path` is a config file, a run or a data folder that a training can draw from."""
    _, folder = _settings(path)
    return any((folder / "train").glob("*.idx"))


def planned_blend(path: Path, position: int | None = None) -> PlannedBlend:
    """Return what the training at `path` draws.

    Args:
        path: a config file, the output folder of a run, or a data folder with train/.
        position: of a run with checkpoints: the blend that this sample belongs to, where the
            blend was changed on resume; None: the newest one.

    Raises:
        ConfigError: no config or data there.
        IndexedDatasetError: data or settings that do not fit.
    """
    from ..indexed_dataset import open_groups
    from ..trainer.blend import build_blend

    config, folder = _settings(path)
    trained = _checkpoint_of(path, position)
    start = None
    if trained is not None:
        config, start = trained
        folder = Path(config.data.path) if config.data.path else folder
    if not (folder / "train").is_dir():
        raise ConfigError(
            f"{path} leads to no data: {folder}/train does not exist. Name a config file, the "
            "output folder of a run, or a data folder with train/"
        )
    train = open_groups(folder / "train", least_tokens=2)
    if not train:
        raise ConfigError(f"{folder / 'train'} holds no tokens: preprocess something first")
    eod_id = None if config.data.eod_id < 0 else config.data.eod_id
    blend = build_blend(config, train, eod_id, start)
    batch_size = config.training.global_batch_size
    is_data_alone = path.resolve() == folder.resolve()
    planned = len(blend) if is_data_alone else config.training.num_steps * batch_size
    return PlannedBlend(blend, planned, batch_size, folder)


def describe_plan(path: Path, num_samples: int = 0) -> str:
    """Return tokens, samples, epochs and repeats of each language and source, phase by phase.

    Args:
        num_samples: how many samples are drawn; 0: those of the planned training.
    """
    from ..indexed_dataset import describe_phases

    planned = planned_blend(path)
    return describe_phases(planned.blend, num_samples or planned.num_samples)


def describe_samples(path: Path, *, sample: int = 0, step: int | None = None) -> str:
    """Return the documents of one sample of a training, or of all of a step.

    Args:
        sample: its position in the blend, from 0 on; not used with a step.
        step: counted from 0.

    Raises:
        IndexError: the training has no such sample.
    """
    planned = planned_blend(path, sample)
    if step is None:
        return _describe_sample(planned, sample)
    size = planned.batch_size
    if step:
        planned = planned_blend(path, step * size)
    parts = [_describe_sample(planned, step * size + row) for row in range(size)]
    return "\n\n".join(parts)


def _describe_sample(planned: PlannedBlend, position: int) -> str:
    """Return place, origin and text of the documents of a sample."""
    from ..indexed_dataset import passages

    blend = planned.blend
    placed = blend.phase_at(position)
    number, index = blend.locate(position)
    dataset = placed.blend.datasets[number]
    step, row = divmod(position, planned.batch_size)
    epoch, in_epoch = divmod(index, dataset.samples_per_epoch)
    lines = [
        f"sample {position:,} (number {row} of step {step:,}): {dataset.sequence_length:,} tokens "
        f"of {blend.names[number]}, its sample {in_epoch:,} of {dataset.samples_per_epoch:,} in "
        f"epoch {epoch}"
    ]
    for passage in passages(dataset, index):
        last = passage.first_token + passage.num_tokens
        lines.append(
            f"  at {passage.offset:>5,}: tokens {passage.first_token:,} to {last:,} of the "
            f"{passage.document_tokens:,} of document {passage.document:,} in "
            f"{passage.shard.prefix}{_origin(passage.shard, passage.document)}"
        )
        lines.append(f"    {_text(passage.read().tolist(), decoder(passage.shard))}")
    return "\n".join(lines)


def describe_document(prefix: Path, number: int) -> str:
    """Return one document of a prefix: its place, its origin and its text."""
    from ..indexed_dataset import IndexedDataset

    dataset = IndexedDataset(prefix)
    start, stop = dataset.document_span(number)
    tokens = dataset.get_document(number).tolist()
    shown = ", ".join(map(str, tokens[:_IDS_SHOWN])) + (", ..." * (len(tokens) > _IDS_SHOWN))
    return "\n".join(
        (
            f"document {number:,} of {dataset.num_documents:,} in {dataset.prefix}"
            f"{_origin(dataset, number)}",
            f"  tokens {start:,} to {stop:,}: {shown}",
            f"  {_text(tokens, decoder(dataset), len(tokens) * 100)}",
        )
    )


def megatron_arguments(path: Path, phase: int, per_split: bool) -> str:
    """Return the blend of one phase as Megatron's data arguments.

    Args:
        phase: counted from 1.
        per_split: as JSON with the validation sets, instead of lines `WEIGHT PREFIX`.
    """
    from ..indexed_dataset import open_groups
    from ..indexed_dataset.megatron_arguments import data_arguments_text, per_split_arguments
    from ..indexed_dataset.split import TokenSplit

    planned = planned_blend(path)
    phases = planned.blend.phases
    if not 1 <= phase <= len(phases):
        raise ConfigError(f"there is no phase {phase}: {path} has the phases 1 to {len(phases)}")
    if len(phases) > 1:
        logger.warning(
            "Megatron knows no phases: these are the weights of phase %d of %d", phase, len(phases)
        )
    blend = phases[phase - 1].blend
    if any(blend.max_epochs):
        logger.warning("Megatron knows no max_epochs: it will repeat a group as often as drawn")
    if not per_split:
        return data_arguments_text(blend)
    folder = planned.folder / "validation"
    groups = open_groups(folder) if folder.is_dir() else {}
    validation = {name: TokenSplit(shards) for name, shards in groups.items()}
    return per_split_arguments(blend, validation)


def decoder(dataset: IndexedDataset) -> Decode | None:
    """Return what makes text of a dataset's ids; None if its tokenizer is not at hand."""
    tokenizer = {} if dataset.manifest is None else dataset.manifest.tokenizer or {}
    if "path" not in tokenizer:
        return None
    folder = Path(os.path.normpath(Path(dataset.prefix).parent / tokenizer["path"]))
    if not (folder / "tokenizer.json").is_file():
        return None
    return _tokenizer(folder).decode


@cache
def _tokenizer(folder: Path) -> Tokenizer:
    from ..pipeline.tokenizer import Tokenizer

    return Tokenizer(folder)


def _settings(path: Path) -> tuple[PretrainConfig, Path]:
    """Return the config of a training at `path`, and its data folder, which may not exist."""
    files = [path] if path.suffix == ".toml" else [path / "pretrain.toml", path / "config.toml"]
    file = next((file for file in files if file.is_file()), None)
    config, output = PretrainConfig(), path
    if file is not None:
        tables = read_config(file)
        config = build(PretrainConfig, tables.get("pretrain", {}), f"{file} [pretrain]")
        if file == path:
            output = Path(build(RunConfig, tables.get("run", {}), f"{file} [run]").output)
    if config.data.path:
        return config, Path(config.data.path)
    return config, output if (output / "train").is_dir() else output / "data"


def _checkpoint_of(path: Path, position: int | None) -> tuple[PretrainConfig, BlendState] | None:
    """Return the settings with which a run drew a position, and where its blend began."""
    files = sorted(path.glob("checkpoints/step_*/checkpoint.json"), reverse=True)
    if not files:
        return None
    from ..indexed_dataset import BlendState
    from ..trainer.checkpoint import read_facts

    for file in files:
        facts = read_facts(file.parent)
        start = BlendState.from_dict(facts.data["start"])
        if position is None or start.samples <= position:
            break
    return facts.config, start


def _origin(dataset: IndexedDataset, number: int) -> str:
    origin = dataset.origin(number)
    return "" if origin is None else f", from {origin[0]}:{origin[1]}"


def _text(ids: Sequence[int], decode: Decode | None, length: int = _TEXT_SHOWN) -> str:
    if decode is None:
        return "(its tokenizer is not at hand: no text)"
    text = decode(ids)
    return repr(text if len(text) <= length else text[:length] + "...")
