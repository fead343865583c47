"""PREFIX.json: what a dataset is, beside the bytes that Megatron also reads.

In: counts, checksums and provenance gathered while writing. Out: a JSON file with sorted keys,
without times and absolute paths, so that the same input gives the same bytes; and back.
A dataset written by Megatron has no manifest: `DatasetManifest.load` then returns None.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import IndexedDatasetError, ManifestError, UnsupportedVersionError
from .format import storage_dtype

SCHEMA_VERSION = 1
CHECKSUM_ALGORITHM = "blake2b-128"
CHECKSUM_BLOCK_BYTES = 64 << 20
"""Each block of the .bin has a checksum of its own, so that merging can reuse them."""

_COUNT_KEYS = ("documents", "tokens", "text_bytes")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_STREAM_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checksums:
    """blake2b digests of 16 bytes, as hex."""

    algorithm: str = CHECKSUM_ALGORITHM
    """How the digests were made."""
    block_bytes: int = CHECKSUM_BLOCK_BYTES
    """Bytes of the .bin under each entry of `bin` (the last may be shorter)."""
    bin: tuple[str, ...] = ()
    """One digest for each block of the .bin."""
    idx: str = ""
    """Digest of the whole .idx."""
    origin: str | None = None
    """Digest of the whole .origin, where there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SideStreamEntry:
    """One array beside the tokens, e.g. a loss mask: entry i belongs to token i of the .bin."""

    dtype: str
    """numpy's name of its dtype, one of those that the .bin can have."""
    suffix: str
    """What follows PREFIX in the name of its file: `.NAME.side`."""
    aligned_with: Literal["tokens"] = "tokens"
    """What its entries stand for, one each."""
    blocks: tuple[str, ...] = ()
    """One digest for each `Checksums.block_bytes` of its file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetManifest:
    """The content of PREFIX.json."""

    schema_version: int = SCHEMA_VERSION
    """Version of this file's layout."""
    format: str = "MMIDIDX"
    """Layout of the .bin and .idx."""
    dtype: str
    """numpy's name of the token dtype, e.g. uint16."""
    num_documents: int
    """Documents in the prefix."""
    num_sequences: int
    """Sequences in the prefix (one a document, unless documents were split)."""
    num_tokens: int
    """Tokens in the .bin, end-of-document tokens included."""
    text_bytes: int | None = None
    """UTF-8 bytes of the text of all documents; null if unknown."""
    vocab_size: int | None = None
    """Every id is below it; null if unknown."""
    eod_id: int | None = None
    """The token that ends each document; null if documents have none."""
    max_token_id: int | None = None
    """The largest id that occurs; null in an empty dataset or one of floats."""
    tokenizer: Mapping[str, str] | None = None
    """{"path": folder relative to this file, "fingerprint": hex}."""
    document_order: Literal["shuffled", "input"] = "input"
    """Whether documents were placed at random when they were written."""
    split: str | None = None
    """train, validation or null."""
    group: str | None = None
    """Name that the shards of one dataset share, e.g. eng_Latn."""
    shard: int = 0
    """Number of this shard in its group."""
    num_shards: int = 1
    """Shards of the group when it was written."""
    languages: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Documents, tokens and text_bytes of each language."""
    sources: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """The same for each source."""
    origin_files: tuple[str, ...] = ()
    """Names that the file numbers in PREFIX.origin stand for, relative to their source."""
    side_streams: Mapping[str, SideStreamEntry] = field(default_factory=dict)
    """Arrays aligned with the tokens, by name."""
    checksums: Checksums | None = None
    """Digests of the files, so that `verify` can find altered bytes."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration that made the dataset, without folders and workers."""
    stages: Mapping[str, int] = field(default_factory=dict)
    """Version number of each stage that took part."""
    gristmill: str = ""
    """Version of the package that wrote it."""

    def to_json(self) -> str:
        """Return the text of PREFIX.json: the same manifest gives the same bytes."""
        return json.dumps(_plain(self), sort_keys=True, indent=1) + "\n"

    def wrong_sums(self) -> Iterator[str]:
        """Yield what does not add up to the totals in the tables of languages and sources."""
        for noun, table in (("languages", self.languages), ("sources", self.sources)):
            for key, total in (
                ("documents", self.num_documents),
                ("tokens", self.num_tokens),
                ("text_bytes", self.text_bytes),
            ):
                said = sum(row[key] for row in table.values())
                if table and total is not None and said != total:
                    yield f"the {key} of all {noun} add up to {said}, not {total}"

    @classmethod
    def from_json(cls, text: str | bytes, path: Path) -> DatasetManifest:
        """Read a manifest; `path` is only named in messages.

        Raises:
            ManifestError: not JSON, or a field is missing, unknown or of a wrong type.
            UnsupportedVersionError: written by a newer gristmill.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{path} is not readable as JSON ({error}): the manifest is damaged. "
                "Copy or write the dataset again; without the file the prefix opens as a foreign "
                "Megatron dataset"
            ) from None
        if not isinstance(raw, dict) or "schema_version" not in raw:
            raise ManifestError(
                f"{path} is JSON but not the manifest of a dataset (it has no schema_version). "
                "Copy or write the dataset again, or move the file away"
            )
        if raw["schema_version"] != SCHEMA_VERSION or raw["schema_version"] is True:
            raise UnsupportedVersionError(
                f"{path} has schema_version {raw['schema_version']!r}; this gristmill reads "
                f"{SCHEMA_VERSION}. Install the gristmill that wrote it"
            )
        return cls(**_checked_fields(cls, raw, path))

    @classmethod
    def load(cls, path: Path) -> DatasetManifest | None:
        """Read the manifest at `path`; None if there is no such file."""
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        return cls.from_json(text, path)


def side_suffix(name: str) -> str:
    """Return what follows PREFIX in the file name of a side stream.

    Example: side_suffix("loss_mask") == ".loss_mask.side".

    Raises:
        ManifestError: the name is not made of small letters, digits and underscores.
    """
    if not _STREAM_NAME.fullmatch(name):
        raise ManifestError(
            f"{name!r} cannot name a side stream, because it is a part of a file's name: use small "
            "letters, digits and underscores, a letter first"
        )
    return f".{name}.side"


class BlockHasher:
    """Digests of a byte stream: one for each block of `block_bytes`.

    `finished` are those of the blocks in front of the stream, where one goes on.
    """

    def __init__(
        self, block_bytes: int = CHECKSUM_BLOCK_BYTES, finished: Sequence[str] = ()
    ) -> None:
        self._block_bytes = block_bytes
        self._room = block_bytes
        self._digest = hashlib.blake2b(digest_size=16)
        self._finished = list(finished)

    @property
    def finished(self) -> tuple[str, ...]:
        """Digests of the blocks that are whole."""
        return tuple(self._finished)

    def update(self, data: memoryview | bytes) -> None:
        """Add bytes."""
        view = memoryview(data).cast("B")
        while len(view) > 0:
            part = view[: self._room]
            self._digest.update(part)
            self._room -= len(part)
            view = view[len(part) :]
            if self._room == 0:
                self._finished.append(self._digest.hexdigest())
                self._digest = hashlib.blake2b(digest_size=16)
                self._room = self._block_bytes

    def hexdigests(self) -> tuple[str, ...]:
        """Return the digests of all blocks so far, the last possibly of a shorter one."""
        if self._room == self._block_bytes:
            return tuple(self._finished)
        return (*self._finished, self._digest.hexdigest())


def file_digest(path: Path) -> str | None:
    """Return the digest of a whole file, as `Checksums` has it; None if there is no such file."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, partial(hashlib.blake2b, digest_size=16)).hexdigest()
    except FileNotFoundError:
        return None


