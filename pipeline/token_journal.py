"""Token files that grow and survive a kill: encoded documents in, finished files out.

PREFIX.work holds, for each key, KEY.bin (tokens) and KEY.lengths (int32, tokens of each document),
and `origins` (int64[2]: file, offset) and `rejected.jsonl` for all. They are only appended to.
Now and then the journal says how far they are good, and where in the input that is: a killed run
is cut back to its last entry and goes on from there. When entries were made changes no byte.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..indexed_dataset import PrefixBusyError
from ..indexed_dataset.atomic import disk_full, is_disk_full, write_atomically
from ..indexed_dataset.manifest import CHECKSUM_BLOCK_BYTES, BlockHasher

logger = logging.getLogger(__name__)

COMMIT_SECONDS = 30.0
"""Time between two entries of the journal: what a kill costs at most."""

_CHUNK_DOCUMENTS = 1 << 20


@dataclass(slots=True)
class KeyState:
    """What one key's token file holds."""

    num_tokens: int = 0
    text_bytes: int = 0
    max_token_id: int | None = None
    blocks: tuple[str, ...] = ()
    """Digests of the whole blocks of the file."""


@dataclass(slots=True)
class JournalEntry:
    """How far the files are good."""

    fingerprint: str
    keys: list[KeyState]
    piece: int = 0
    """Pieces of the input that are done."""
    blocks: int = 0
    """Blocks of the next piece that are done."""
    input_bytes: int = 0
    documents: int = 0
    rejected: int = 0
    rejected_bytes: int = 0
    special: dict[str, int] = field(default_factory=dict)
    """How often a text spelled each special token out."""
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedKey:
    """Tokens of some documents under one key."""

    tokens: NDArray[Any]
    lengths: NDArray[np.int32]
    text_bytes: int
    max_token_id: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedPart:
    """Some consecutive documents of the input, encoded."""

    keys: list[EncodedKey]
    origins: NDArray[np.int64]
    """int64[num_documents, 2]: number of the file, and offset."""


