"""What the engine does not reproduce has a name, which flows to the log line that delegates."""

from __future__ import annotations


class UnsupportedError(Exception):
    """A tokenizer.json has a feature that the engine does not reproduce; the message names it."""
