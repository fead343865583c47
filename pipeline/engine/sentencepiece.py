"""A BPE tokenizer.json that replaces spaces by U+2581 flows in, tables for its kernel flow out.

The three shapes in use:

    Llama 2   normalizer Prepend "▁", Replace " " by "▁"; no pre-tokenizer
    Gemma     normalizer Replace " " by "▁"; Split " ", which by then never matches
    Mistral   no normalizer; pre-tokenizer Metaspace
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.jit import as_readonly
from ...kernels.tokenizer import sentencepiece
from ...kernels.tokenizer.code_points import fold
from ...kernels.tokenizer.merges import ID_BITS, NO_RANK, insert_pairs
from ...kernels.tokenizer.piece_merges import new_scratch
from ...kernels.tokenizer.sentencepiece import META, SentencePieceTables, encode_sentencepiece
from .memory import huge_zeros
from .unsupported import UnsupportedError
from .word_state import WordState

_META = chr(META)
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _META}
_PREPEND = {"type": "Prepend", "prepend": _META}
_NEVER_SPLITS = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
_NUM_CODE_POINTS = 0x110000


@dataclass(frozen=True)
class SentencePieceModel:
    """Encodes segments; see `Model` of frame.py."""

    tables: SentencePieceTables
    normalizer: None = None
    expansion: int = 1
    cuts: str | None = None

    def new_state(self) -> WordState:
        """Return a worker's memo and scratch."""
        return WordState(lambda size: new_scratch(size + 2))

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
        """Encode segments with the kernel `encode_sentencepiece`."""
        return encode_sentencepiece(
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


def compile_model(config: dict[str, Any], vocabulary: dict[str, int]) -> SentencePieceModel | None:
    """Make the model of a configuration as `tokenizers` prints it (`to_str`).

    Returns None if it is not a BPE over U+2581.

    Raises:
        UnsupportedError: it is one, with a feature that the kernel does not reproduce.
    """
    model = config["model"]
    if model["type"] != "BPE":
        return None
    found = _prefix_and_split(config)
    if found is None:
        return None
    prefix, splits = found
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model[key]:
            raise UnsupportedError(f"{key} of BPE")
    if max(vocabulary.values()) >= (1 << ID_BITS) - 1 or len(model["merges"]) >= NO_RANK:
        raise UnsupportedError("more ids or merges than the tables have room for")
    if _META not in vocabulary:
        raise UnsupportedError("a vocabulary without U+2581")
    if any(token["normalized"] for token in config["added_tokens"]):
        raise UnsupportedError("added tokens with normalized=true beside a normalizer")
    merges = [tuple(merge) for merge in model["merges"]]
    byte_ids = [vocabulary.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    fallback = bool(model["byte_fallback"])
    if fallback and min(byte_ids) < 0:
        if max(byte_ids) >= 0:
            raise UnsupportedError("byte_fallback with some byte tokens missing")
        fallback = False
    unknown = vocabulary.get(model["unk_token"] or "", -1)
    if not fallback and unknown < 0:
        raise UnsupportedError("BPE with neither byte_fallback nor an unknown token")
    _check_atoms(merges, set(byte_ids) if fallback else {unknown}, vocabulary, fallback)
    if model.get("ignore_merges"):
        raise UnsupportedError("ignore_merges of a BPE over U+2581")
    return SentencePieceModel(
        _make_tables(
            vocabulary,
            merges,
            np.array(byte_ids if fallback else [-1] * 256, np.int32),
            [unknown, int(model["fuse_unk"] and not fallback), prefix, int(splits)],
            splits,
        )
    )


def _prefix_and_split(config: dict[str, Any]) -> tuple[int, bool] | None:
    """Return (prefix mode, whether each U+2581 begins a piece); None: not of this kind."""
    normalizer, pre_tokenizer = config["normalizer"], config["pre_tokenizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    if pre_tokenizer is not None and pre_tokenizer["type"] == "Metaspace":
        if pre_tokenizer["replacement"] != _META:
            raise UnsupportedError(f"Metaspace with {pre_tokenizer['replacement']!r}")
        modes = {
            "never": sentencepiece.PREFIX_NEVER,
            "always": sentencepiece.PREFIX_UNLESS_META,
            "first": sentencepiece.PREFIX_FIRST_UNLESS_META,
        }
        if not steps:
            return modes[pre_tokenizer["prepend_scheme"]], pre_tokenizer["split"]
        if steps == [_REPLACE]:
            return modes[pre_tokenizer["prepend_scheme"]], pre_tokenizer["split"]
        raise UnsupportedError("Metaspace after " + ", ".join(step["type"] for step in steps))
    if pre_tokenizer in (None, _NEVER_SPLITS):
        if steps == [_REPLACE]:
            return sentencepiece.PREFIX_NEVER, False
        if steps in ([_PREPEND, _REPLACE], [_REPLACE, _PREPEND]):
            return sentencepiece.PREFIX_ALWAYS, False
    return None


def _check_atoms(
    merges: list[tuple[str, ...]], atoms: set[int], vocabulary: dict[str, int], fallback: bool
) -> None:
    """Refuse merges of what stands for characters outside the vocabulary: cuts rely on it."""
    for left, right in merges:
        if vocabulary[left] in atoms or vocabulary[right] in atoms:
            raise UnsupportedError("merges of byte tokens or of the unknown token")
        if not fallback and vocabulary[left + right] in atoms:
            raise UnsupportedError("an unknown token that merges can spell")
    if not fallback and any(len(c) == 1 and i in atoms for c, i in vocabulary.items()):
        raise UnsupportedError("an unknown token of one character")


def _make_tables(
    vocabulary: dict[str, int],
    merges: list[tuple[str, ...]],
    byte_ids: NDArray[np.int32],
    settings: list[int],
    splits: bool,
) -> SentencePieceTables:
    characters = np.full(_NUM_CODE_POINTS, -1, np.int32)
    for text, number in vocabulary.items():
        if len(text) == 1:
            characters[ord(text)] = number
    characters[ord(" ")] = characters[META]
    stage1, blocks = fold(characters)
    joined_ascii, joined = _joined_tables(merges, splits)
    left = np.array([vocabulary[a] for a, _ in merges], np.int32)
    right = np.array([vocabulary[b] for _, b in merges], np.int32)
    merged = np.array([vocabulary[a + b] for a, b in merges], np.int32)
    pairs = huge_zeros(1 << max(4, (2 * len(merges)).bit_length()), np.uint64)
    pairs[:] = 0xFFFFFFFFFFFFFFFF
    insert_pairs(pairs, left, right, np.arange(len(merges), dtype=np.int32))
    return SentencePieceTables(
        as_readonly(stage1, np.uint16),
        as_readonly(blocks, np.int32),
        as_readonly(joined_ascii, np.uint64),
        as_readonly(joined, np.uint64),
        as_readonly(pairs, np.uint64),
        as_readonly(merged, np.int32),
        as_readonly(byte_ids, np.int32),
        as_readonly(np.array(settings), np.int64),
    )


def _joined_tables(
    merges: list[tuple[str, ...]], splits: bool
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Mark all pairs of characters that stand side by side in a merge's result.

    With `splits` (Metaspace with split=true) U+2581 begins a piece: there is a cut before each.
    """
    found: set[tuple[str, str]] = set()
    for text in set(map("".join, merges)):
        found.update(itertools.pairwise(text))
    spelled = {
        (ord(a), ord(b))
        for x, y in found
        if not (splits and y == _META)
        for a in ((x, " ") if x == _META else (x,))
        for b in ((y, " ") if y == _META else (y,))
    }
    joined_ascii = np.zeros(256, np.uint64)
    for x, y in spelled:
        if x < 128 and y < 128:
            joined_ascii[2 * x + (y >> 6)] |= np.uint64(1 << (y & 63))
    joined = np.zeros(sentencepiece.JOINED_BITS // 64, np.uint64)
    pairs = np.array(sorted(spelled), np.int64).reshape(-1, 2)
    sentencepiece.mark_joined(pairs[:, 0].copy(), pairs[:, 1].copy(), joined)
    return joined_ascii, joined
