"""The folder of a checkpoint in; what it is, and its tensors, out. It is whole or not there at all.

    OUTPUT/checkpoints/step_00000100/
        checkpoint.json   step, config, model sizes, position in the data, size of every file
        state/            weights and optimizer states (torch.distributed.checkpoint)
        tokenizer/        copy of the tokenizer, so that the folder alone can generate text

It is written by checkpoint_writer.py, and knows the whole tensors (checkpoint_state.py), so that
another layout, or one process, can read them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

from .config import PretrainConfig, from_dict, to_dict
from .config_model import ModelConfig
from .model import resolve

SCHEMA_VERSION = 1
FACTS = "checkpoint.json"
UNFINISHED = "unfinished-"
_PAGE_WIDTH = 80
_STEP_FOLDER = "step_" + 8 * "[0-9]"  # not a copy that a user has put beside it


class CheckpointError(ValueError):
    """A checkpoint is missing, incomplete, unreadable or belongs to another run."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What stands in checkpoint.json."""

    step: int
    """Optimizer steps taken."""
    consumed_samples: int
    """Samples of the blend that were trained on."""
    config: PretrainConfig
    """The run's config, with the model's derived sizes filled in."""
    vocab_size: int
    """Real ids of the model."""
    data: dict[str, Any]
    """Position in the data, and what identifies it: `TrainingData.state`."""
    skipped_steps: int
    """Steps of these in which nothing was changed."""
    guard: dict[str, Any]
    """What the guard remembers: `Guard.state`."""
    layout: dict[str, int]
    """tensor, data, expert, shard: the number of ranks on each axis that wrote it."""

    def to_json(self, files: Mapping[str, int]) -> str:
        """Return the text of checkpoint.json."""
        values = {
            "schema_version": SCHEMA_VERSION,
            "step": self.step,
            "consumed_samples": self.consumed_samples,
            "vocab_size": self.vocab_size,
            "data": self.data,
            "skipped_steps": self.skipped_steps,
            "guard": self.guard,
            "layout": self.layout,
            "config": to_dict(self.config),
            "torch": torch.__version__,
            "files": dict(sorted(files.items())),
        }
        return json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def find_checkpoints(output: str | os.PathLike[str]) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    folder = Path(output) / "checkpoints"
    return sorted(path.parent for path in folder.glob(f"{_STEP_FOLDER}/{FACTS}"))


def locate(path: str | os.PathLike[str]) -> Path:
    """Return the checkpoint folder that `path` is, or the newest one of the run it names.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if (path / FACTS).is_file():
        return path
    found = find_checkpoints(path) or find_checkpoints(path.parent)
    if found and (path == found[-1].parent or path == found[-1].parent.parent):
        return found[-1]
    raise CheckpointError(
        f"{path} is no checkpoint and holds none: a complete one has a {FACTS} in "
        "OUTPUT/checkpoints/step_.... Give such a folder, or the output folder of a run that has "
        "saved one (checkpoint.every_steps)"
    )


def read_facts(folder: str | os.PathLike[str]) -> Facts:
    """Read checkpoint.json and check that every file it names is there in full length.

    Raises:
        CheckpointError: names the file and how to go on.
    """
    folder = Path(folder)
    try:
        values = json.loads((folder / FACTS).read_bytes())
        if values["schema_version"] != SCHEMA_VERSION:
            raise CheckpointError(
                f"{folder} has schema_version {values['schema_version']}, this gristmill reads "
                f"{SCHEMA_VERSION}: use the version that wrote it"
            )
        config = from_dict(PretrainConfig, values["config"])
        facts = Facts(
            step=values["step"],
            consumed_samples=values["consumed_samples"],
            # Older ones lack sizes that are derived today.
            config=dataclasses.replace(config, model=resolve(config.model)),
            vocab_size=values["vocab_size"],
            data=values["data"],
            skipped_steps=values.get("skipped_steps", 0),
            guard=values.get("guard", {}),
            layout=values["layout"],
        )
        files: dict[str, int] = values["files"]
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / FACTS} cannot be read ({error}). {_remedy}") from error
    for name, size in files.items():
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise CheckpointError(f"{file} {state}: the checkpoint is damaged. {_remedy}")
    return facts


_remedy = (
    "Copy it again from where it is whole, or remove its folder: training goes on from the "
    "checkpoint before"
)


def load_tensors(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Fill whole tensors (`weight.NAME`, `mean.NAME`, ...) from a checkpoint of any layout.

    Raises:
        CheckpointError: the files cannot be read.
    """
    fill(dict(state), folder, no_dist=True)


def fill(state: dict[str, Any], folder: Path, no_dist: bool) -> None:
    """Fill the tensors of `state` (DTensors where there are ranks) from a checkpoint.

    Raises:
        CheckpointError: the files cannot be read.
    """
    try:
        with _quiet():
            load(state, storage_reader=FileSystemReader(folder / "state"), no_dist=no_dist)
    except (Exception, CheckpointException) as error:  # whatever a damaged file raises
        raise CheckpointError(
            f"the weights in {folder / 'state'} cannot be read ({error}). {_remedy}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide torch's notice that a single process saves and loads alone, as was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _describe_experts(model: ModelConfig) -> dict[str, str]:
    if not model.num_experts:
        return {}
    shared = f", {model.num_shared_experts} shared" if model.num_shared_experts else ""
    return {
        "experts": f"{model.num_experts} of width {model.expert_ffn_size} in each layer, "
        f"{model.experts_per_token} for each token{shared}"
    }


def _describe_lora(config: PretrainConfig) -> dict[str, str]:
    if not config.lora.rank:
        return {}
    return {
        "holds": f"low-rank matrices (rank {config.lora.rank}) for {', '.join(config.lora.targets)}"
        f" of {config.training.init_from}"
    }


def describe_checkpoint(path: str | os.PathLike[str]) -> str:
    """Return what a checkpoint (or the newest one of a run) holds, as a few lines of text."""
    folder = locate(path)
    facts = read_facts(folder)
    config = facts.config
    model = config.model
    rows = {
        "steps taken": f"{facts.step:,} of {config.training.num_steps:,}",
        "samples consumed": f"{facts.consumed_samples:,} of {config.data.sequence_length:,} tokens "
        "each",
        "model": f"{model.num_layers} layers, hidden size {model.hidden_size}, {model.num_heads} "
        f"heads, {model.num_kv_heads} key/value heads, feed-forward {model.ffn_size}, "
        f"{'tied' if model.tied_embeddings else 'untied'} embeddings",
        **_describe_experts(model),
        **_describe_lora(config),
        "vocabulary": f"{facts.vocab_size:,} ids",
        "written by": f"{facts.layout['tensor']} tensor-parallel x {facts.layout['data']} "
        "data-parallel ranks",
        "trained on": ", ".join(facts.data["datasets"]),
    }
    lines = [f"checkpoint {folder.name}"]
    for name, value in rows.items():
        lines += textwrap.wrap(
            value,
            _PAGE_WIDTH,
            initial_indent=f"  {name:<18}",
            subsequent_indent=20 * " ",
            break_on_hyphens=False,
        )
    return "\n".join(lines)
