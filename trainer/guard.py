"""Loss and gradient norm of each step in, whether it is taken out.

A step is skipped, as if it had not been, when its loss or norm is no finite number, or its norm is
above `spike_factor` times the median of the norms of the last taken steps. All ranks have the same
numbers and decide alike; the decision is made on the device, which nobody has to wait for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .config import OptimizerConfig

_REMEMBERED = 64
_MIDDLE = _REMEMBERED // 2


class TrainingDivergedError(ValueError):
    """Too many steps in a row were not worth taking."""


class Guard:
    """Judges steps; knows the norms of the last 64 taken ones.

    Args:
        norms: those of the steps before, oldest first, when a training goes on.
        in_a_row: how many steps were skipped just before.
    """

    def __init__(
        self,
        config: OptimizerConfig,
        device: torch.device,
        norms: Sequence[float] = (),
        in_a_row: int = 0,
    ) -> None:
        self._factor = config.spike_factor
        self._most = config.max_skipped_steps
        self._in_a_row = in_a_row
        # Norms not known yet are infinite: the median is finite once more than half are known.
        known = [*(_REMEMBERED - len(norms)) * [torch.inf], *norms]
        self._norms = torch.tensor(known, dtype=torch.float64, device=device)

    def judge(self, loss: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """Return whether to skip the step, bool[], and remember its norm if not."""
        skip = ~(torch.isfinite(loss) & torch.isfinite(norm))
        if self._factor > 0:
            skip = skip | (norm > self._factor * self._norms.sort().values[_MIDDLE - 1])
        later = torch.cat([self._norms[1:], norm[None].double()])
        self._norms = torch.where(skip, self._norms, later)
        return skip

    def count(self, skipped: bool, loss: float, norm: float) -> None:
        """Count a judged step, when its numbers are known here.

        Raises:
            TrainingDivergedError: too many in a row were skipped.
        """
        self._in_a_row = self._in_a_row + 1 if skipped else 0
        if skipped and self._in_a_row > self._most:
            raise TrainingDivergedError(
                f"the loss is {loss}, the gradient's norm {norm}, and the {self._in_a_row - 1} "
                "steps before were skipped for such numbers too: the training has diverged. Lower "
                "optimizer.learning_rate or lengthen schedule.warmup_steps; the last checkpoint "
                "is from before or holds the last good weights"
            )

    def state(self) -> dict[str, object]:
        """Return what a checkpoint keeps: waits for the device."""
        norms = [norm for norm in self._norms.tolist() if norm != torch.inf]
        return {"norms": norms, "in_a_row": self._in_a_row}