def _plain(value: Any) -> Any:
    """Turn dataclasses, tuples and mappings into what json writes."""
    if isinstance(value, (DatasetManifest, Checksums, SideStreamEntry)):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.integer):  # counts often come from numpy
        return int(value)
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_count_table(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(row, dict) and set(row) == set(_COUNT_KEYS) and all(map(_is_count, row.values()))
        for row in value.values()
    )


def _is_text_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


_COUNT = (_is_count, "a whole number from 0 on")
_SIZE = (lambda value: _is_count(value) and value > 0, "a whole number from 1 on")
_TEXT = (lambda value: isinstance(value, str), "a text")
_OBJECT = (lambda value: isinstance(value, dict), "an object")
_TABLE = (_is_count_table, "a table of documents, tokens and text_bytes")
_DIGEST_HEX = (_is_digest, "32 hex digits")
_DIGESTS = (
    lambda value: isinstance(value, list) and all(map(_is_digest, value)),
    "a list of 32 hex digits each",
)

_OPTIONAL = frozenset(
    {"text_bytes", "vocab_size", "eod_id", "max_token_id", "tokenizer", "split", "group"}
    | {"checksums", "origin"}
)
_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "schema_version": _COUNT,
    "format": _TEXT,
    "dtype": _TEXT,
    "num_documents": _COUNT,
    "num_sequences": _COUNT,
    "num_tokens": _COUNT,
    "text_bytes": _COUNT,
    "vocab_size": _SIZE,
    "eod_id": _COUNT,
    "max_token_id": _COUNT,
    "tokenizer": (_is_text_map, "an object of texts"),
    "document_order": (lambda value: value in ("shuffled", "input"), '"shuffled" or "input"'),
    "split": _TEXT,
    "group": _TEXT,
    "shard": _COUNT,
    "num_shards": _SIZE,
    "languages": _TABLE,
    "sources": _TABLE,
    "origin_files": (_is_text_list, "a list of texts"),
    "side_streams": _OBJECT,
    "checksums": _OBJECT,
    "config": _OBJECT,
    "stages": _OBJECT,
    "gristmill": _TEXT,
    "algorithm": _TEXT,
    "block_bytes": _SIZE,
    "bin": _DIGESTS,
    "idx": _DIGEST_HEX,
    "origin": _DIGEST_HEX,
    "suffix": _TEXT,
    "aligned_with": (lambda value: value == "tokens", '"tokens"'),
    "blocks": _DIGESTS,
}
"""For each field of a manifest and what is in it: the test it must pass, and that in words."""


