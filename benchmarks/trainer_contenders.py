"""One trainer of benchmarks/trainer.py in a process of its own: takes steps whenever it is told.

Usage: trainer_contenders.py NAME ARGUMENTS-AS-JSON; a line on stdin asks for a round, whose
tokens per second are answered.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

WARM_UP = 3
Round = Callable[[int], None]
LASTING: list[Any] = []  # contexts that are left when the process ends


def ours(a: dict[str, Any], compiled: str = "off", ranks: int = 1, tensor: int = 1) -> Round:
    from gristmill.trainer.config import (
        DataConfig,
        OptimizerConfig,
        ParallelConfig,
        PretrainConfig,
        TrainingConfig,
    )
    from gristmill.trainer.config_model import ModelConfig
    from gristmill.trainer.data import Batches
    from gristmill.trainer.launch import rank
    from gristmill.trainer.recipe import _set_up
    from gristmill.trainer.resolved import resolve_config
    from gristmill.trainer.step import start_step

    config = PretrainConfig(
        model=ModelConfig(
            num_layers=a["layers"],
            hidden_size=a["width"],
            num_heads=a["heads"],
            norm="layer",
            positions="learned",
            activation="gelu",
            biases=True,
        ),
        data=DataConfig(path=f"{a['folder']}/data", sequence_length=a["length"]),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        training=TrainingConfig(
            num_steps=10**6,
            global_batch_size=a["batch"],
            micro_batch_size=a["batch"] * tensor // ranks,
            precision=a["precision"],
            device=a["device"],
            compile=compiled,
            deterministic=a["device"] == "cpu",
        ),
        parallel=ParallelConfig(
            tensor_parallel_size=tensor, threads_per_rank=max(1, a["threads"] // ranks)
        ),
    )
    from dataclasses import replace

    config = resolve_config(
        replace(
            config,
            evaluate=replace(config.evaluate, enabled=False),
            log=replace(config.log, tensorboard=False),
        )
    )
    LASTING.append(rank(config))
    device = LASTING[-1].__enter__()
    run = _set_up(config, Path(a["folder"]) / f"ours-{compiled}-{ranks}-{tensor}", device)
    batches = Batches(run.data, run.sizes, run.grid.data, 0, 10**6, pinned=device.type == "cuda")

    def take(steps: int) -> None:
        for _ in range(steps):
            step = start_step(
                run.model,
                run.optimizer,
                batches.next(),
                run.grid,
                run.guard,
                micro_batch_size=a["batch"] * tensor // ranks,
                learning_rate=1e-3,
                clip_norm=1.0,
            )
        assert not step.read().skipped

    return take


def ours_tp2(a: dict[str, Any]) -> Round:
    """Two tensor-parallel ranks."""
    return two_ranks(a, "ours_tp2", tensor=2)


def ours_dp2(a: dict[str, Any]) -> Round:
    """Two data-parallel ranks."""
    return two_ranks(a, "ours_dp2", tensor=1)


def two_ranks(a: dict[str, Any], name: str, tensor: int) -> Round:
    """Two ranks with half of the threads each; the second one follows the first."""
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        os.environ |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
        os.environ["OMP_NUM_THREADS"] = str(max(1, a["threads"] // 2))
        words = [sys.executable, __file__, name, json.dumps(a)]
        other = subprocess.Popen(
            words, env=os.environ | {"RANK": "1", "LOCAL_RANK": "1"}, stdout=subprocess.DEVNULL
        )
        atexit.register(other.kill)
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}
        return ours(a, ranks=2, tensor=tensor)
    take = ours(a, ranks=2, tensor=tensor)
    while True:  # every step waits for that of the first rank, which ends this process with itself
        take(1)


def nanogpt(a: dict[str, Any]) -> Round:
    folder = Path(os.environ.get("GRISTMILL_NANOGPT", Path(__file__).parent.parent / ".nanogpt"))
    if not (folder / "model.py").is_file():
        raise LookupError(f"no {folder}/model.py: make nanogpt, or set GRISTMILL_NANOGPT")
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    torch.set_num_threads(a["threads"])
    torch.manual_seed(0)
    model = module.GPT(
        module.GPTConfig(
            block_size=a["length"],
            vocab_size=a["vocabulary"],
            n_layer=a["layers"],
            n_head=a["heads"],
            n_embd=a["width"],
            dropout=0.0,
            bias=True,
        )
    ).to(a["device"])
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.95), a["device"])
    compiled = torch.compile(model)
    data = np.memmap(f"{a['folder']}/train.bin", dtype=np.uint16, mode="r")
    context = autocast(a)

    def take(steps: int) -> None:
        for _ in range(steps):
            starts = torch.randint(len(data) - a["length"], (a["batch"],)).tolist()
            rows = np.stack([data[i : i + a["length"] + 1] for i in starts]).astype(np.int64)
            rows = torch.from_numpy(rows).to(a["device"], non_blocking=True)
            with context():
                _, loss = compiled(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        loss.item()

    return take


def hugging_face(a: dict[str, Any]) -> Round:
    import logging

    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    logging.disable(logging.WARNING)
    torch.set_num_threads(a["threads"])
    data = np.memmap(f"{a['folder']}/train.bin", dtype=np.uint16, mode="r")

    class Windows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(data) // a["length"] - 1

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            start = index * a["length"]
            ids = torch.from_numpy(data[start : start + a["length"]].astype(np.int64))
            return {"input_ids": ids, "labels": ids}

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=a["vocabulary"],
            n_positions=a["length"],
            n_embd=a["width"],
            n_layer=a["layers"],
            n_head=a["heads"],
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
        )
    )

    def take(steps: int) -> None:
        arguments = TrainingArguments(
            output_dir=f"{a['folder']}/hugging_face",
            max_steps=steps,
            per_device_train_batch_size=a["batch"],
            use_cpu=a["device"] == "cpu",
            bf16=a["precision"] == "bfloat16",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=Windows())
        trainer.train()

    return take


def autocast(a: dict[str, Any]) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    if a["precision"] == "bfloat16":
        return lambda: torch.autocast(a["device"], torch.bfloat16)
    return contextlib.nullcontext


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    make = {
        "ours": ours,
        "ours_compiled": lambda a: ours(a, "on"),
        "ours_tp2": ours_tp2,
        "ours_dp2": ours_dp2,
        "nanogpt": nanogpt,
        "hugging_face": hugging_face,
    }[name]
    answers, steps = sys.stdout, arguments["steps"]
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            take = make(arguments)
            take(WARM_UP)
    except (LookupError, ImportError) as error:
        print(error, file=answers, flush=True)
        return
    print(f"ready after {time.perf_counter() - start:.0f} s", file=answers, flush=True)
    # A busy machine steals wall time; that of the CPU is the same for a process of one thread.
    clock = time.process_time if arguments["clock"] == "cpu" else time.perf_counter
    for _ in sys.stdin:
        start = clock()
        with contextlib.redirect_stdout(io.StringIO()):
            take(steps)
            if arguments["device"] == "cuda":
                torch.cuda.synchronize()
        seconds = clock() - start
        tokens = steps * arguments["batch"] * arguments["length"]
        print(tokens / seconds, file=answers, flush=True)
    atexit._run_exitfuncs()
    os._exit(0)  # threads that read ahead have nothing to finish


if __name__ == "__main__":
    main()
