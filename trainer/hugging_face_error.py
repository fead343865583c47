"""The one error about folders of transformers."""

from __future__ import annotations


class HuggingFaceError(ValueError):
    """A Hugging Face folder that cannot be read, or a model that has no counterpart there."""
