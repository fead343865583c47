"""Step in, learning rate and batch out: pure functions, so that a resumed run needs no state."""

from __future__ import annotations

import math

from .config import PretrainConfig, ScheduleConfig


def learning_rate(step: int, peak: float, schedule: ScheduleConfig, num_steps: int) -> float:
    """Return the learning rate of optimizer step `step`, counted from 0.

    Warm-up reaches the peak in step `warmup_steps - 1`; the decay reaches `minimum_ratio * peak`
    in the last step. WSD (warm-up, stable, decay): Hu et al. 2024, arXiv:2404.06395.

    Args:
        peak: highest learning rate.
        num_steps: length of the training, where `schedule.decay_steps` is 0.
    """
    last = (schedule.decay_steps or num_steps) - 1
    if step < schedule.warmup_steps:
        return peak * (step + 1) / schedule.warmup_steps
    floor = peak * schedule.minimum_ratio
    if schedule.kind == "constant":
        return peak
    if schedule.kind == "cosine":
        start = schedule.warmup_steps
        shape = 0.5 * (1 + math.cos(math.pi * _progress(step, start, last)))
    else:
        length = round(schedule.decay_fraction * (last + 1))
        if step <= last - length or length == 0:
            return peak
        start = max(schedule.warmup_steps, last - length)
        shape = 1 - _progress(step, start, last)
    return floor + (peak - floor) * shape


def _progress(step: int, start: int, last: int) -> float:
    if step >= last:
        return 1.0
    return max(0.0, (step - start) / (last - start))


class BatchSizes:
    """Which samples of the blend each step takes: step after step, without a gap.

    While the batch warms up, its size is 1, 2, 3, ... times the initial size, by the samples
    consumed. No step crosses a multiple of the final size, where phases of the blend may begin.

    Args:
        final: samples of a step after the warm-up.
        initial: samples of the first step, a divisor of `final`; 0: no warm-up.
        warmup_samples: samples over which the size grows.
    """

    def __init__(self, final: int, initial: int = 0, warmup_samples: int = 0) -> None:
        self._final = final
        self._starts = [0]
        initial = initial or final
        increments = final // initial
        while self._starts[-1] < warmup_samples or self._starts[-1] % final:
            start = self._starts[-1]
            factor = 1 + start * (increments - 1) // max(1, warmup_samples)
            size = min(factor, increments) * initial
            self._starts.append(start + min(size, final - start % final))

    def first_sample(self, step: int) -> int:
        """Return the first sample of `step`: so many were consumed by the steps before it."""
        last = len(self._starts) - 1
        if step <= last:
            return self._starts[step]
        return self._starts[last] + (step - last) * self._final

    def size(self, step: int) -> int:
        """Return the samples of `step`."""
        return self.first_sample(step + 1) - self.first_sample(step)


def batch_sizes(config: PretrainConfig) -> BatchSizes:
    """Return the batch sizes that a config asks for."""
    training = config.training
    warmup = -(-training.batch_warmup_tokens // config.data.sequence_length)
    return BatchSizes(training.global_batch_size, training.initial_batch_size, warmup)


def num_samples(config: PretrainConfig) -> int:
    """Return the samples of the whole training."""
    return batch_sizes(config).first_sample(config.training.num_steps)