def _checked_fields(cls: type, raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the arguments of a manifest (or of a part of it) from JSON, each one checked."""
    known = {f.name for f in fields(cls)}
    for name in sorted(known ^ set(raw)):
        state = "is missing" if name in known else "is not known"
        raise ManifestError(
            f'{path}: the field "{name}" {state}. The manifest is damaged or from another version '
            "of gristmill: copy or write the dataset again"
        )
    values: dict[str, Any] = {}
    for name, value in raw.items():
        test, wording = _RULES[name]
        if not (test(value) or (value is None and name in _OPTIONAL)):
            raise ManifestError(
                f'{path}: the field "{name}" is {str(value)[:80]!r}, not {wording}. '
                "The manifest is damaged: copy or write the dataset again"
            )
        if name == "checksums" and value is not None:
            value = Checksums(**_checked_fields(Checksums, value, path))
        if name == "side_streams":
            value = {key: _side_stream(key, entry, path) for key, entry in value.items()}
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def _side_stream(name: str, raw: Any, path: Path) -> SideStreamEntry:
    """Return the entry of one side stream from JSON, checked."""
    if not isinstance(raw, dict):
        raise ManifestError(f"{path}: the side stream {name!r} is {str(raw)[:80]!r}, not an object")
    entry = SideStreamEntry(**_checked_fields(SideStreamEntry, raw, path))
    if entry.suffix != side_suffix(name):
        raise ManifestError(
            f"{path}: the side stream {name!r} has the suffix {entry.suffix!r}, not "
            f"{side_suffix(name)!r}. The manifest is damaged: copy or write the dataset again"
        )
    try:
        storage_dtype(entry.dtype)
    except (TypeError, IndexedDatasetError) as error:
        raise ManifestError(f"{path}: the side stream {name!r}: {error}") from None
    return entry
