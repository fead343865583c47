"""A Unigram tokenizer.json flows in, tables for its kernel and its normalizer flow out.

Pre-tokenizers in use: `Metaspace` (XLM-R, ALBERT, T5 as converted today), or `WhitespaceSplit`
before it (T5, XLM-R as converted once).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.jit import as_readonly
from ...kernels.tokenizer import unigram
from ...kernels.tokenizer.trie import build_trie, child
from ...kernels.tokenizer.unigram import UnigramTables, encode_unigram, new_path
from .text_rules import TextNormalizer, compile_normalizer
from .unsupported import UnsupportedError
from .word_state import WordState

_UNKNOWN_PENALTY = 10.0
_PREFIXES = {
    "never": unigram.PREFIX_NEVER,
    "always": unigram.PREFIX_ALWAYS,
    "first": unigram.PREFIX_FIRST,
}


@dataclass(frozen=True)
class UnigramModel:
    """Encodes segments; see `Model` of frame.py."""

    tables: UnigramTables
    normalizer: TextNormalizer | None
    expansion: int = 1
    cuts: str | None = None

    def new_state(self) -> WordState:
        """Return a worker's memo and scratch."""
        return WordState(lambda size: new_path(size + 1))

    def encode_segments(
        self,
        data: NDArray[np.uint8],
        starts: NDArray[np.int64],
        ends: NDArray[np.int64],
        tokens: NDArray[np.int32],
        first: NDArray[np.uint8],
        state: WordState,
        out: NDArray[np.int32],
        segment_ids: NDArray[np.int64],
    ) -> int:
        """Encode normalized segments with the kernel `encode_unigram`."""
        return encode_unigram(
            data,
            starts,
            ends,
            tokens,
            first,
            self.tables,
            state.memo,
            state.batch,
            state.scratch(starts, ends),
            out,
            segment_ids,
        )


def compile_model(config: dict[str, Any], vocabulary: dict[str, int]) -> UnigramModel | None:
    """Make the model of a configuration as `tokenizers` prints it (`to_str`).

    Returns None if it is not Unigram.

    Raises:
        UnsupportedError: it is, with a feature that the kernels do not reproduce.
    """
    model = config["model"]
    if model["type"] != "Unigram":
        return None
    unknown = model["unk_id"]
    if unknown is None:
        raise UnsupportedError("Unigram without an unknown token")
    prefix, split, meta_splits = _pieces(config["pre_tokenizer"])
    normalizer = compile_normalizer(config["normalizer"])
    if prefix == unigram.PREFIX_FIRST and normalizer is not None:
        raise UnsupportedError('Metaspace with prepend_scheme "first" after a normalizer')
    scores = np.array([score for _, score in model["vocab"]], np.float64)
    byte_ids = np.full(256, -1, np.int32)
    if model["byte_fallback"]:
        byte_ids[:] = [vocabulary.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    try:
        trie = build_trie(vocabulary)
    except ValueError as error:
        raise UnsupportedError(str(error)) from error
    if not np.isfinite(scores).all():
        raise UnsupportedError("Unigram with scores that are no numbers")
    roots = np.full(0x110000, -1, np.int32)
    for character in {text[0] for text in vocabulary if text}:
        roots[ord(character)] = child(trie.edges, 0, ord(character))
    node_scores = np.where(trie.ids >= 0, scores[trie.ids], -np.inf)
    return UnigramModel(
        UnigramTables(
            as_readonly(roots, np.int32),
            trie.edges,
            trie.ids,
            as_readonly(np.append(node_scores, scores.min() - _UNKNOWN_PENALTY), np.float64),
            as_readonly(byte_ids, np.int32),
            as_readonly(np.array([unknown, prefix, split, meta_splits, trie.num_inner]), np.int64),
        ),
        normalizer,
    )


def _pieces(pre_tokenizer: dict[str, Any] | None) -> tuple[int, int, bool]:
    """Return (prefix mode, split mode, whether each U+2581 begins a piece)."""
    if pre_tokenizer is None:
        raise UnsupportedError("Unigram without Metaspace")
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = [step["type"] for step in steps]
    if kinds not in (["Metaspace"], ["WhitespaceSplit", "Metaspace"]):
        raise UnsupportedError("Unigram after " + ", ".join(kinds))
    metaspace = steps[-1]
    if metaspace["replacement"] != chr(unigram.META):
        raise UnsupportedError(f"Metaspace with {metaspace['replacement']!r}")
    prefix = _PREFIXES[metaspace["prepend_scheme"]]
    if len(steps) == 2:
        return prefix, unigram.SPLIT_SPACES, metaspace["split"]
    return prefix, unigram.SPLIT_META if metaspace["split"] else unigram.SPLIT_NOWHERE, True
