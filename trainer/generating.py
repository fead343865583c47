"""Prompts in, a line of JSON for each continuation out; by one process or by ranks together.

    {"prompt": "...", "text": "..."}

The file is written batch by batch, in the order of the prompts.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from .config import PretrainConfig
from .grid import Ranks
from .launch import choose_device, is_launched, record_failure, run_ranks, usable_cores
from .sampling import generate, load_model

logger = logging.getLogger(__name__)


def read_prompts(path: str | os.PathLike[str]) -> list[str]:
    """Return the prompts of a file: `prompt` of each line of a .jsonl, else every line.

    Raises:
        ValueError: a line that is no JSON object with a prompt; an empty file.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".jsonl":
        prompts = []
        for number, line in enumerate(lines, start=1):
            try:
                prompts.append(str(json.loads(line)["prompt"]))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}, line {number} has no prompt ({error!r}): every line of a .jsonl file "
                    'is an object like {"prompt": "..."}'
                ) from error
    else:
        prompts = lines
    if not prompts:
        raise ValueError(f"{path} has no prompts: write one on each line")
    return prompts


def write_continuations(
    checkpoint: str | os.PathLike[str],
    prompts: Sequence[str],
    output: str | os.PathLike[str] | None,
    *,
    tensor_parallel_size: int = 1,
    **settings: Any,
) -> None:
    """Continue prompts into a JSONL file, or onto the standard output as plain text.

    Args:
        output: file to write; None: standard output.
        tensor_parallel_size: ranks that share the model, started here.
        settings: of `generate`.

    Raises:
        ValueError, CheckpointError: as `generate`, and a file that is there already.
        RankFailedError: a rank died.
    """
    if output is not None and Path(output).exists():
        raise ValueError(f"{output} is there already: name another file, or remove it")
    if tensor_parallel_size < 1:
        raise ValueError(f"tensor_parallel_size = {tensor_parallel_size} must be 1 or more")
    if tensor_parallel_size == 1:
        _continue(checkpoint, prompts, output, None, None, settings)
        return
    on_cpu = choose_device(PretrainConfig()).type == "cpu"
    values = {
        "checkpoint": os.fspath(checkpoint),
        "prompts": list(prompts),
        "output": None if output is None else os.fspath(output),
        "settings": settings,
    }
    threads = max(1, usable_cores() // tensor_parallel_size)
    words = [json.dumps(values)]
    run_ranks("gristmill.trainer.generating", words, tensor_parallel_size, threads, on_cpu=on_cpu)


def _continue(
    checkpoint: str | os.PathLike[str],
    prompts: Sequence[str],
    output: str | os.PathLike[str] | None,
    tensor: Ranks | None,
    device: torch.device | None,
    settings: dict[str, Any],
) -> None:
    is_main = tensor is None or tensor.rank == 0
    trained = load_model(checkpoint, tensor, device)
    begun = time.monotonic()
    with ExitStack() as stack:
        file = None
        if output is not None and is_main:
            file = stack.enter_context(Path(output).open("x", encoding="utf-8"))

        def write(first: int, texts: list[str]) -> None:
            if not is_main:
                return
            done = first + len(texts)
            for prompt, text in zip(prompts[first:done], texts, strict=True):
                if file is None:
                    sys.stdout.write(f"{prompt}{text}\n")
                else:
                    line = json.dumps({"prompt": prompt, "text": text}, ensure_ascii=False)
                    file.write(line + "\n")
            (file or sys.stdout).flush()
            if file is not None:
                left = (time.monotonic() - begun) / done * (len(prompts) - done)
                logger.info("%d of %d prompts, about %.0f s left", done, len(prompts), left)

        generate(trained, prompts, on_batch=write, **settings)


def main() -> int:
    """Be one rank: the argument is what `write_continuations` was given, as JSON."""
    assert is_launched()
    rank = int(os.environ["RANK"])
    level = logging.INFO if rank == 0 else logging.ERROR
    logging.basicConfig(level=level, format="gristmill: %(message)s")
    values = json.loads(sys.argv[1])
    device = choose_device(PretrainConfig())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        tensor = Ranks(rank, dist.get_world_size(), dist.group.WORLD)
        _continue(
            values["checkpoint"],
            values["prompts"],
            values["output"],
            tensor,
            device,
            values["settings"],
        )
        dist.destroy_process_group()
    except Exception as error:
        record_failure(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
