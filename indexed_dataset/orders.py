"""What an order of samples is: a sample's number in, the token ranges that make the sample out.

An order decides which tokens a sample has, and nothing else: it reads no file. `samples.py` reads
the tokens and makes labels, masks and document bounds of them, in the same way for every order:

    stable      one window, or two where it passes the end of the ring  (`stable.py`)
    best_fit    a bin of whole documents  (`best_fit.py`)
    megatron    the pieces of shuffled documents that Megatron joins  (`megatron_order.py`)
    sequential  one window, the first with an end-of-document token before it  (`sequential.py`)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

Span = tuple[int, int]
"""Tokens [start, stop) of a split, at least one."""

EOD_BEFORE_SPLIT: Span = (-1, 0)
"""The end-of-document token that the first token of the split is predicted from."""


class SampleOrder(Protocol):
    """The places of all samples of one split; equal orders of equal data give equal samples."""

    @property
    def identity(self) -> str:
        """Name and version, and what else the order depends on, the data left aside."""
        ...

    @property
    def samples_per_epoch(self) -> int:
        """Samples until every token was given once, or as near as the order comes to it."""
        ...

    @property
    def max_samples(self) -> int | None:
        """How many samples there are; None: without end, epoch after epoch."""
        ...

    @property
    def num_scored_tokens(self) -> int:
        """Labels of one epoch that count, with joined documents."""
        ...

    @property
    def spans_are_documents(self) -> bool:
        """Whether no span reaches over the start of a document, so that none is looked for."""
        ...

    def spans(self, position: int) -> Sequence[Span]:
        """Return the tokens of sample `position`, in [0, max_samples), one range after the other.

        They have n tokens, 1 to S + 1. The first n - 1 labels are scored, each the token after its
        token; what is missing to S is padding. Every span but the first starts a document; where
        else documents start inside of spans, the index of the data knows.
        """
        ...
