"""PREFIX.json: what a dataset is, beside the bytes that Megatron also reads.

In: counts, checksums and provenance gathered while writing. Out: a JSON file with sorted keys,
without times and absolute paths, so that the same input gives the same bytes; and back.
A dataset written by Megatron has no manifest: `DatasetManifest.load` then returns None.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .errors import ManifestError, UnsupportedVersionError
from .manifest_fields import CHECKSUM_ALGORITHM, checked_fields, shown
from .open_files import open_for_reading

SCHEMA_VERSION = 1
CHECKSUM_BLOCK_BYTES = 64 << 20
"""Each block of the .bin has a checksum of its own, so that merging can reuse them."""
MAX_MANIFEST_BYTES = 256 << 20
"""More is not read: 256 MiB name the blocks of 450 TB of tokens, or some millions of files."""

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
        if len(text) > MAX_MANIFEST_BYTES:
            raise ManifestError(
                f"{path} has more than {MAX_MANIFEST_BYTES >> 20} MiB, which no manifest needs. "
                "Copy or write the dataset again; where millions of origin files make it so long, "
                "write more shards"
            )
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
                f"{path} has schema_version {shown(raw['schema_version'])}; this gristmill reads "
                f"{SCHEMA_VERSION}. Install the gristmill that wrote it"
            )
        manifest = cls(**_parts(cls, raw, path))
        if not (manifest.eod_id or 0) < (manifest.vocab_size or 2**63):
            raise ManifestError(
                f"{path}: eod_id {manifest.eod_id} is not below vocab_size {manifest.vocab_size}. "
                "The manifest is damaged: copy or write the dataset again"
            )
        return manifest

    @classmethod
    def load(cls, path: Path) -> DatasetManifest | None:
        """Read the manifest at `path`; None if there is no such file."""
        try:
            with os.fdopen(open_for_reading(path), "rb") as stream:
                text = stream.read(MAX_MANIFEST_BYTES + 1)
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
    """Digests of a byte stream: one for each block of `block_bytes`."""

    def __init__(self, block_bytes: int = CHECKSUM_BLOCK_BYTES) -> None:
        self._block_bytes = block_bytes
        self._room = block_bytes
        self._digest = hashlib.blake2b(digest_size=16)
        self._finished: list[str] = []

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


def _parts(cls: type, raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the arguments of a manifest (or of a part of it) from JSON, each one checked."""
    values = checked_fields({f.name for f in fields(cls)}, raw, path)
    for name, value in values.items():
        if name == "checksums" and value is not None:
            value = Checksums(**_parts(Checksums, value, path))
        if name == "side_streams":
            value = {key: _side_stream(key, entry, path) for key, entry in value.items()}
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


def _side_stream(name: str, raw: Any, path: Path) -> SideStreamEntry:
    """Return the entry of one side stream from JSON, checked."""
    if not isinstance(raw, dict):
        raise ManifestError(
            f"{path}: the side stream {shown(name)} is {shown(raw)}, not an object. The manifest "
            "is damaged: copy or write the dataset again"
        )
    entry = SideStreamEntry(**_parts(SideStreamEntry, raw, path))
    if not _STREAM_NAME.fullmatch(name) or entry.suffix != side_suffix(name):
        raise ManifestError(
            f"{path}: the side stream {shown(name)} has the suffix {shown(entry.suffix)}, which is "
            "not .NAME.side. The manifest is damaged: copy or write the dataset again"
        )
    return entry
