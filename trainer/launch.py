"""A config in, running ranks out: one process each, started here unless torchrun already has.

The parent starts `python -P -m gristmill.trainer.launch` once a rank through torch.distributed's
own launcher, which stops all ranks when one dies. A rank that fails leaves its error in a file;
the parent turns the first cause into one message.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.utils.deterministic
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ProcessFailure,
    get_error_handler,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from .config import PretrainConfig, from_dict, to_dict

logger = logging.getLogger(__name__)

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_SHUTDOWN_SECONDS = 600  # a rank that is told to stop first saves a checkpoint


class RankFailedError(ChildProcessError):
    """A rank died; all others were stopped."""


class PretrainError(ValueError):
    """A rank refused what it was given; the message is the rank's own."""


def is_launched() -> bool:
    """Whether this process is a rank that torchrun (or our own launcher) started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def usable_cores() -> int:
    """Return the cores this process may use: CPU affinity, and the cgroup's quota if lower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores or 1, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores or 1


def choose_device(config: PretrainConfig) -> torch.device:
    """Return the device of this rank.

    Raises:
        ValueError: cuda was asked for where there is none.
    """
    kind = config.training.device
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(
            'training.device = "cuda", but torch finds no GPU (it may be the CPU build of torch, '
            'or the driver is missing): install the other build, or set it to "auto"'
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def count_ranks(config: PretrainConfig) -> int:
    """Return how many ranks to start: tensor parallel times data parallel size.

    Raises:
        ValueError: more ranks than GPUs, or sizes that do not divide them.
    """
    if is_launched():
        return int(os.environ["WORLD_SIZE"])
    tensor, data = config.parallel.tensor_parallel_size, config.parallel.data_parallel_size
    if choose_device(config).type == "cpu":
        return tensor * max(1, data)
    gpus = torch.cuda.device_count()
    ranks = tensor * (data or max(1, gpus // tensor))
    if ranks > gpus:
        raise ValueError(
            f"parallel.tensor_parallel_size = {tensor} times data_parallel_size = {max(1, data)} "
            f"needs {ranks} GPUs, this machine has {gpus}. Choose a smaller layout, start the "
            'ranks of several machines with torchrun, or set training.device = "cpu"'
        )
    return ranks


def launch(config: PretrainConfig, output: Path, num_ranks: int) -> None:
    """Run the training in `num_ranks` processes of this machine and wait for them.

    A SIGTERM or Ctrl-C goes on to the ranks, which save a checkpoint and leave; this function
    then raises KeyboardInterrupt or SystemExit.

    Raises:
        PretrainError: what a rank refused, in its own words.
        RankFailedError: a rank died; names it and its last words.
    """
    run_ranks(
        "gristmill.trainer.launch",
        [str(output), json.dumps(to_dict(config))],
        num_ranks,
        threads_per_rank(config, num_ranks),
        on_cpu=choose_device(config).type == "cpu",
    )


def run_ranks(
    module: str, arguments: list[str], num_ranks: int, threads: int, *, on_cpu: bool
) -> None:
    """Run a module of ours in `num_ranks` processes of this machine and wait for them.

    Raises:
        PretrainError, RankFailedError, KeyboardInterrupt, SystemExit: see `launch`.
    """
    environment = dict(os.environ)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(_SHUTDOWN_SECONDS))
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if on_cpu:
        # gloo otherwise asks the host's name for an address, which may not resolve.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    launcher = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id=f"gristmill-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(),
    )
    # -P: a folder of the working directory (`trainer`, `kernels`) is never taken for a module.
    program = ["-P", "-m", module, *arguments]
    try:
        with _silent_launcher():
            elastic_launch(launcher, sys.executable)(*program)
    except ChildFailedError as error:
        raise _explain(error) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + error.sigval) from None
    finally:
        os.environ.clear()
        os.environ.update(environment)


