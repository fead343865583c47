"""The order `sequential`, for evaluation: windows from the first token to the last.

Every token is a label exactly once, so a sum over all samples is a sum over the split. The last
window is padded. The first token is predicted from an end-of-document token where its id is known,
else it is context only.
"""

from __future__ import annotations

from dataclasses import dataclass

from .orders import EOD_BEFORE_SPLIT, Span


@dataclass(frozen=True, slots=True)
class SequentialOrder:
    """Places of the windows of one split.

    Example: 5 tokens, samples of 3, after an EOD: [(-1, 0), (0, 3)], then [(2, 5)].
    """

    num_tokens: int
    """T, at least 2, or 1 after an end-of-document token."""
    sequence_length: int
    """S, at least 1."""
    after_eod: bool
    """Whether the first token is predicted from an end-of-document token."""

    @property
    def identity(self) -> str:
        """There is nothing to choose."""
        return "sequential 1"

    @property
    def spans_are_documents(self) -> bool:
        """Windows take documents as they come."""
        return False

    @property
    def samples_per_epoch(self) -> int:
        """Samples until every token was scored."""
        return -(-self.num_scored_tokens // self.sequence_length)

    @property
    def max_samples(self) -> int:
        """There is one epoch only: no token is scored twice."""
        return self.samples_per_epoch

    @property
    def num_scored_tokens(self) -> int:
        """All tokens, without the first if it has no context."""
        return self.num_tokens - (not self.after_eod)

    def spans(self, position: int) -> tuple[Span, ...]:
        """Return the window of sample `position`, from its context token to its last label."""
        start = position * self.sequence_length - self.after_eod
        stop = min(start + self.sequence_length + 1, self.num_tokens)
        return ((start, stop),) if start >= 0 else (EOD_BEFORE_SPLIT, (0, stop))
