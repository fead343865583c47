"""The same names as the public kernels, written to be read: plain Python integers, sets and lists.

They say what a kernel must return. They are slow; tests and readers use them, and `indexed_dataset`
for one position at a time (`permute_position`), where compiling would cost more.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .. import PUBLIC_KERNELS

__all__ = list(PUBLIC_KERNELS)


def __getattr__(name: str) -> Any:
    module = PUBLIC_KERNELS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{module}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
