"""A model and validation sets in, loss and bits per byte of each group out.

    bits per byte = sum of nll / ln 2 / bytes of the scored text, end-of-document tokens 0 bytes

It does not depend on the tokenizer. Beside it stands what one unigram model of all training
tokens reaches on the same tokens: p(id) = (count + 1) / (num_tokens + vocab_size).
"""

from __future__ import annotations

import itertools
import logging
import math
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..indexed_dataset import (
    IndexedDataset,
    IndexedDatasetError,
    Masking,
    Sample,
    SampleDataset,
    read_in_order,
)
from .batch import Batch, check_ids, read_batch
from .grid import Grid, Ranks
from .model import Transformer
from .places import document_places
from .sharding import gather_nothing

logger = logging.getLogger(__name__)

_COUNT_CHUNK_TOKENS = 8 << 20
SECONDS_BETWEEN_LINES = 15.0
"""How often a long evaluation says how far it is."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well some text is predicted."""

    tokens: int
    """Scored tokens."""
    text_bytes: int | None
    """UTF-8 bytes they stand for; None if unknown."""
    loss: float
    """Mean nll, nats per token."""
    bits_per_byte: float | None
    """None if the bytes are unknown."""
    unigram_bits_per_byte: float | None
    """Of the unigram model, on the same tokens; None if it was not asked for."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of every validation group, and of all their tokens together."""

    groups: dict[str, Score]
    """Group (a language, mostly) -> score."""
    total: Score
    """All scored tokens as one text."""
    complete: bool
    """Whether every window was scored."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "total": asdict(self.total),
            "languages": {name: asdict(score) for name, score in self.groups.items()},
            "complete": self.complete,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_dict` gave."""
        groups = {name: Score(**score) for name, score in values["languages"].items()}
        return cls(groups, Score(**values["total"]), values["complete"])


@torch.no_grad()
def evaluate(
    model: Transformer,
    validation: Mapping[str, SampleDataset],
    grid: Grid,
    *,
    batch_size: int,
    max_windows: int = 0,
    token_bytes: NDArray[np.int32] | None = None,
    unigram_nll: NDArray[np.float64] | None = None,
    masking: Masking | None = None,
) -> Evaluation:
    """Score windows of every group; all ranks call it and get the same result.

    Args:
        batch_size: windows computed at once by one rank.
        max_windows: windows of each group, evenly spread over it; 0: all.
        token_bytes: int32[vocab_size], bytes that each id stands for.
        unigram_nll: float64[vocab_size], nats of each id; see `unigram_nll`.
        masking: of an encoder: the masked tokens alone are scored, always the same ones.
    """
    names = list(validation)
    windows = [
        (group, window)
        for group, name in enumerate(names)
        for window in _chosen_windows(validation[name].samples_per_epoch, max_windows)
    ]
    # Columns: tokens, nll, nll of the unigram model, bytes. float64 is exact for the counts.
    sums = np.zeros((len(names), 4))
    mine = windows[grid.data.rank :: grid.data.size]
    coming = read_in_order(_Windows(list(validation.values()), mine), range(len(mine)))
    for part in _parts(mine, batch_size, is_main=grid.is_main):
        samples = list(itertools.islice(coming, len(part)))
        batch = read_batch(
            samples,
            model.vocab_size,
            f"windows of {names[part[0][0]]}",
            masking=masking,
            numbers=[_mask_number(names[group], window) for group, window in part],
        )
        nll_BT = _nll(model, batch)
        mask_BT, labels_BT = batch.mask_BT.numpy(), batch.labels_BT.numpy()
        for row, (group, _) in enumerate(part):
            labels = labels_BT[row][mask_BT[row]]
            sums[group, 0] += len(labels)
            sums[group, 1] += nll_BT[row].sum()
            if unigram_nll is not None:
                sums[group, 2] += unigram_nll[labels].sum()
            if token_bytes is not None:
                sums[group, 3] += int(token_bytes[labels].sum(dtype=np.int64))
    _wait_for_others(model, validation, len(windows), len(mine), grid.data.size, batch_size)
    sums = _sum_over_copies(sums, grid.data, model.device)
    text_bytes = [
        _text_bytes(validation[name], int(sums[number, 0]), sums[number, 3], token_bytes)
        for number, name in enumerate(names)
    ]
    known = [number for number in text_bytes if number is not None]
    total_bytes = sum(known) if len(known) == len(names) else None
    has_unigram = unigram_nll is not None
    scored_all = len(windows) == sum(d.samples_per_epoch for d in validation.values())
    return Evaluation(
        groups={
            name: _score(sums[number], text_bytes[number], has_unigram)
            for number, name in enumerate(names)
        },
        total=_score(sums.sum(axis=0), total_bytes, has_unigram),
        complete=scored_all,
    )


def count_tokens(
    train: Mapping[str, list[IndexedDataset]],
    vocab_size: int,
    world: Ranks,
    device: torch.device,
) -> NDArray[np.int64]:
    """Return int64[vocab_size]: how often each id occurs in all training tokens.

    Every rank counts a part.

    Raises:
        TokenRangeError: an id outside of the vocabulary, in a dataset without manifest.
    """
    shards = [shard for group in train.values() for shard in group]
    chunks = [
        (shard, start)
        for shard in shards
        for start in range(0, shard.num_tokens, _COUNT_CHUNK_TOKENS)
    ]
    counts = np.zeros(vocab_size, dtype=np.int64)
    for shard, start in chunks[world.rank :: world.size]:
        length = min(_COUNT_CHUNK_TOKENS, shard.num_tokens - start)
        tokens = shard.read_tokens(start, length)
        check_ids(tokens, vocab_size, f"{shard.prefix}, tokens {start} to {start + length - 1}")
        counts += np.bincount(tokens, minlength=vocab_size)
    total: NDArray[np.int64] = world.sum(torch.from_numpy(counts).to(device)).cpu().numpy()
    return total


