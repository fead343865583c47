"""What a worker keeps between calls: a memo on huge pages, and scratch that grows when it must."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.tokenizer.memo import Batch, Memo, new_batch, new_memo
from .memory import huge_zeros


@dataclass(slots=True)
class WordState:
    """State of a model that remembers words."""

    make_scratch: Callable[[int], Any]
    """Returns scratch for segments of so many bytes."""
    memo: Memo = field(default_factory=lambda: new_memo(zeros=huge_zeros))
    batch: Batch = field(default_factory=new_batch)
    _scratch: Any = None
    _size: int = 0

    def scratch(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Any:
        """Return scratch for these segments."""
        size = int((ends - starts).max(initial=0))
        if self._scratch is None or size > self._size:
            self._size = max(size, 4096)
            self._scratch = self.make_scratch(self._size)
        return self._scratch
