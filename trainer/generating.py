"""Prompts in, a line of JSON for each continuation out; by one process or by ranks together.

    {"prompt": "...", "text": "..."}

The file is written batch by batch, in the order of the prompts, under a name that holds what its
texts follow from (`OUTPUT.unfinished-...`). After a kill the same call goes on behind its last
whole batch, and the file is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ..indexed_dataset.atomic import sync_file, sync_folder
from .checkpoint import locate, read_facts
from .config import PretrainConfig
from .grid import Ranks
from .launch import choose_device, is_launched, record_failure, run_ranks, usable_cores
from .sampling import TrainedModel, generate, load_model

logger = logging.getLogger(__name__)

Prompt = str | Sequence[int]


def read_rows(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the rows of a file: the objects of a .jsonl, else `{"prompt": line}` of every line.

    Raises:
        ValueError: a line that is no JSON object with a `prompt` or `messages`; an empty file.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [{"prompt": line} for line in lines]
    if path.suffix == ".jsonl":
        rows = []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                has_prompt = isinstance(
                    row["prompt" if "prompt" in row else "messages"], str | list
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number} has no prompt ({error!r}): every line of a .jsonl file "
                    'is an object like {"prompt": "..."} or {"messages": [{"role": "user", '
                    '"content": "..."}]}'
                ) from error
            if not has_prompt:
                raise ValueError(f"{path}, line {number}: its prompt is no text")
            rows.append(row)
    if not rows:
        raise ValueError(f"{path} has no prompts: write one on each line")
    return rows


def write_continuations(
    checkpoint: str | os.PathLike[str],
    prompts: Sequence[Prompt],
    output: str | os.PathLike[str] | None,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    tokenizer: str | os.PathLike[str] = "",
    tensor_parallel_size: int = 1,
    batch_size: int = 8,
    **settings: Any,
) -> None:
    """Continue prompts into a JSONL file, or onto the standard output as plain text.

    Args:
        prompts: texts, or ids.
        output: file to write; None: standard output.
        rows: what is written of each prompt, beside its `text`; None: `{"prompt": ...}`.
        tokenizer: folder of a tokenizer with more tokens than the model's own; empty: its own.
        tensor_parallel_size: ranks that share the model, started here.
        batch_size: prompts continued at once.
        settings: of `generate`.

    Raises:
        ValueError, CheckpointError: as `generate`, and a file that is there already.
        RankFailedError: a rank died.
    """
    if output is not None and Path(output).exists():
        raise ValueError(f"{output} is there already: name another file, or remove it")
    if tensor_parallel_size < 1:
        raise ValueError(f"tensor_parallel_size = {tensor_parallel_size} must be 1 or more")
    work = {
        "checkpoint": os.fspath(locate(checkpoint)),
        "prompts": [prompt if isinstance(prompt, str) else list(prompt) for prompt in prompts],
        "rows": [dict(row) for row in rows or ({"prompt": prompt} for prompt in prompts)],
        "output": None if output is None else os.fspath(output),
        "tokenizer": os.fspath(tokenizer),
        "settings": {**settings, "batch_size": batch_size},
    }
    if tensor_parallel_size == 1:
        _continue(work, None, None)
        return
    on_cpu = choose_device(PretrainConfig()).type == "cpu"
    threads = max(1, usable_cores() // tensor_parallel_size)
    # In a file: the words of a command are limited.
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(work, file)
        file.flush()
        module = "gristmill.trainer.generating"
        run_ranks(module, [file.name], tensor_parallel_size, threads, on_cpu=on_cpu)


class _Unfinished:
    """The file while it is written: whole batches of an earlier call stay."""

    def __init__(self, work: Mapping[str, Any], step: int) -> None:
        output = Path(work["output"])
        self._output = output
        # `step` as well: a checkpoint folder of this name may have been written anew.
        identity = json.dumps({**work, "output": "", "step": step}, sort_keys=True)
        name = hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()
        self.path = output.with_name(f"{output.name}.unfinished-{name}")

    def whole_rows(self, batch_size: int, of: int) -> int:
        """Cut the file behind its last whole batch; return the rows that it has then."""
        if not self.path.exists():
            return 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        count = sum(line.endswith(b"\n") for line in lines)
        count = count if count == of else count - count % batch_size
        with self.path.open("r+b") as file:
            file.truncate(sum(map(len, lines[:count])))
        return count

    def finish(self) -> None:
        """Give the file its name."""
        sync_file(self.path)
        os.replace(self.path, self._output)
        sync_folder(self._output.parent)


def _continue(work: Mapping[str, Any], tensor: Ranks | None, device: torch.device | None) -> None:
    """Do the work of one rank."""
    is_main = tensor is None or tensor.rank == 0
    prompts, settings = work["prompts"], work["settings"]
    trained = load_model(work["checkpoint"], tensor, device, work["tokenizer"])
    unfinished, done = None, 0
    if work["output"] is not None:
        unfinished = _Unfinished(work, read_facts(work["checkpoint"]).step)
        if is_main:
            done = unfinished.whole_rows(settings["batch_size"], len(prompts))
        if tensor is not None:
            done = int(tensor.sum(torch.tensor(done)).item())
    if done and is_main:
        logger.info("%d of %d prompts are done already", done, len(prompts))
    _write(trained, work, unfinished if is_main else None, done, is_main)


def _write(
    trained: TrainedModel,
    work: Mapping[str, Any],
    unfinished: _Unfinished | None,
    first: int,
    is_main: bool,
) -> None:
    prompts, rows = work["prompts"], work["rows"]
    begun = time.monotonic()
    with ExitStack() as stack:
        file = None
        if unfinished is not None:
            file = stack.enter_context(unfinished.path.open("a", encoding="utf-8"))

        def write(start: int, texts: list[str]) -> None:
            if not is_main:
                return
            done = start + len(texts)
            for prompt, row, text in zip(prompts[start:done], rows[start:done], texts, strict=True):
                if file is None:
                    sys.stdout.write(f"{prompt if isinstance(prompt, str) else ''}{text}\n")
                else:
                    file.write(json.dumps({**row, "text": text}, ensure_ascii=False) + "\n")
            (file or sys.stdout).flush()
            if file is not None:
                left = (time.monotonic() - begun) / (done - first) * (len(prompts) - done)
                logger.info("%d of %d prompts, about %.0f s left", done, len(prompts), left)

        generate(trained, prompts, first_prompt=first, on_batch=write, **work["settings"])
    if unfinished is not None:
        unfinished.finish()


def main() -> int:
    """Be one rank: the argument is a file with what `write_continuations` was given, as JSON."""
    assert is_launched()
    rank = int(os.environ["RANK"])
    level = logging.INFO if rank == 0 else logging.ERROR
    logging.basicConfig(level=level, format="gristmill: %(message)s")
    work = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    device = choose_device(PretrainConfig())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        tensor = Ranks(rank, dist.get_world_size(), dist.group.WORLD)
        _continue(work, tensor, device)
        dist.destroy_process_group()
    except Exception as error:
        record_failure(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
