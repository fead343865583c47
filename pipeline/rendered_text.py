"""One rendered conversation in; its token ids and the characters that each comes from, out.

Where a message spells a control token, the text is cut there and that piece is encoded without
added tokens, as transformers does when it sanitizes them (`sanitize_control_tokens`).
"""

from __future__ import annotations

from collections.abc import Sequence

from .chat_template import Span
from .tokenizer_facts import load_library
from .tokenizer_files import TokenizerFile

_BEFORE = "\n"
"""Stands before a piece while it is encoded: some tokenizers treat the start of a text apart."""


class RenderedTextEncoder:
    """Encodes rendered texts with the control tokens that the template wrote, and no others.

    Args:
        file: of the tokenizer.
    """

    def __init__(self, file: TokenizerFile) -> None:
        # Without a post-processor offsets are those of the tokens as they are, spaces included.
        self._library = load_library(file, False, without_post_processor=True)

    def __call__(self, text: str, literals: Sequence[Span] = ()) -> tuple[list[int], list[Span]]:
        """Return ids, and the characters [start, end) of each.

        Args:
            text: what the template gave.
            literals: characters that spell control tokens in messages, so are none.
        """
        ids: list[int] = []
        places: list[Span] = []
        place = 0
        for start, end in [*literals, (len(text), len(text))]:
            self._add(ids, places, text, (place, start), as_text=False)
            self._add(ids, places, text, (start, end), as_text=True)
            place = end
        return ids, places

    def _add(
        self, ids: list[int], places: list[Span], text: str, piece: Span, *, as_text: bool
    ) -> None:
        """Add the tokens of a piece of the text to those found so far."""
        start, end = piece
        if start == end:
            return
        encode = self._encode_as_text if as_text else self._encode_plain
        before = _BEFORE if start else ""
        found, spans = encode(before + text[start:end])
        alone = encode(before)[0] if before else []
        shift = start - len(before)
        if found[: len(alone)] == alone:
            found, spans = found[len(alone) :], spans[len(alone) :]
        else:  # it joined the piece
            found, spans = encode(text[start:end])
            shift = start
        ids.extend(found)
        places.extend((first + shift, last + shift) for first, last in spans)

    def _encode_plain(self, text: str) -> tuple[list[int], list[Span]]:
        encoding = self._library.encode(text, add_special_tokens=False)
        return list(encoding.ids), list(encoding.offsets)

    def _encode_as_text(self, text: str) -> tuple[list[int], list[Span]]:
        """Encode a spelled-out control token: its characters, whatever tokens were added."""
        library = self._library
        normal = text
        if library.normalizer is not None:
            normal = library.normalizer.normalize_str(text)
        splits = [normal]
        if library.pre_tokenizer is not None:
            splits = [split for split, _ in library.pre_tokenizer.pre_tokenize_str(normal)]
        tokens = [token for split in splits for token in library.model.tokenize(split)]
        # All of it is inside one message: every token counts as all of the piece.
        whole = (len(_BEFORE) if text.startswith(_BEFORE) else 0, len(text))
        return [token.id for token in tokens], [whole] * len(tokens)
