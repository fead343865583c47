"""A tokenizer.json in; its special tokens, its mask token and where words begin out.

Read as JSON: nothing is encoded here. What a word is follows from the kind of tokenizer:

    WordPiece        a token that begins with ## goes on with the word before it
    byte-level BPE   one that begins with a letter, digit or inner byte of a character does; with a
                     space (Ġ), a line end or punctuation begins a new one
    SentencePiece    the same, with ▁ for the space

In scripts that are written without spaces (Han, Kana, Thai, Lao, Khmer, Burmese) every token
begins a word, as BERT's tokenizer has every Han character a word of its own: else a whole sentence
would be one.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MASK_TOKEN = "[MASK]"
"""Text of the mask token of models whose tokenizer has none, once they are exported."""
_RESERVED = re.compile(r"<\|reserved_\d+\|>")
"""Special tokens without a meaning, of tokenizers trained here; the chat templates take the first
ones, masks the last one."""
_KNOWN_MASK_TOKENS = ("[MASK]", "<mask>", "<|mask|>", "<MASK>")
_WITHOUT_SPACES = (  # first and last code points
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x312F),  # CJK radicals, Hiragana, Katakana, Bopomofo
    (0x31A0, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_LEADS_WITHOUT_SPACES = (*range(0xE3, 0xEA), 0xF0)
"""First bytes, of tokens that hold no whole character, which are mostly Han or Kana."""


@dataclass(frozen=True, slots=True)
class MaskingVocabulary:
    """What masks need to know of a vocabulary."""

    special: NDArray[np.bool_]
    """bool[vocab_size]: special tokens, the mask token and the end of a document."""
    continues: NDArray[np.bool_] | None
    """bool[vocab_size]: ids that go on with a word; None: it was not asked for."""
    mask_id: int
    """Id of the mask token; vocab_size if the tokenizer has none, nor a reserved one."""


def masking_vocabulary(
    folder: Path | None,
    vocab_size: int,
    eod_id: int | None,
    *,
    mask_token: str = "",
    whole_words: bool = False,
) -> MaskingVocabulary:
    """Return which ids are special, which go on with a word, and the mask token.

    Args:
        folder: of the tokenizer; None: nothing is special but `eod_id`.
        vocab_size: ids of the data.
        mask_token: its text; empty: a well-known one, a reserved one, else an id of its own.
        whole_words: whether it is to be known which ids go on with a word.

    Raises:
        ValueError: no such mask token; whole words of an unknown tokenizer.
    """
    path = folder / "tokenizer.json" if folder else None
    values: dict[str, Any] = {}
    if path is not None and path.is_file():
        values = json.loads(path.read_bytes())
    elif whole_words or mask_token:
        asked = "masking.whole_words" if whole_words else f"masking.mask_token = {mask_token!r}"
        raise ValueError(
            f"{asked} is set, but the data has no tokenizer.json beside it, which would say what a "
            "word or a token's text is. Leave it out, or make the data with gristmill preprocess"
        )
    added = {token["content"]: token for token in values.get("added_tokens") or []}
    ids = {text: int(token["id"]) for text, token in added.items()}
    vocabulary = _vocabulary(values)
    special = {int(token["id"]) for token in added.values() if token.get("special")}
    special |= {number for number in (eod_id,) if number is not None}
    mask_id = _mask_id({**vocabulary, **ids}, mask_token, vocab_size, path)
    continuing: set[int] = set()
    if whole_words:
        goes_on = _continues(values)
        continuing = {number for text, number in vocabulary.items() if goes_on(text)}
    return MaskingVocabulary(
        _these(special | {mask_id}, vocab_size),
        _these(continuing, vocab_size) if whole_words else None,
        mask_id,
    )


def _these(ids: set[int], vocab_size: int) -> NDArray[np.bool_]:
    """Return bool[vocab_size], true for `ids`, those beyond the vocabulary left out."""
    return np.isin(np.arange(vocab_size), list(ids))


def token_text(path: Path, number: int | None) -> str | None:
    """Return the text of an id in a tokenizer.json, special tokens and others alike."""
    values = json.loads(path.read_bytes())
    for token in values.get("added_tokens") or []:
        if token["id"] == number:
            return str(token["content"])
    vocabulary = values["model"].get("vocab", {})
    if isinstance(vocabulary, dict):
        return next((text for text, own in vocabulary.items() if own == number), None)
    known = number is not None and number < len(vocabulary)
    return str(vocabulary[number][0]) if known else None


def name_mask_token(path: Path, mask_id: int) -> str:
    """Return the text of the mask token of a tokenizer.json.

    A reserved token is renamed there; where there is none, the token is added.
    """
    text = token_text(path, mask_id)
    if text is not None and not _RESERVED.fullmatch(text):
        return text
    values = json.loads(path.read_bytes())
    shape = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    token = {"id": mask_id, "content": MASK_TOKEN, **shape, "special": True}
    others = [other for other in values.get("added_tokens") or [] if other["id"] != mask_id]
    values["added_tokens"] = sorted([*others, token], key=lambda one: int(one["id"]))
    vocabulary = values["model"].get("vocab")
    if isinstance(vocabulary, dict) and text in vocabulary:
        values["model"]["vocab"] = {
            MASK_TOKEN if word == text else word: number for word, number in vocabulary.items()
        }
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2), encoding="utf-8")
    return MASK_TOKEN


def _mask_id(ids: Mapping[str, int], asked: str, vocab_size: int, path: Path | None) -> int:
    if asked:
        if asked not in ids:
            raise ValueError(
                f"masking.mask_token = {asked!r} is no token of {path}. Name one of its tokens, or "
                "leave it empty: then one is added to the model"
            )
        return ids[asked]
    known = next((ids[text] for text in _KNOWN_MASK_TOKENS if text in ids), None)
    reserved = [number for text, number in ids.items() if _RESERVED.fullmatch(text)]
    return max(reserved, default=vocab_size) if known is None else known


def _vocabulary(values: Mapping[str, Any]) -> dict[str, int]:
    """Return text -> id of the model's own tokens; Unigram lists them in the order of their ids."""
    vocabulary = values.get("model", {}).get("vocab", {})
    if isinstance(vocabulary, dict):
        return vocabulary
    return {text: number for number, (text, _) in enumerate(vocabulary)}


def _continues(values: Mapping[str, Any]) -> Any:
    """Return the function that says of a token's text whether it goes on with a word."""
    model = values["model"]
    if model.get("type") == "WordPiece" or model.get("continuing_subword_prefix"):
        prefix = model.get("continuing_subword_prefix") or "##"
        return lambda text: text.startswith(prefix)
    if '"ByteLevel"' in json.dumps([values.get("pre_tokenizer"), values.get("decoder")]):
        letters = _bytes_of_letters()
        return lambda text: _goes_on(bytes(letters[c] for c in text if c in letters))
    return lambda text: _goes_on(_sentencepiece_bytes(text))


def _sentencepiece_bytes(text: str) -> bytes:
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("▁", " ").encode()


def _goes_on(data: bytes) -> bool:
    if not data:
        return False
    first = data[0]
    if 0x80 <= first < 0xC0:  # inside of a character
        return True
    length = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if len(data) < length:
        return first not in _LEADS_WITHOUT_SPACES
    character = data[:length].decode(errors="replace")
    if any(low <= ord(character) <= high for low, high in _WITHOUT_SPACES):
        return False
    # Marks are no letters, but stand inside of words (as vowel signs do).
    return character.isalnum() or unicodedata.category(character).startswith("M")


def _bytes_of_letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for (GPT-2's table)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(0x100 + number): byte for number, byte in enumerate(hidden)}