def unigram_nll(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the nats of each id under the add-one (Laplace) unigram model of `counts`.

    Example: counts [3, 0] give p = [4/5, 1/5].
    """
    nll: NDArray[np.float64] = np.log(counts.sum() + len(counts)) - np.log(counts + 1.0)
    return nll


def load_token_bytes(folder: Path | None, vocab_size: int) -> NDArray[np.int32] | None:
    """Return int32[vocab_size], the bytes each id stands for; None where there is no such file.

    Raises:
        IndexedDatasetError: the file is of another tokenizer.
    """
    path = folder / "token_bytes.npy" if folder else None
    if path is None or not path.is_file():
        return None
    token_bytes: NDArray[np.int32] = np.load(path, allow_pickle=False)
    if token_bytes.shape != (vocab_size,):
        raise IndexedDatasetError(
            f"{path} has {token_bytes.shape} entries for a vocabulary of {vocab_size} ids: it "
            "belongs to another tokenizer. Preprocess again, or remove it (bits per byte are then "
            "known for whole validation sets only)"
        )
    return token_bytes


def _chosen_windows(num_windows: int, max_windows: int) -> list[int]:
    number = min(num_windows, max_windows or num_windows)
    return [i * num_windows // number for i in range(number)]


def _mask_number(name: str, window: int) -> int:
    """Return the number by which a validation window is masked: below those of training."""
    return -1 - (zlib.crc32(name.encode()) << 30 | window)


@dataclass(frozen=True, slots=True)
class _Windows:
    """Windows of several groups, to be read in their order."""

    datasets: list[SampleDataset]
    windows: list[tuple[int, int]]
    """(number of the dataset, window of it)."""

    def sample(self, position: int) -> Sample:
        dataset, window, _ = self.place(position)
        return dataset.sample(window)

    def place(self, position: int) -> tuple[SampleDataset, int, int]:
        group, window = self.windows[position]
        return self.datasets[group], window, group

    @property
    def is_remote(self) -> bool:
        return any(dataset.is_remote for dataset in self.datasets)


def _parts(
    items: list[tuple[int, int]], size: int, *, is_main: bool
) -> Iterator[list[tuple[int, int]]]:
    """Yield the windows by batches; say now and then how far they are."""
    begun = told = time.monotonic()
    for start in range(0, len(items), size):
        now = time.monotonic()
        if start and is_main and now - told >= SECONDS_BETWEEN_LINES:
            told, left = now, (now - begun) / start * (len(items) - start)
            logger.info("scored %d of %d windows, about %.0f s left", start, len(items), left)
        yield items[start : start + size]


def _wait_for_others(
    model: Transformer,
    validation: Mapping[str, SampleDataset],
    num_windows: int,
    num_mine: int,
    num_ranks: int,
    batch_size: int,
) -> None:
    """Compute as many batches as the rank with most windows.

    Others fetch weights from this one meanwhile, or send it tokens for its experts.
    """
    most = math.ceil(math.ceil(num_windows / num_ranks) / batch_size)
    for _ in range(most - math.ceil(num_mine / batch_size)):
        length = next(iter(validation.values())).sequence_length
        model.hidden(torch.zeros(1, length, dtype=torch.int64, device=model.device))
    gather_nothing(model)


def _nll(model: Transformer, batch: Batch) -> NDArray[np.float64]:
    """Return the nll of each label, 0 where it does not count: float64[B, T]."""
    device = model.device
    (part,) = batch.micro_batches(len(batch.tokens_BT), device)
    places = document_places(part.bounds_BN, device, model.compute_dtype, model.config.causal)
    nll_BT = model.token_nll(part.tokens_BT, part.labels_BT, part.mask_BT, places)
    nll: NDArray[np.float64] = nll_BT.double().cpu().numpy()
    return nll


def _sum_over_copies(
    sums: NDArray[np.float64], data: Ranks, device: torch.device
) -> NDArray[np.float64]:
    total: NDArray[np.float64] = data.sum(torch.from_numpy(sums).to(device)).cpu().numpy()
    return total


def _text_bytes(
    dataset: SampleDataset,
    num_scored: int,
    bytes_of_labels: float,
    token_bytes: NDArray[np.int32] | None,
) -> int | None:
    """Return the bytes of what was scored: from the manifest if that is all of it."""
    if num_scored == dataset.num_tokens and dataset.split.text_bytes is not None:
        return dataset.split.text_bytes
    return None if token_bytes is None else int(bytes_of_labels)


def _score(sums: NDArray[np.float64], text_bytes: int | None, has_unigram: bool) -> Score:
    tokens, nll, unigram = int(sums[0]), float(sums[1]), float(sums[2])
    bits = None if not text_bytes else math.log(2) * text_bytes
    return Score(
        tokens=tokens,
        text_bytes=text_bytes,
        loss=nll / max(1, tokens),
        bits_per_byte=None if bits is None else nll / bits,
        unigram_bits_per_byte=None if bits is None or not has_unigram else unigram / bits,
    )
