"""How many bytes of text each id stands for: a tokenizer's JSON in, int32[vocab_size] out.

Bits per byte needs the bytes of a text whose tokens alone are at hand. The counts are exact for
byte-level BPE (every token is a string of bytes) and for byte fallback; elsewhere they are the
bytes of the token as it is written, with a leading "##" taken off and "▁" counted as one space,
and what a normalizer takes away (case, accents, spaces) is not known to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def byte_level_alphabet() -> dict[str, int]:
    """Return the byte that each character of a byte-level token stands for (GPT-2's table).

    Printable Latin-1 bytes stand for themselves, the other 68 are U+0100 to U+0143 in order:
    a space (0x20) is U+0120 "Ġ", a line feed (0x0A) is U+010A "Ċ".
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if chr(byte) not in table)
    table.update({chr(0x100 + index): byte for index, byte in enumerate(others)})
    return table


def count_token_bytes(
    tokenizer_json: dict[str, Any], vocab_size: int, token_to_id: Callable[[str], int | None]
) -> NDArray[np.int32]:
    """Return int32[vocab_size]: bytes of each id; 0 for special tokens and ids without a token."""
    counts = np.zeros(vocab_size, np.int32)
    model = tokenizer_json["model"]
    count = _counter(tokenizer_json)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        for token, index in vocabulary.items():
            counts[index] = count(token)
    else:  # Unigram: pairs of a token and its score
        for index, (token, _) in enumerate(vocabulary):
            counts[index] = count(token)
    for added in tokenizer_json.get("added_tokens") or []:
        added_id = token_to_id(added["content"])
        if added_id is not None:
            counts[added_id] = 0 if added["special"] else len(added["content"].encode())
    unknown = model.get("unk_token")
    if isinstance(unknown, str) and unknown in vocabulary:
        counts[vocabulary[unknown]] = 0
    return counts


def _counter(tokenizer_json: dict[str, Any]) -> Callable[[str], int]:
    steps = str(tokenizer_json.get("pre_tokenizer")) + str(tokenizer_json.get("decoder"))
    if "'ByteLevel'" in steps:
        alphabet = byte_level_alphabet()

        def count_byte_level(token: str) -> int:
            if all(character in alphabet for character in token):
                return len(token)  # one character a byte
            return len(token.encode())

        return count_byte_level
    model = tokenizer_json["model"]
    byte_fallback = bool(model.get("byte_fallback"))
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""

    def count_text(token: str) -> int:
        if byte_fallback and _BYTE_TOKEN.fullmatch(token):
            return 1
        text = token.removeprefix(prefix).removesuffix(suffix)
        return len(text.replace("▁", " ").encode())

    return count_text
