"""Step in, learning rate out: pure functions, so that a resumed run needs no state for them."""

from __future__ import annotations

import math

from .config import ScheduleConfig


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
