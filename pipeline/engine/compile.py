"""A tokenizer of `tokenizers` in, an engine that gives the same ids out, or the reason why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from . import byte_level, sentencepiece, unigram, wordpiece
from .added_tokens import build_tries
from .frame import Engine, Model
from .unsupported import UnsupportedError

FAMILIES: tuple[Callable[[dict[str, Any], dict[str, int]], Model | None], ...] = (
    byte_level.compile_model,
    sentencepiece.compile_model,
    wordpiece.compile_model,
    unigram.compile_model,
)
"""Each returns None for a model that is not of its kind."""


def compile_engine(tokenizer: Any, *, special_as_text: bool = False) -> Engine:
    """Return an engine that encodes as `tokenizer` (tokenizers.Tokenizer) does.

    Args:
        tokenizer: truncation, padding and dropout already reset.
        special_as_text: special tokens that a text spells out are text.

    Raises:
        UnsupportedError: the engine does not reproduce it; names the feature.
    """
    # The library's own normal form, not the file: ids that it really gave, resolved defaults.
    config = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    for compile_model in FAMILIES:
        model = compile_model(config, vocabulary)
        if model is not None:
            break
    else:
        raise UnsupportedError(f"the model {config['model']['type']}")
    normalizer = tokenizer.normalizer
    raw, normalized = build_tries(
        config["added_tokens"],
        normalizer.normalize_str if normalizer is not None else None,
        special_as_text,
    )
    before, after = _template(tokenizer)
    return Engine(model=model, raw=raw, normalized=normalized, before=before, after=after)


def _template(tokenizer: Any) -> tuple[Any, Any]:
    """Return the ids that the post-processor puts before and behind each text."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True)
    mask = whole.special_tokens_mask
    num_before = mask.index(0) if 0 in mask else len(mask)
    num_after = mask[::-1].index(0) if 0 in mask else 0
    before, after = whole.ids[:num_before], whole.ids[len(mask) - num_after :]
    if [*before, *plain, *after] != whole.ids:
        raise UnsupportedError("a post-processor that does more than to add ids at the ends")
    return np.array(before, np.int32), np.array(after, np.int32)
