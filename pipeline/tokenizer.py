"""The tokenizer door: UTF-8 bytes of documents in, token ids out.

Everything that needs ids goes through `Tokenizer`. Inside, our engine (engine/) does the work where
it gives the same ids as `tokenizers`; else that library itself does, in chunks that bound its
memory, and a line in the log says why.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..indexed_dataset import dtype_for_vocab_size
from . import cuts
from .token_bytes import count_token_bytes
from .tokenizer_facts import load_library, read_facts
from .tokenizer_files import (
    WELL_KNOWN_EOD,
    TokenizerError,
    TokenizerFile,
    bos_candidates,
    eod_candidates,
    read_tokenizer_file,
)

logger = logging.getLogger(__name__)

Tokens = NDArray[np.uint16] | NDArray[np.int32]

SpecialStrings = Literal["as_tokens", "as_text"]

CHUNK_BYTES = 1_000_000
"""Text bytes that go through `tokenizers` in one call: what bounds its memory (see cuts.py)."""

_NUM_LISTED = 12


class DocumentTooLongError(ValueError):
    """A document that cannot be encoded within a bounded memory."""

    def __init__(self, document: int, message: str) -> None:
        super().__init__(message)
        self.document = document


class Tokenizer:
    """Text to ids and back, exactly as `tokenizers` does it.

    Args:
        path: a tokenizer.json (also .zst), a folder that holds one, or a hub id.
        eod: the token that ends a document; empty: the eos token of a tokenizer_config.json
            beside the file, else the first well-known name in the vocabulary.
        special_strings: what becomes of a special token that a text spells out: "as_tokens", the
            token's id, as `tokenizers` does by default; "as_text", ids of its characters.
        threads: how many threads `encode` uses for one call; worker processes keep it at 1.
        delegate: let `tokenizers` itself do all the work (slow; to compare with).

    Truncation and padding that the file asks for are reset, with a notice, and so is BPE dropout.

    Raises:
        TokenizerError: no such tokenizer, a damaged one, or `eod` is not in its vocabulary.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        eod: str = "",
        special_strings: SpecialStrings = "as_tokens",
        threads: int = 1,
        delegate: bool = False,
    ) -> None:
        if special_strings not in ("as_tokens", "as_text"):
            raise TokenizerError(
                f'special_strings is {special_strings!r}; it must be "as_tokens" or "as_text"'
            )
        self.threads = threads
        self.file: TokenizerFile = read_tokenizer_file(os.fspath(path))
        self._special_as_text = special_strings == "as_text"
        self._facts = read_facts(self.file, self._special_as_text)
        self._fast = None if delegate else self._facts.engine
        self._rule = self._facts.rule
        self._notify(delegate)
        self.fingerprint: str = self._facts.fingerprint
        """32 hex digits: the hash of the normalized JSON."""
        self.vocab_size: int = self._facts.vocab_size
        """One more than the largest id (ids need not be dense)."""
        self.dtype: np.dtype[Any] = dtype_for_vocab_size(self.vocab_size)
        """uint16 below 65,500 ids, else int32: Megatron's rule."""
        self.eod: str | None = self._find_eod(eod)
        """The token that ends a document; None if it is not known (see `eod_id`)."""

    @functools.cached_property
    def _library(self) -> Any:
        """The tokenizers.Tokenizer, loaded when it is first needed."""
        return load_library(self.file, self._special_as_text)

    @property
    def engine(self) -> str:
        """What encodes: "gristmill", or "tokenizers" where our engine does not give its ids."""
        return "tokenizers" if self._fast is None else "gristmill"

    @property
    def num_special_strings(self) -> int:
        """How many added tokens texts have spelled out so far (0 where `tokenizers` encodes)."""
        return 0 if self._fast is None else self._fast.num_added_tokens

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids of the special tokens, by their names."""
        return {name: self._facts.ids[name] for name in self._facts.special}

    @property
    def eod_id(self) -> int:
        """Id of the token that ends a document.

        Raises:
            TokenizerError: it is not known; lists the special tokens that it could be.
        """
        if self.eod is None:
            raise TokenizerError(
                f"{self.file.path} does not say which token ends a document (no eos_token beside "
                "it, no well-known name in its vocabulary). Set tokenizer.eod to one of its "
                f"special tokens: {self._list_special()}"
            )
        eod_id = self._id_of(self.eod)
        assert eod_id is not None
        return int(eod_id)

    def encode(
        self,
        data: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        add_special_tokens: bool = False,
        *,
        threads: int | None = None,
        is_utf8: bool = False,
    ) -> tuple[Tokens, NDArray[np.int64]]:
        """Encode documents. Several threads may call it at once.

        Args:
            data: uint8[num_bytes], the UTF-8 text of all documents, one after the other.
            offsets: int64[num_documents + 1]; document i is data[offsets[i]:offsets[i + 1]].
            add_special_tokens: add what the tokenizer's post-processor adds (BOS, say).
            threads: how many threads this call uses; None: `threads` of the tokenizer.
            is_utf8: the caller knows that the text is valid UTF-8, so it is not looked at.

        Returns:
            ids: uint16 or int32 (`dtype`) [num_tokens], of all documents, one after the other.
            id_offsets: int64[num_documents + 1]; document i has
                ids[id_offsets[i]:id_offsets[i + 1]].

        Raises:
            DocumentTooLongError: a document has no safe cut within `cuts.MAX_PIECE_BYTES`.
            ValueError: a document is not valid UTF-8.
        """
        if self._fast is not None:
            if not is_utf8:
                self._check_text(data, offsets)
            return self._fast.encode(
                data,
                offsets,
                self.dtype,
                add_special_tokens=add_special_tokens,
                threads=self.threads if threads is None else threads,
            )
        texts = (
            bytes(data[start:end])
            for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
        )
        return self._encode(texts, len(offsets) - 1, add_special_tokens)

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = False
    ) -> list[NDArray[Any]]:
        """Encode strings: one array of ids each. See `encode`."""
        raw = [text.encode() for text in texts]
        bounds = np.cumsum([0, *map(len, raw)], dtype=np.int64)
        data = np.frombuffer(b"".join(raw), np.uint8)
        ids, offsets = self.encode(data, bounds, add_special_tokens)
        return [ids[offsets[i] : offsets[i + 1]] for i in range(len(texts))]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids (special tokens by name, unless skipped)."""
        return str(
            self._library.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)
        )

    def find_bos(self, wanted: str = "") -> int:
        """Return the id of the token that begins a text: `wanted`, or the tokenizer's own.

        Raises:
            TokenizerError: there is none; lists the special tokens that it could be.
        """
        for name in [wanted] if wanted else bos_candidates(self.file):
            if (found := self._id_of(name)) is not None:
                return found
        what = f"has no token {wanted!r}" if wanted else "does not say which token begins a text"
        raise TokenizerError(
            f"{self.file.path} {what}. Set bos to one of its special tokens: {self._list_special()}"
        )

    def token_bytes(self) -> NDArray[np.int32]:
        """Return int32[vocab_size]: UTF-8 bytes that each id stands for; see token_bytes.py."""
        return count_token_bytes(self.file.parse(), self.vocab_size, self._library.token_to_id)

    def too_long(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return bool[num_documents]: which documents `encode` would refuse as too long."""
        if self._fast is not None:
            return np.zeros(len(offsets) - 1, bool)
        refused = np.diff(offsets) > cuts.MAX_PIECE_BYTES
        for document in np.flatnonzero(refused).tolist():
            text = bytes(data[offsets[document] : offsets[document + 1]])
            refused[document] = cuts.longest_piece(text, self._rule) > cuts.MAX_PIECE_BYTES
        return refused

    def too_long_detail(self) -> str:
        """Return why a document is too long for this tokenizer, for a report."""
        limit = f"{cuts.MAX_PIECE_BYTES:,} bytes"
        if self._rule is None:
            return f"longer than {limit}, and this tokenizer has no known place to cut a text"
        return f"more than {limit} without a place where this tokenizer surely cuts"

    def _check_text(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        from .engine.frame import find_invalid

        found = find_invalid(data, offsets)
        if found is not None:
            document, place = found
            raise ValueError(
                f"document {document} of the batch is not valid UTF-8 at its byte {place}: "
                "clean the text first"
            )

    def _encode(
        self, texts: Iterable[bytes], num_documents: int, add_special_tokens: bool
    ) -> tuple[Tokens, NDArray[np.int64]]:
        lengths = np.zeros(num_documents + 1, np.int64)
        parts: list[NDArray[Any]] = []
        for documents, pieces in _chunks(self._pieces(texts)):
            # No special tokens here: they belong to documents, and these may be pieces of one.
            encodings = self._library.encode_batch_fast(pieces, add_special_tokens=False)
            for document, encoding in zip(documents, encodings, strict=True):
                ids = np.array(encoding.ids, self.dtype)
                lengths[document + 1] += len(ids)
                parts.append(ids)
        offsets = np.cumsum(lengths)
        ids = np.concatenate(parts) if parts else np.empty(0, self.dtype)
        if add_special_tokens:
            return self._wrap(ids, offsets)
        return ids, offsets

    def _pieces(self, texts: Iterable[bytes]) -> Iterator[tuple[int, str, int]]:
        """Yield (document, piece of its text, bytes of the piece)."""
        for document, text in enumerate(texts):
            bounds = cuts.cut(text, self._rule)
            for start, end in itertools.pairwise(bounds):
                if end - start > cuts.MAX_PIECE_BYTES:
                    raise DocumentTooLongError(
                        document,
                        f"document {document} of the batch ({len(text):,} bytes) cannot be encoded "
                        f"within a bounded memory: {self.too_long_detail()}. Split it, or drop it",
                    )
                try:
                    piece = text[start:end].decode()
                except UnicodeDecodeError as error:
                    raise ValueError(
                        f"document {document} of the batch is not valid UTF-8 at its byte "
                        f"{start + error.start}: clean the text first"
                    ) from error
                yield document, piece, end - start

    def _wrap(
        self, ids: NDArray[Any], offsets: NDArray[np.int64]
    ) -> tuple[Tokens, NDArray[np.int64]]:
        """Put the post-processor's ids around each document."""
        example = self._library.encode("a", add_special_tokens=True)
        mask = example.special_tokens_mask
        num_before = mask.index(0) if 0 in mask else len(mask)
        before = np.array(example.ids[:num_before], self.dtype)
        num_after = mask[::-1].index(0) if 0 in mask else 0
        after = np.array(example.ids[len(mask) - num_after :], self.dtype)
        parts = []
        for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            parts += [before, ids[start:end], after]
        num_added = len(before) + len(after)
        wrapped = np.concatenate(parts) if parts else ids
        return wrapped, offsets + num_added * np.arange(len(offsets), dtype=np.int64)

    def _notify(self, delegate: bool) -> None:
        """Say what differs from what the file asks for, and from what is fast."""
        for reset in self._facts.resets:
            logger.warning(
                "%s asks for %s: documents are encoded whole, with the ids of their text alone, so "
                "it is reset",
                self.file.path,
                reset,
            )
        if self._facts.unsupported and not delegate:
            logger.warning(
                "%s is encoded by tokenizers itself, many times slower than by gristmill's engine, "
                "which does not reproduce %s",
                self.file.path,
                self._facts.unsupported,
            )

    def _id_of(self, name: str) -> int | None:
        found = self._facts.ids.get(name)
        if found is not None or name in WELL_KNOWN_EOD:
            return found
        found = self._library.token_to_id(name)
        return None if found is None else int(found)

    def _find_eod(self, wanted: str) -> str | None:
        if wanted:
            if self._id_of(wanted) is None:
                raise TokenizerError(
                    f"tokenizer.eod is {wanted!r}, which {self.file.path} does not have. Its "
                    f"special tokens: {self._list_special()}"
                )
            return wanted
        found = [name for name in eod_candidates(self.file) if self._id_of(name) is not None]
        # Special ones first: to Gemma "</s>" is an HTML tag, and its own token is "<eos>".
        special = self._facts.special
        return next((name for name in found if name in special), next(iter(found), None))

    def _list_special(self) -> str:
        names = self._facts.special
        more = f" and {len(names) - _NUM_LISTED} more" if len(names) > _NUM_LISTED else ""
        return (", ".join(names[:_NUM_LISTED]) + more) or "(it has none)"


def open_cached(path: str, eod: str, special_strings: SpecialStrings = "as_tokens") -> Tokenizer:
    """Return a tokenizer, loaded once a process: the largest take two seconds, units often less.

    A process may outlive a run, and the file be written anew: then it is loaded anew.
    """
    file = Path(path, "tokenizer.json") if Path(path).is_dir() else Path(path)
    status = file.stat() if file.is_file() else None  # none: on the hub, or missing
    version = (status.st_mtime_ns, status.st_size) if status else None
    return _open_version(path, eod, special_strings, version)


@functools.lru_cache(maxsize=1)
def _open_version(
    path: str, eod: str, special_strings: SpecialStrings, version: tuple[int, int] | None
) -> Tokenizer:
    return Tokenizer(path, eod=eod, special_strings=special_strings)


def _chunks(
    pieces: Iterable[tuple[int, str, int]],
) -> Iterator[tuple[list[int], list[str]]]:
    """Group pieces so that a group holds about `CHUNK_BYTES` of text at most."""
    documents: list[int] = []
    texts: list[str] = []
    size = 0
    for document, piece, num_bytes in pieces:
        if texts and size + num_bytes > CHUNK_BYTES:
            yield documents, texts
            documents, texts, size = [], [], 0
        documents.append(document)
        texts.append(piece)
        size += num_bytes
    if texts:
        yield documents, texts
