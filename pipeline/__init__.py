"""Text in, indexed datasets out: read, clean, dedup, tokenize, pack.

Files in the order of the flow: config, documents (the schemas), language, sources, clean, dedup,
train_tokenizer, tokenizer, tokenize, pack; recipe runs them. (No file has the
name of a public function: the imported module would hide the function.) The names below are loaded
when first used, so that `gristmill --help` imports neither Arrow nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import PreprocessConfig as PreprocessConfig
    from .plan import plan_preprocess as plan_preprocess
    from .recipe import preprocess as preprocess
    from .report import Report as Report
    from .report_pages import make_pages as make_pages
    from .similarity import jaccard as jaccard
    from .similarity import shingles as shingles
    from .tokenize_inputs import tokenize_files as tokenize_files
    from .tokenizer import Tokenizer as Tokenizer

_HOMES = {
    "PreprocessConfig": "config",
    "Report": "report",
    "Tokenizer": "tokenizer",
    "jaccard": "similarity",
    "make_pages": "report_pages",
    "plan_preprocess": "plan",
    "preprocess": "recipe",
    "shingles": "similarity",
    "tokenize_files": "tokenize_inputs",
}

__all__ = [
    "PreprocessConfig",
    "Report",
    "Tokenizer",
    "jaccard",
    "make_pages",
    "plan_preprocess",
    "preprocess",
    "shingles",
    "tokenize_files",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
