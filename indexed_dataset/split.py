"""The shards of one group as one line of tokens: prefixes in, token ranges and bounds out.

Positions count through all shards in their order. What spans two shards is read from both.
"""

from __future__ import annotations

import hashlib
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import IndexedDatasetError, TokenizerMismatchError
from .manifest import DatasetManifest
from .reader import IndexedDataset
from .weights import manifest_repeat

PrefixLike = str | os.PathLike[str] | IndexedDataset


class TokenSplit:
    """All tokens of a group of prefixes, e.g. the train split of one language.

    Args:
        prefixes: one prefix (or opened dataset), or all shards of a group in order.

    Raises:
        IndexedDatasetError: no prefix, or no token in any of them.
        TokenizerMismatchError: shards made with different tokenizers.
    """

    def __init__(self, prefixes: PrefixLike | Sequence[PrefixLike]) -> None:
        given = [prefixes] if isinstance(prefixes, (str, os.PathLike, IndexedDataset)) else prefixes
        self.shards = [p if isinstance(p, IndexedDataset) else IndexedDataset(p) for p in given]
        if not self.shards:
            raise IndexedDatasetError("no prefix was given: a split has one shard or more")
        self._ends = list(accumulate(shard.num_tokens for shard in self.shards))
        self.num_tokens = self._ends[-1]
        if self.num_tokens == 0:
            raise IndexedDatasetError(
                f"{self.shards[0].prefix} holds no token ({len(self.shards)} shards), so no sample "
                "can be drawn from it. Leave it out"
            )
        self.manifests: list[DatasetManifest] = [
            shard.manifest for shard in self.shards if shard.manifest is not None
        ]
        require_same_tokenizer((shard.prefix, shard.manifest) for shard in self.shards)

    @property
    def drawn_tokens(self) -> int:
        """Its tokens, times how often its manifests ask for it (`manifest_repeat`).

        Weights by these draw every dataset as often as it asks for, in the time of one epoch.
        """
        return self.num_tokens * manifest_repeat(self.name, self.manifests)

    @property
    def is_remote(self) -> bool:
        """Whether any shard lies in an object store."""
        return any(shard.remote is not None for shard in self.shards)

    @property
    def name(self) -> str:
        """The group's name: from the manifest, else the file name of the first shard."""
        group = self.manifests[0].group if self.manifests else None
        return group or Path(self.shards[0].prefix).name

    @property
    def num_documents(self) -> int:
        """Documents of all shards."""
        return sum(shard.num_documents for shard in self.shards)

    @property
    def text_bytes(self) -> int | None:
        """UTF-8 bytes of the text of all shards, where every manifest tells."""
        counts = [m.text_bytes for m in self.manifests if m.text_bytes is not None]
        return sum(counts) if len(counts) == len(self.shards) else None

    @property
    def fingerprint(self) -> str:
        """Hex of 32 digits: the content of all shards, in order."""
        digest = hashlib.blake2b(digest_size=16)
        for shard in self.shards:
            digest.update(shard.fingerprint.encode())
        return digest.hexdigest()

    def read(self, start: int, num_tokens: int) -> NDArray[Any]:
        """Return `num_tokens` tokens from position `start` on, in a dtype that holds them.

        Raises:
            IndexedDatasetError: the split has no such positions.
        """
        parts = [
            shard.read_tokens(first, count) for shard, first, count in self.parts(start, num_tokens)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def read_spans(self, spans: Sequence[tuple[int, int]]) -> NDArray[Any]:
        """Return the tokens at the positions [start, stop) of each span, joined into one array.

        The array may be read-only. Raises the same errors as `read`, with fewer steps before them.
        """
        if len(self.shards) == 1:
            return self.shards[0].read_spans(spans)
        parts = [
            shard.read_spans(((first, first + count),))
            for start, stop in spans
            for shard, first, count in self.parts(start, stop - start)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def parts(self, start: int, num_tokens: int) -> Iterator[tuple[IndexedDataset, int, int]]:
        """Yield what a range has of each shard: the shard, first position in it, tokens."""
        number, last = bisect_right(self._ends, start), len(self.shards) - 1
        while number < last and start + num_tokens > self._ends[number]:
            count = self._ends[number] - start
            yield self.shards[number], start - self._first(number), count
            start, num_tokens, number = start + count, num_tokens - count, number + 1
        number = min(number, last)  # which refuses what lies behind it
        yield self.shards[number], start - self._first(number), num_tokens

    def document_starts(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the positions in [start, stop) at which a document starts, in order."""
        found = []
        for number in range(bisect_right(self._ends, start), len(self.shards)):
            first = self._first(number)
            if first >= stop:
                break
            starts = self.shards[number].document_starts(max(start - first, 0), stop - first)
            found.append(starts + first)
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    def _first(self, number: int) -> int:
        """Return the position of the first token of a shard."""
        return self._ends[number - 1] if number else 0


def require_same_tokenizer(
    named_manifests: Iterable[tuple[str, DatasetManifest | None]],
) -> None:
    """Refuse manifests that name different tokenizers; what one does not say is not compared.

    Args:
        named_manifests: (prefix, its manifest or None) of all datasets that are put together.

    Raises:
        TokenizerMismatchError: names two prefixes and what differs.
    """
    seen: dict[str, tuple[str, object]] = {}
    for prefix, manifest in named_manifests:
        if manifest is None:
            continue
        facts = {
            "tokenizer fingerprint": (manifest.tokenizer or {}).get("fingerprint"),
            "vocab_size": manifest.vocab_size,
            "eod_id": manifest.eod_id,
        }
        for noun, value in facts.items():
            if value is None:
                continue
            other, known = seen.setdefault(noun, (prefix, value))
            if value != known:
                raise TokenizerMismatchError(
                    f"{prefix} has {noun} {value}, but {other} has {known}: the same id would mean "
                    "different text. Tokenize both with one tokenizer, or use them apart"
                )