@contextmanager
def _silent_launcher() -> Iterator[None]:
    """Silence the launcher, which reports failures in a banner: ours is the one message."""
    names = [
        name
        for name in logging.root.manager.loggerDict
        if name.startswith(("torch.distributed.elastic", "torchelastic"))
    ]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in (*names, "torchelastic-events-null"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _freed_memory_kept() -> Iterator[None]:
    """Let malloc reuse large freed tensors instead of giving them back to the system each time.

    Fetching pages anew took 8 % of a step on CPUs (measured with tensors of 1 to 70 MB). Older
    glibc refuse so high a threshold, and would then use a low one.
    """
    name, version = platform.libc_ver()
    if name != "glibc" or [int(part) for part in version.split(".")[:2]] < [2, 36]:
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
    try:
        yield
    finally:  # as glibc begins
        libc.mallopt(_M_MMAP_THRESHOLD, 128 << 10)
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 10)
        libc.malloc_trim(0)


def threads_per_rank(config: PretrainConfig, ranks_here: int) -> int:
    """Return the CPU threads of each of `ranks_here` ranks on this machine."""
    return config.parallel.threads_per_rank or max(1, usable_cores() // ranks_here)


@contextmanager
def rank(config: PretrainConfig) -> Iterator[torch.device]:
    """Yield this rank's device; while it lasts threads are set and the ranks are connected."""
    device = choose_device(config)
    memory: Any = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        memory.fill_uninitialized_memory,
    )
    torch.set_num_threads(threads_per_rank(config, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # Matrix products that repeat bit for bit need it, and it is read once, at the first one.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.training.deterministic)
    memory.fill_uninitialized_memory = False  # nothing here reads what it has not written
    connect = is_launched() and not dist.is_initialized()
    if connect:
        on_gpu = device.type == "cuda"
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
    try:
        with _freed_memory_kept():
            yield device
    finally:
        if connect:
            dist.destroy_process_group()
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        memory.fill_uninitialized_memory = before[2]


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yield an event that a SIGTERM or Ctrl-C sets; a second one acts as usual."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals reach the main thread only
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _explain(error: ChildFailedError) -> Exception:
    """Return the one exception that says why the ranks stopped."""

    def killed(failure: ProcessFailure) -> bool:
        return failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM

    # A rank killed from outside leaves no words, and its neighbours complain before it is noticed.
    rank, failure = min(
        error.failures.items(), key=lambda item: (not killed(item[1]), item[1].timestamp)
    )
    details = _recorded(failure)
    if details.get("refused"):
        return PretrainError(details["text"])
    if killed(failure):
        words = (
            f"died of signal {signal.Signals(-failure.exitcode).name} (a kill from outside, or no "
            "memory left)"
        )
    else:
        words = f"failed: {details.get('text', failure.message)}"
    trace = f"\n{details['traceback']}" if "traceback" in details else ""
    return RankFailedError(
        f"rank {rank} {words}; all other ranks were stopped. What was trained since the last "
        f"checkpoint is lost: run the same command again to go on from there{trace}"
    )


def _recorded(failure: ProcessFailure) -> dict[str, Any]:
    """Return what the rank wrote down about its end, in `_record_failure`."""
    message = failure.message
    if isinstance(message, dict):
        message = message.get("message", "")
    _, brace, rest = str(message).partition("{")  # the launcher puts the exception's name first
    try:
        details: dict[str, Any] = json.loads(brace + rest)
    except ValueError:
        return {"text": str(message)}
    return details


def record_failure(error: BaseException) -> None:
    """Write down why this rank fails, for the parent to say (`run_ranks`)."""
    import traceback

    refused = isinstance(error, ValueError | OSError)
    details: dict[str, Any] = {"refused": refused, "text": str(error) or type(error).__name__}
    if not refused:
        details["text"] = f"{type(error).__name__}: {error}"
        details["traceback"] = "".join(traceback.format_exception(error)).rstrip()
    # The launcher's handler writes the message of what it is given to the file the parent reads.
    get_error_handler().record_exception(RuntimeError(json.dumps(details)))


def main() -> int:
    """Be one rank: arguments are the output folder and the config as JSON."""
    from .recipe import train

    logging.basicConfig(
        level=logging.INFO if os.environ["RANK"] == "0" else logging.ERROR, format="%(message)s"
    )
    output, config = Path(sys.argv[1]), from_dict(PretrainConfig, json.loads(sys.argv[2]))
    try:
        train(config, output)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        record_failure(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
