"""One record of each logged step in; a line, a JSON line and TensorBoard scalars out."""

from __future__ import annotations

import importlib.util
import json
import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..indexed_dataset.atomic import write_atomically
from .config import LogConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

FILE = "metrics.jsonl"


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """What is known about the steps since the last line."""

    step: int
    """Optimizer steps taken."""
    loss: float
    """Mean nll of this step's tokens, nats."""
    learning_rate: float
    """Of this step."""
    gradient_norm: float
    """Global L2 norm before clipping."""
    tokens_per_second: float
    """Tokens of all ranks, since the last line."""
    step_seconds: float
    """Mean time of a step since the last line."""
    data_wait_share: float
    """Share of the time since the last line in which this rank waited for data."""
    peak_memory_bytes: int
    """Most memory that this rank has had: of the GPU, or of the process on a CPU."""
    mfu: float | None
    """Share of the device's peak, see speed.py; None where that is not known."""
    skipped_steps: int
    """Steps that the guard has skipped since the training began."""
    batch_size: int
    """Samples of this step over all ranks."""
    consumed_samples: int
    """Samples of the blend trained on."""
    consumed_tokens: int
    """The same in tokens."""


class Rates(NamedTuple):
    """What a clock has measured."""

    tokens_per_second: float
    step_seconds: float
    data_wait_share: float


class Clock:
    """Measures tokens per second and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._waited = 0.0
        self._tokens = 0
        self._steps = 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not count the time inside: it is not training."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def add(self, num_tokens: int) -> None:
        """Count a step, and the tokens that it was trained on."""
        self._tokens += num_tokens
        self._steps += 1

    def read(self) -> Rates:
        """Return the rates since the last call, and start anew."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        rates = Rates(self._tokens / seconds, seconds / max(1, self._steps), self._waited / seconds)
        self._start, self._waited = time.perf_counter(), 0.0
        self._tokens = self._steps = 0
        return rates


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this rank has had on its GPU, or in the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else 1024 * kilobytes


class MetricsLog:
    """Writes metrics of one run; continues after an interruption as if there had been none.

    Args:
        output: folder of the run.
        step: steps that the run has taken; later records, of a run cut off, are dropped.
        num_steps: length of the training, for the lines.
    """

    def __init__(self, output: Path, step: int, num_steps: int, config: LogConfig) -> None:
        self._path = output / FILE
        self._num_steps = num_steps
        self._wandb = _start_wandb(output, config.wandb) if config.wandb else None
        _drop_after(self._path, step)
        self._tensorboard: SummaryWriter | None = None
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(output / "tensorboard"), purge_step=step + 1)

    def log(self, metrics: StepMetrics, more: Mapping[str, float]) -> None:
        """Write one step's metrics everywhere.

        Args:
            more: what only some models have, by name; not in the line.
        """
        width = len(str(self._num_steps))
        logger.info(
            "step %*d/%d  loss %.4f  lr %.1e  norm %.3f  %s tokens/s%s  data wait %.1f %%  %.1f GB",
            width,
            metrics.step,
            self._num_steps,
            metrics.loss,
            metrics.learning_rate,
            metrics.gradient_norm,
            f"{metrics.tokens_per_second:,.0f}",
            "" if metrics.mfu is None else f"  MFU {100 * metrics.mfu:.1f} %",
            100 * metrics.data_wait_share,
            metrics.peak_memory_bytes / 1e9,
        )
        values = {k: v for k, v in asdict(metrics).items() if v is not None} | dict(more)
        self._append(values)
        del values["step"]
        self._scalars("train", values, metrics.step)

    def log_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Write scores of a validation: name -> value."""
        self._append({"step": step, "validation": values})
        self._scalars("validation", values, step)

    def close(self) -> None:
        """Flush what is buffered."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _append(self, values: Mapping[str, object]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values, ensure_ascii=False) + "\n")

    def _scalars(self, tag: str, values: Mapping[str, float], step: int) -> None:
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(f"{tag}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({f"{tag}/{name}": value for name, value in values.items()}, step=step)


def require_wandb() -> None:
    """Refuse a config that logs to Weights & Biases where it is not installed.

    Raises:
        ValueError: says how to install it.
    """
    if importlib.util.find_spec("wandb") is None:
        raise ValueError(
            "log.wandb names a project, but Weights & Biases is not installed: pip install "
            "'gristmill[wandb]', or leave log.wandb empty"
        )


def _start_wandb(output: Path, project: str) -> Any:
    require_wandb()
    import wandb

    name = output.resolve().name
    # The same name and folder: a run that goes on is drawn as one.
    return wandb.init(project=project, name=name, id=name, dir=str(output), resume="allow")


def read_metrics(output: Path) -> list[dict[str, float]]:
    """Return the records of a run's training steps, in order."""
    lines = (output / FILE).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [record for record in records if "loss" in record]


def _drop_after(path: Path, step: int) -> None:
    """Remove records of steps that will be taken again, and a line that was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["step"] <= step:
            kept.append(line + "\n")
    write_atomically(path, "".join(kept).encode())