class TokenJournal:
    """The files of one run, locked against a second one. Use as a context manager.

    Args:
        folder: PREFIX.work.
        fingerprint: of everything that the bytes depend on; another one starts anew.
        num_keys: how many token files.
        dtype: of the tokens.
        commit_seconds: time between entries.

    Raises:
        PrefixBusyError: another process is at it.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        num_keys: int,
        dtype: np.dtype[Any],
        commit_seconds: float = COMMIT_SECONDS,
    ) -> None:
        self.folder = folder
        self._dtype, self._commit_seconds = dtype, commit_seconds
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(folder / "lock", "wb")  # noqa: SIM115 - closed by __exit__
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise PrefixBusyError(
                f"{folder} is being written by another process. Wait for it, or choose another "
                "prefix"
            ) from None
        except OSError as error:
            logger.info("%s: this file system has no locks (%s)", folder, error)
        self.entry = self._read_entry(fingerprint, num_keys)
        self.was_resumed = self.entry.piece > 0 or self.entry.blocks > 0
        self._files: dict[str, IO[bytes]] = {}
        for name, size in self._sizes().items():
            stream = open(folder / name, "r+b" if size else "wb", 4 << 20)  # noqa: SIM115
            stream.truncate(size)
            stream.seek(size)
            self._files[name] = stream
        self._hashers = [self._hasher(key) for key in range(num_keys)]
        self._next_commit = time.monotonic() + commit_seconds

    def __enter__(self) -> TokenJournal:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (*self._files.values(), self._lock):
            with contextlib.suppress(OSError):  # the last bytes may not fit on a full disk
                stream.close()

    def add(
        self,
        parts: Sequence[EncodedPart],
        rejected: list[dict[str, Any]],
        *,
        position: tuple[int, int],
        input_bytes: int,
    ) -> None:
        """Append what lies between the last position (piece, blocks) and this one.

        Raises:
            DiskFullError: no space left; the same command goes on from the last entry.
        """
        entry = self.entry
        try:
            for part in parts:
                self._append(part)
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rejected).encode()
            self._files["rejected.jsonl"].write(lines)
            entry.rejected_bytes += len(lines)
            entry.rejected += len(rejected)
            entry.input_bytes += input_bytes
            entry.piece, entry.blocks = position
            if time.monotonic() >= self._next_commit:
                self.commit()
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(error.filename or self.folder, error) from error
            raise

    def _append(self, part: EncodedPart) -> None:
        for number, (key, state) in enumerate(zip(part.keys, self.entry.keys, strict=True)):
            raw = np.ascontiguousarray(key.tokens, self._dtype).view(np.uint8).data
            self._files[f"{number}.bin"].write(raw)
            self._hashers[number].update(raw)
            self._files[f"{number}.lengths"].write(np.ascontiguousarray(key.lengths, "<i4").data)
            state.num_tokens += len(key.tokens)
            state.text_bytes += key.text_bytes
            if key.max_token_id is not None:
                state.max_token_id = max(key.max_token_id, state.max_token_id or 0)
        self._files["origins"].write(np.ascontiguousarray(part.origins, "<i8").data)
        self.entry.documents += len(part.origins)

    def commit(self) -> None:
        """Make an entry: what was added so far is kept whatever happens."""
        for stream in self._files.values():
            stream.flush()
            os.fdatasync(stream.fileno())
        for state, hasher in zip(self.entry.keys, self._hashers, strict=True):
            state.blocks = hasher.finished
        write_atomically(self.folder / "journal.json", json.dumps(asdict(self.entry)).encode())
        self._next_commit = time.monotonic() + self._commit_seconds

    def flush(self) -> None:
        """Hand everything to the system, so that others can read the files."""
        for stream in self._files.values():
            stream.flush()

    def blocks(self, key: int) -> tuple[str, ...]:
        """Return the digests of all blocks of a token file."""
        return self._hashers[key].hexdigests()

    def documents(self, key: int) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
        """Yield chunks of (tokens of each document, its origin); call `flush` before."""
        with (
            open(self.folder / f"{key}.lengths", "rb") as lengths,
            open(self.folder / "origins", "rb") as origins,
        ):
            while data := lengths.read(4 * _CHUNK_DOCUMENTS):
                sizes = np.frombuffer(data, "<i4")
                yield sizes, np.frombuffer(origins.read(16 * len(sizes)), "<i8").reshape(-1, 2)

    def _sizes(self) -> dict[str, int]:
        """Return the files and how many bytes of each are good."""
        entry = self.entry
        sizes = {"origins": 16 * entry.documents, "rejected.jsonl": entry.rejected_bytes}
        for number, state in enumerate(entry.keys):
            sizes[f"{number}.bin"] = state.num_tokens * self._dtype.itemsize
            sizes[f"{number}.lengths"] = 4 * entry.documents
        return sizes

    def _read_entry(self, fingerprint: str, num_keys: int) -> JournalEntry:
        path = self.folder / "journal.json"
        fresh = JournalEntry(fingerprint=fingerprint, keys=[KeyState() for _ in range(num_keys)])
        try:
            raw = json.loads(path.read_bytes())
            keys = [KeyState(**{**key, "blocks": tuple(key["blocks"])}) for key in raw["keys"]]
            found = JournalEntry(**{**raw, "keys": keys})
        except FileNotFoundError:
            return fresh
        except (ValueError, KeyError, TypeError) as error:
            logger.warning("%s is not a journal (%s): everything is done again", path, error)
            return fresh
        self.entry = found
        complete = all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size >= size
            for name, size in self._sizes().items()
        )
        if found.fingerprint == fingerprint and complete:
            return found
        path.unlink()  # it must not vouch for the files that are written from now on
        return fresh

    def _hasher(self, key: int) -> BlockHasher:
        """Return the hasher of a token file, as it was when the file had its present size."""
        state = self.entry.keys[key]
        hasher = BlockHasher(finished=state.blocks)
        with open(self.folder / f"{key}.bin", "rb") as stream:
            stream.seek(len(state.blocks) * CHECKSUM_BLOCK_BYTES)
            while data := stream.read(1 << 20):
                hasher.update(data)
        return hasher
