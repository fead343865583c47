"""Ids of byte-level tokens in; the bytes of the text that each comes from out.

The tokens of a byte-level tokenizer are strings of bytes, one after the other the text itself,
unless something was normalized away or an added token swallowed the spaces beside it. Whether it is
so is compared for every document, so that a place is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .token_bytes import byte_level_alphabet


class BytePlaces:
    """The bytes of each token of a byte-level tokenizer.

    Args:
        tokenizer_json: the parsed file.
        vocab_size: one more than the largest id.
    """

    def __init__(self, tokenizer_json: Mapping[str, Any], vocab_size: int) -> None:
        tokens = [b""] * vocab_size
        alphabet = byte_level_alphabet()
        for token, number in tokenizer_json["model"]["vocab"].items():
            known = [alphabet.get(character) for character in token]
            tokens[number] = bytes(byte for byte in known if byte is not None)
            if len(tokens[number]) < len(token):  # not made of bytes
                tokens[number] = token.encode()
        for added in tokenizer_json.get("added_tokens") or []:
            tokens[added["id"]] = added["content"].encode()
        self._sizes = np.array([len(token) for token in tokens], np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._data = np.frombuffer(b"".join(tokens), np.uint8)

    @staticmethod
    def are_known(tokenizer_json: Mapping[str, Any]) -> bool:
        """Say whether a tokenizer is byte-level."""
        steps = str(tokenizer_json.get("pre_tokenizer")) + str(tokenizer_json.get("decoder"))
        return "'ByteLevel'" in steps and isinstance(tokenizer_json["model"].get("vocab"), dict)

    def ends(
        self,
        ids: NDArray[Any],
        bounds: NDArray[np.int64],
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return where each token ends in its document, and which documents that holds for.

        Args:
            ids: integer[num_tokens], of all documents.
            bounds: int64[num_documents + 1], where each document's tokens begin.
            data: uint8[num_bytes], their text.
            offsets: int64[num_documents + 1], where each text begins.

        Returns:
            ends: int64[num_tokens], the byte of the document after the token's last.
            is_exact: bool[num_documents], the tokens' bytes are those of the text.
        """
        sizes = self._sizes[ids]
        ends = np.cumsum(sizes)
        before = np.concatenate([[0], ends])[bounds]
        spelled = np.repeat(self._starts[ids] - (ends - sizes), sizes) + np.arange(sizes.sum())
        written = self._data[spelled]
        is_exact = np.diff(before) == np.diff(offsets)
        for number in np.flatnonzero(is_exact).tolist():
            text = data[offsets[number] : offsets[number + 1]]
            is_exact[number] = np.array_equal(written[before[number] : before[number + 1]], text)
        return ends - np.repeat(before[:-1], np.diff(bounds)), is_exact
