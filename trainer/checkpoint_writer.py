"""The state of training in, a folder that is whole or not there at all out, while training goes on.

Saving has three parts. The state is copied to the host's memory (the only time in which the
training waits); a thread writes every rank's part into a folder with another name
(torch.distributed.checkpoint); when all of it is on disk the folder gets its name. A kill at any
moment leaves the checkpoints before it and, perhaps, an unfinished folder that nothing reads and
the next save removes.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from ..indexed_dataset.atomic import disk_full, sync_file, sync_folder
from .checkpoint import FACTS, UNFINISHED, CheckpointError, Facts, fill, find_checkpoints
from .checkpoint_state import CheckpointState
from .grid import Grid
from .model import Transformer
from .optimizer import Optimizers


class Checkpointer:
    """Saves and restores this rank's slices of one model and optimizer; all ranks call it alike."""

    def __init__(self, output: Path, model: Transformer, optimizer: Optimizers, grid: Grid) -> None:
        self._folder = output / "checkpoints"
        self._grid = grid
        self._state = CheckpointState(model, optimizer, grid)
        # The writing threads talk among themselves: the ranks' own groups are busy training.
        self._group = None if grid.world.group is None else dist.new_group(backend="gloo")
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as was asked

    def save(self, facts: Facts, tokenizer: Path | None, keep_last: int) -> Path:
        """Begin to write the checkpoint of `facts.step`; return its folder-to-be.

        Waits for the one before. An existing complete checkpoint of the same step is left as it
        is, and those older than the last `keep_last` (0: none) are removed.

        Raises:
            DiskFullError, CheckpointError: the one before could not be written; see `wait`.
        """
        self.wait()
        final = self._folder / f"step_{facts.step:08d}"
        if (final / FACTS).is_file():
            return final
        tensors = self._state.copied(facts.step - facts.skipped_steps)

        def write() -> None:
            try:
                self._write(tensors, final, facts, tokenizer, keep_last)
            except Exception as error:  # raised again where somebody waits
                self._error = error

        self._thread = threading.Thread(target=write, daemon=True, name="checkpoint")
        self._thread.start()
        return final

    def wait(self) -> None:
        """Wait until what `save` began is on disk.

        Raises:
            DiskFullError: nothing is left of the new checkpoint, the older ones are whole.
            CheckpointError: the same, for another reason.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Let a last checkpoint become whole, where no other rank is needed that may have died."""
        if self._thread is not None and self._group is None:
            self._thread.join()

    def load(self, folder: Path, facts: Facts) -> None:
        """Fill the model and the optimizer; the layout may be another than the one that saved.

        Raises:
            CheckpointError: the files cannot be read.
        """
        tensors = self._state.tensors(facts.step - facts.skipped_steps)
        fill(tensors, folder, no_dist=self._group is None)

    def _write(
        self,
        tensors: dict[str, Any],
        final: Path,
        facts: Facts,
        tokenizer: Path | None,
        keep_last: int,
    ) -> None:
        unfinished = self._folder / f"{UNFINISHED}{final.name}"
        failure: Exception | None = None
        try:
            if self._grid.is_main:
                self._folder.mkdir(parents=True, exist_ok=True)
                for leftover in self._folder.glob(f"{UNFINISHED}*"):
                    shutil.rmtree(leftover)
                (unfinished / "state").mkdir(parents=True)
        except OSError as error:
            failure = error
        self._agree(failure, final, unfinished)
        try:
            save(
                tensors,
                storage_writer=FileSystemWriter(unfinished / "state"),
                process_group=self._group,
                no_dist=self._group is None,
            )
            if self._grid.is_main:
                _finish(unfinished, final, facts, tokenizer)
                _prune(self._folder, keep_last)
        except (CheckpointException, OSError) as error:
            failure = error
        self._agree(failure, final, unfinished)

    def _agree(self, failure: Exception | None, final: Path, unfinished: Path) -> None:
        """Go on if no rank has failed; else all raise.

        Raises:
            DiskFullError, CheckpointError: some rank has failed.
        """
        failed = failure is not None
        if self._group is not None:
            flag = torch.tensor(int(failed))
            dist.all_reduce(flag, dist.ReduceOp.MAX, self._group)
            failed = bool(flag)
        if not failed:
            return
        if self._grid.is_main:
            shutil.rmtree(unfinished, ignore_errors=True)
        cause = None if failure is None else _full_disk_error(failure)
        if cause is not None:
            raise disk_full(unfinished, cause) from failure
        raise CheckpointError(
            f"{final} could not be written ({failure or 'another rank failed'}): the checkpoints "
            "before it are whole"
        ) from failure


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
        doomed = folder / f"{UNFINISHED}{old.name}"
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
