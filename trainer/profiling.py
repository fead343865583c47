"""A few steps of a training in, a trace for chrome://tracing or https://ui.perfetto.dev out."""

from __future__ import annotations

import logging
from types import TracebackType

import torch

from .training import Training

logger = logging.getLogger(__name__)

_FIRST_STEP = 3  # steps before it compile and warm up


class Profiler:
    """Records `log.profile_steps` steps, each rank for itself; a context that may do nothing."""

    def __init__(self, run: Training) -> None:
        self._run = run
        self._left = run.config.log.profile_steps
        self._until_start = _FIRST_STEP
        self._recorder: torch.profiler.profile | None = None

    def __enter__(self) -> Profiler:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write()

    def step(self) -> None:
        """Begin, go on, or end, between two steps."""
        if self._recorder is not None:
            self._left -= 1
            if self._left == 0:
                self._write()
        elif self._left > 0:
            self._until_start -= 1
            if self._until_start == 0:
                self._recorder = torch.profiler.profile(profile_memory=True)
                self._recorder.start()

    def _write(self) -> None:
        if self._recorder is None:
            return
        recorder, self._recorder = self._recorder, None
        self._left = 0
        recorder.stop()
        folder = self._run.output / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step_{self._run.step:08d}_rank{self._run.grid.world.rank}.json"
        recorder.export_chrome_trace(str(path))
        if self._run.grid.is_main:
            logger.info("profile: %s (open it in chrome://tracing or ui.perfetto.dev)", path)
