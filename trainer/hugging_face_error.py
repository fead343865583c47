"""The one error about folders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class HuggingFaceError(ValueError):
    """A Hugging Face folder that cannot be read, or a model that has no counterpart there."""


def require(values: Mapping[str, Any], where: str, key: str, allowed: tuple[Any, ...]) -> None:
    """Refuse a setting that asks for another computation; a missing one is the first allowed."""
    found = values.get(key, allowed[0])
    if found not in allowed:
        raise HuggingFaceError(
            f"{where} has {key} = {found!r}, which gristmill does not compute: it needs "
            f"{' or '.join(map(repr, allowed))}"
        )
