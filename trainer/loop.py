"""Batches in, optimizer steps out: the loop of a training.

On a GPU the numbers of a step are read when the next step has been given to it, so that it never
waits for Python; on a CPU they are there at once.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .data import Batches
from .metrics import Clock, StepMetrics, peak_memory
from .profiling import Profiler
from .router import routing_metrics
from .schedule import learning_rate
from .speed import flops_per_token, model_flops_utilization
from .step import PendingStep, StepResult, start_step
from .training import Training

logger = logging.getLogger(__name__)


class _Started(NamedTuple):
    """A step that the device works on."""

    step: int
    """Its number, counted from 1."""
    learning_rate: float
    pending: PendingStep


def take_steps(run: Training, stop: threading.Event) -> bool:
    """Train until all steps are done (True) or a rank was asked to stop (False)."""
    batches = Batches(
        run.data,
        run.sizes,
        run.grid.data,
        run.step,
        run.config.training.num_steps,
        pinned=run.device.type == "cuda",
    )
    try:
        with _collected_by_hand(run.config.training.collect_garbage_every > 0), Profiler(run) as p:
            return _Loop(run, batches, p).take_all(stop)
    finally:
        batches.close()


class _Loop:
    def __init__(self, run: Training, batches: Batches, profiler: Profiler) -> None:
        self._run = run
        self._batches = batches
        self._profiler = profiler
        self._clock = Clock()
        self._flops_per_token = flops_per_token(run.config, run.data.vocab_size)
        self._lag = 1 if run.device.type == "cuda" else 0

    def take_all(self, stop: threading.Event) -> bool:
        run, settings = self._run, self._run.config.training
        every, num_steps = run.config.checkpoint.every_steps, settings.num_steps
        started: list[_Started] = []
        while run.step < num_steps:
            started.append(self._start(stop.is_set()))
            last = run.step == num_steps
            saves = not last and _is_due(run.step, every)
            scores = not last and _is_due(run.step, run.config.evaluate.every_steps)
            if self._finish(started, 0 if last or saves or scores else self._lag) and not last:
                self._finish(started, 0)
                return False
            self._profiler.step()
            if _is_due(run.step, settings.collect_garbage_every):
                gc.collect(1)
            if saves:
                run.save(wait=False)
            if scores:
                with self._clock.paused():
                    run.evaluate(run.config.evaluate.max_windows)
        return True

    def _start(self, stop: bool) -> _Started:
        run, config = self._run, self._run.config
        with self._clock.waiting():
            batch = self._batches.next()
        rate = learning_rate(
            run.step, config.optimizer.learning_rate, config.schedule, config.training.num_steps
        )
        pending = start_step(
            run.model,
            run.optimizer,
            batch,
            run.grid,
            run.guard,
            micro_batch_size=config.training.micro_batch_size,
            learning_rate=rate,
            clip_norm=config.optimizer.clip_norm,
            stop=stop,
            loss_chunk_tokens=config.training.loss_chunk_tokens,
        )
        run.step += 1
        return _Started(run.step, rate, pending)

    def _finish(self, started: list[_Started], keep: int) -> bool:
        """Read all steps but the last `keep`; return whether a rank was asked to stop."""
        stop = False
        while len(started) > keep:
            step = started.pop(0)
            result = step.pending.read()
            self._clock.add(self._num_tokens(step.step, result))
            stop |= result.stop
            self._judge(step.step, result)
            last = step.step == self._run.config.training.num_steps
            if self._run.log and (
                _is_due(step.step, self._run.config.log.every_steps) or last or result.stop
            ):
                self._log(step, result)
        return stop

    def _num_tokens(self, step: int, result: StepResult) -> int:
        """Return the tokens that a step has computed: of an encoder, those without a label too."""
        run = self._run
        if run.data.masking is None:
            return result.num_tokens
        samples = run.sizes.first_sample(step - 1), run.sizes.first_sample(step)
        before, after = map(run.data.blend.num_tokens, samples)
        return after - before

    def _judge(self, step: int, result: StepResult) -> None:
        run = self._run
        run.skipped_steps += result.skipped
        if result.skipped and run.grid.is_main:
            logger.warning(
                "step %d is skipped: its loss is %g, its gradient's norm %g; the weights stay as "
                "they were",
                step,
                result.loss,
                result.gradient_norm,
            )
        run.guard.count(result.skipped, result.loss, result.gradient_norm)

    def _log(self, step: _Started, result: StepResult) -> None:
        run = self._run
        assert run.log is not None
        rates = self._clock.read()
        consumed = run.sizes.first_sample(step.step)
        per_device = rates.tokens_per_second / run.grid.world.size
        run.log.log(
            StepMetrics(
                step=step.step,
                loss=result.loss,
                learning_rate=step.learning_rate,
                gradient_norm=result.gradient_norm,
                tokens_per_second=rates.tokens_per_second,
                step_seconds=rates.step_seconds,
                data_wait_share=rates.data_wait_share,
                peak_memory_bytes=peak_memory(run.device),
                mfu=model_flops_utilization(
                    per_device * self._flops_per_token, run.device, run.model.compute_dtype
                ),
                skipped_steps=run.skipped_steps,
                batch_size=run.sizes.size(step.step - 1),
                consumed_samples=consumed,
                consumed_tokens=run.data.blend.num_tokens(consumed),
            ),
            {} if result.routing is None else routing_metrics(result.routing, result.num_tokens),
        )


@contextmanager
def _collected_by_hand(by_hand: bool) -> Iterator[None]:
    """Keep Python from looking for garbage whenever it likes: one rank's pause stops them all."""
    was_enabled = gc.isenabled()
    if by_hand:
        gc.collect()
        gc.freeze()  # what a training is made of is never garbage
        gc.disable()
    try:
        yield
    finally:
        if by_hand:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
