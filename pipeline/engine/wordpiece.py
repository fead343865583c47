"""A WordPiece tokenizer.json with BERT's normalizer flows in, tables for its kernel flow out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.jit import as_readonly
from ...kernels.tokenizer import wordpiece
from ...kernels.tokenizer.classes import load_unicode
from ...kernels.tokenizer.code_points import fold
from ...kernels.tokenizer.trie import build_trie, child
from ...kernels.tokenizer.wordpiece import WordPieceTables, encode_wordpiece
from .unsupported import UnsupportedError
from .word_state import WordState

_MOST_CHARACTERS = 4096
_CHINESE = (  # as BERT lists them: no Chinese block that Unicode added since
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


@dataclass(frozen=True)
class WordPieceModel:
    """Encodes segments; see `Model` of frame.py."""

    tables: WordPieceTables
    normalizer: None = None
    expansion: int = 3
    cuts: str | None = None

    def new_state(self) -> WordState:
        """Return a worker's memo and scratch."""
        most = int(self.tables.settings[1])
        return WordState(lambda size: np.zeros(most + 8, np.int32))

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
        """Encode segments with the kernel `encode_wordpiece`."""
        return encode_wordpiece(
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


def compile_model(config: dict[str, Any], vocabulary: dict[str, int]) -> WordPieceModel | None:
    """Make the model of a configuration as `tokenizers` prints it (`to_str`).

    Returns None if it is not WordPiece.

    Raises:
        UnsupportedError: it is, with a feature that the kernel does not reproduce.
    """
    model = config["model"]
    if model["type"] != "WordPiece":
        return None
    normalizer, pre_tokenizer = config["normalizer"], config["pre_tokenizer"]
    if normalizer is None or normalizer["type"] != "BertNormalizer":
        raise UnsupportedError("WordPiece without BertNormalizer")
    if pre_tokenizer is None or pre_tokenizer["type"] != "BertPreTokenizer":
        raise UnsupportedError("WordPiece without BertPreTokenizer")
    if any(token["normalized"] for token in config["added_tokens"]):
        raise UnsupportedError("added tokens with normalized=true beside BertNormalizer")
    most = model["max_input_chars_per_word"]
    if most > _MOST_CHARACTERS:
        raise UnsupportedError(f"max_input_chars_per_word above {_MOST_CHARACTERS}")
    if model["unk_token"] not in vocabulary:
        raise UnsupportedError("WordPiece without its unknown token")
    unknown = vocabulary[model["unk_token"]]
    trie = build_trie(vocabulary)
    prefix = model["continuing_subword_prefix"]
    later = 0
    for character in prefix:
        later = later if later < 0 else child(trie.edges, later, ord(character))
    kinds, mapped = _character_tables(normalizer, vocabulary, unknown, most)
    stage1, blocks = fold(kinds)
    return WordPieceModel(
        WordPieceTables(
            as_readonly(stage1, np.uint16),
            as_readonly(blocks, np.int32),
            as_readonly(mapped, np.int32),
            trie.edges,
            trie.ids,
            as_readonly(np.array([unknown, most, later]), np.int64),
        )
    )


@cache
def load_bert() -> dict[str, NDArray[Any]]:
    """Return all arrays of bert.npz; see probe_bert.py."""
    with np.load(Path(wordpiece.__file__).with_name("bert.npz")) as file:
        return {name: file[name] for name in file.files}


def _character_tables(
    normalizer: dict[str, Any], vocabulary: dict[str, int], unknown: int, most: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return (kinds: int32[0x110000], mapped), as WordPieceTables has them."""
    facts = load_bert()
    strips = normalizer["strip_accents"]
    strips = normalizer["lowercase"] if strips is None else strips
    results: dict[int, tuple[int, ...]] = {}
    if strips:
        results = _rows(facts["stripped"])
    if normalizer["lowercase"]:
        lowered = _rows(facts["lowered"])
        results = lowered | {
            c: tuple(d for part in text for d in lowered.get(part, (part,)))
            for c, text in results.items()
        }
    isolated = set(facts["isolated"].tolist())
    spaces = set(facts["removed"].tolist())
    combining = np.zeros(0x110000, np.int64)
    if strips:  # only their order matters, and these numbers fit in seven bits
        combining = np.unique(load_unicode()["combining"], return_inverse=True)[1].reshape(-1)
    chinese = np.zeros(0x110000, bool)
    if normalizer["handle_chinese_chars"]:
        for low, high in _CHINESE:
            chinese[low : high + 1] = True
    kinds = np.zeros(0x110000, np.int32)
    mapped: list[int] = []
    entries: dict[tuple[int, ...], int] = {}

    def put(entry: tuple[int, ...]) -> int:
        if entry not in entries:
            entries[entry] = len(mapped)
            mapped.extend(entry)
        return entries[entry] << wordpiece.KIND_BITS | wordpiece.MAPPED

    def alone(code_point: int) -> int:
        number = vocabulary.get(chr(code_point), unknown) if most >= 1 else unknown
        return number << wordpiece.KIND_BITS | wordpiece.ALONE

    starters = _starters(combining) if strips else None
    special = set(results) | isolated | spaces | set(np.flatnonzero(chinese).tolist())
    special |= set(np.flatnonzero(combining).tolist())
    for c in special:
        text = results.get(c, (c,))
        if len(text) == 1 and text[0] in spaces:
            kinds[c] = wordpiece.SPACE
        elif len(text) == 1 and (chinese[c] or text[0] in isolated):
            kinds[c] = alone(text[0])
        elif any(part in spaces or part in isolated for part in text) or chinese[c]:
            raise UnsupportedError(f"U+{c:04X}, which BertNormalizer makes several words of")
        elif text != (c,) or combining[c]:
            starter = wordpiece.STARTER if starters is not None and starters[c] else 0
            parts = [int(combining[part]) << 24 | part for part in text]
            kinds[c] = put((len(text) | starter, *parts))
    if normalizer["clean_text"]:
        nothing = put((0,))
        for low, high, result in facts["cleaned"].tolist():
            kinds[low : high + 1] = nothing if result < 0 else wordpiece.SPACE
    return kinds, np.array(mapped, np.int32)


def _starters(combining: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which code points decompose into something with combining class 0."""
    starters: NDArray[np.bool_] = combining == 0
    for row in load_unicode()["decomposed"].tolist():
        starters[row[0]] = any(part and combining[part] == 0 for part in row[1:])
    return starters


def _rows(table: NDArray[np.int32]) -> dict[int, tuple[int, ...]]:
    return {row[0]: tuple(c for c in row[1:] if c >= 0) for row in table.tolist()}
