"""The state of training, in and out of a folder that is whole or not there at all.

    OUTPUT/checkpoints/step_00000100/
        checkpoint.json   step, config, model sizes, position in the data, size of every file
        state/            weights and both moments of AdamW (torch.distributed.checkpoint)
        tokenizer/        copy of the tokenizer, so that the folder alone can generate text

Every rank writes its slices into a folder with another name, which is renamed when all is on
disk. The checkpoint knows the whole tensors (checkpoint_state.py), so that another layout, or one
process, can read them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from ..indexed_dataset.atomic import disk_full, sync_file, sync_folder
from .checkpoint_state import CheckpointState, weights_of
from .config import PretrainConfig, from_dict, to_dict
from .config_model import ModelConfig
from .grid import Grid
from .model import Transformer, placements, resolve

SCHEMA_VERSION = 1
FACTS = "checkpoint.json"
_UNFINISHED = "unfinished-"
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


class Checkpointer:
    """Saves and restores this rank's slices of one model and optimizer."""

    def __init__(
        self, output: Path, model: Transformer, optimizer: torch.optim.AdamW, grid: Grid
    ) -> None:
        self._folder = output / "checkpoints"
        self._grid = grid
        self._state = CheckpointState(model, optimizer, grid)

    def save(self, facts: Facts, tokenizer: Path | None, keep_last: int) -> Path:
        """Write the checkpoint of `facts.step` and remove those that are too old.

        All ranks call it. An existing complete checkpoint of the same step is left as it is.

        Raises:
            DiskFullError: nothing is left of the new checkpoint, the older ones are whole.
        """
        final = self._folder / f"step_{facts.step:08d}"
        if (final / FACTS).is_file():
            return final
        unfinished = self._folder / f"{_UNFINISHED}{final.name}"
        if self._grid.is_main:
            self._folder.mkdir(parents=True, exist_ok=True)
            for leftover in self._folder.glob(f"{_UNFINISHED}*"):
                shutil.rmtree(leftover)
            unfinished.mkdir()
        self._barrier()
        try:
            writer = FileSystemWriter(unfinished / "state")
            with _quiet():
                save(
                    self._state.tensors(facts.step),
                    storage_writer=writer,
                    no_dist=self._state.in_one_process,
                )
            if self._grid.is_main:
                _finish(unfinished, final, facts, tokenizer)
                _prune(self._folder, keep_last)
        except (CheckpointException, OSError) as error:
            if self._grid.is_main:
                shutil.rmtree(unfinished, ignore_errors=True)
            cause = _full_disk_error(error)
            if cause is None:
                raise CheckpointError(
                    f"{final} could not be written ({error}): the checkpoints before it are whole"
                ) from error
            raise disk_full(unfinished, cause) from error
        self._barrier()
        return final

    def load(self, folder: Path, facts: Facts) -> None:
        """Fill the model and the optimizer; the layout may be another than the one that saved.

        Raises:
            CheckpointError: the files cannot be read.
        """
        _load(self._state.tensors(facts.step), folder, no_dist=self._state.in_one_process)

    def _barrier(self) -> None:
        if not self._state.in_one_process:
            dist.barrier()


def load_weights(model: Transformer, folder: Path) -> None:
    """Fill a model that lies in one process from a checkpoint of any layout.

    Raises:
        CheckpointError: the files cannot be read.
    """
    load_tensors({f"weight.{name}": value for name, value in weights_of(model).items()}, folder)


def load_slices(model: Transformer, folder: Path) -> None:
    """Fill one rank's slices of a model, reading one whole tensor at a time; no collectives.

    Raises:
        CheckpointError: the files cannot be read.
    """
    where = placements(model)
    for name, own in weights_of(model).items():
        whole = torch.empty(where[name].full_shape(own.shape), dtype=own.dtype)
        load_tensors({f"weight.{name}": whole}, folder)
        own.copy_(where[name].slice(whole))


def load_tensors(state: dict[str, torch.Tensor], folder: Path) -> None:
    """Fill whole tensors (`weight.NAME`, `mean.NAME`, ...) from a checkpoint of any layout.

    Raises:
        CheckpointError: the files cannot be read.
    """
    _load(dict(state), folder, no_dist=True)


def _load(state: dict[str, Any], folder: Path, no_dist: bool) -> None:
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


def _finish(unfinished: Path, final: Path, facts: Facts, tokenizer: Path | None) -> None:
    """Add what one rank writes, make sure that all is on disk, and give it its name."""
    if tokenizer is not None:
        shutil.copytree(tokenizer, unfinished / "tokenizer")
    files = [path for path in unfinished.rglob("*") if path.is_file()]
    sizes = {path.relative_to(unfinished).as_posix(): path.stat().st_size for path in files}
    path = unfinished / FACTS
    path.write_text(facts.to_json(sizes), encoding="utf-8")
    for file in [*files, path]:
        sync_file(file)
    for folder in [*(path for path in unfinished.rglob("*") if path.is_dir()), unfinished]:
        sync_folder(folder)
    if final.exists():  # without checkpoint.json, so never a complete one
        shutil.rmtree(final)
    os.replace(unfinished, final)
    sync_folder(final.parent)


def _prune(folder: Path, keep_last: int) -> None:
    if keep_last == 0:
        return
    for old in find_checkpoints(folder.parent)[:-keep_last]:
        # Under this name a kill leaves nothing that looks complete, and the next save removes it.
        doomed = folder / f"{_UNFINISHED}{old.name}"
        os.replace(old, doomed)
        shutil.rmtree(doomed)


def _full_disk_error(error: BaseException) -> OSError | None:
    """Return the error inside `error` (of any rank) that says that the disk is full."""
    inner: list[BaseException] = [error]
    if isinstance(error, CheckpointException):
        inner = [failure[0] for failure in error.failures.values()]
    for cause in inner:
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return cause
    return None


def _describe_experts(model: ModelConfig) -> dict[str, str]:
    if not model.num_experts:
        return {}
    shared = f", {model.num_shared_experts} shared" if model.num_shared_experts else ""
    return {
        "experts": f"{model.num_experts} of width {model.expert_ffn_size} in each layer, "
        f"{model.experts_per_token} for each token{shared}"
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
