"""A folder of prefixes in, batches of this rank out, and the few integers that say where we are.

Step s of a training takes the samples [s * G, (s + 1) * G) of the blend, G = global_batch_size;
while the batch size warms up, as many as `BatchSizes` says.
Each copy of the model takes its contiguous share of them; neither the number of copies nor the
micro-batch changes which samples a step sees. A thread reads ahead while the ranks compute.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..indexed_dataset import (
    DataChangedError,
    DatasetManifest,
    IndexedDataset,
    IndexedDatasetError,
    Masking,
    PhasedBlend,
    PrefixNotFoundError,
    SampleDataset,
    TokenizerMismatchError,
    TokenRangeError,
    open_groups,
    read_in_order,
)
from ..indexed_dataset.object_store import folder_exists, is_url, join_path
from ..indexed_dataset.store_cache import local_folder
from .batch import Batch as Batch
from .batch import read_batch as read_batch
from .blend import blend_state, build_blend, documents_of, resume_blend
from .config import PretrainConfig
from .grid import Ranks
from .schedule import BatchSizes
from .vocabulary import masking_vocabulary

_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The opened train and validation sets of one folder."""

    train: dict[str, list[IndexedDataset]]
    """Group -> its shards."""
    blend: PhasedBlend
    """All train groups in their proportions."""
    validation: dict[str, SampleDataset]
    """Group, or NAME/GROUP of a further validation set -> its windows from first to last."""
    vocab_size: int
    """Every id is below it."""
    eod_id: int | None
    """Id that ends a document, where there is one."""
    tokenizer_folder: Path | None
    """Folder with tokenizer.json and token_bytes.npy, where the manifests name one."""
    tokenizer_fingerprint: str | None
    """Of the tokenizer that made all of it."""
    masking: Masking | None = None
    """How samples are masked; None: a decoder's data."""
    num_added_ids: int = 0
    """Ids of the vocabulary that the tokenizer does not have: a mask token."""

    def state(self, consumed_samples: int) -> dict[str, Any]:
        """Return what a checkpoint keeps: JSON values that identify the data and the position."""
        return {
            **blend_state(self.blend, consumed_samples),
            "vocab_size": self.vocab_size,
            "eod_id": self.eod_id,
            "tokenizer": self.tokenizer_fingerprint,
            **({} if self.masking is None else {"mask_id": self.masking.mask_id}),
        }

    def resumed(self, config: PretrainConfig, state: Mapping[str, Any], where: str) -> TrainingData:
        """Return the same data with the blend going on from a checkpoint's `state`.

        Raises:
            DataChangedError: the data are not those of the checkpoint; says what differs.
        """
        if state["vocab_size"] != self.vocab_size:
            raise DataChangedError(
                f"{where} was trained with a vocabulary of {state['vocab_size']} ids, the data now "
                f"have {self.vocab_size}. Set data.vocab_size back, put the old data back, or "
                "train in a new output folder"
            )
        blend = resume_blend(config, self.train, self.eod_id, state, where)
        return dataclasses.replace(self, blend=blend)


def open_data(config: PretrainConfig, output: Path) -> TrainingData:
    """Open every prefix of the data folder and check that they belong together.

    Raises:
        PrefixNotFoundError: no such folder, or nothing in it.
        TokenizerMismatchError: prefixes made with different tokenizers.
        TokenRangeError: ids beyond the vocabulary.
        IndexedDatasetError: a prefix that cannot be read, or weights that do not fit.
    """
    folder = config.data.path or str(output / "data")
    train = _open_split(folder, "train")
    validation = _open_validation(folder, config) if config.evaluate.enabled else {}
    manifests = {
        shard.prefix: shard.manifest
        for group in (*train.values(), *validation.values())
        for shard in group
    }
    fingerprint = _one_tokenizer(manifests)
    vocab_size = _fact("vocab_size", manifests, config.data.vocab_size or None)
    if vocab_size is None:
        raise IndexedDatasetError(
            f"{folder}: these datasets have no manifest (PREFIX.json), which would say how many "
            "ids the vocabulary has. Set data.vocab_size (and data.eod_id, if documents end with "
            "a token)"
        )
    for prefix, manifest in manifests.items():
        if manifest and manifest.max_token_id is not None and manifest.max_token_id >= vocab_size:
            raise TokenRangeError(
                f"{prefix} holds the id {manifest.max_token_id}, beyond the vocabulary of "
                f"{vocab_size} ids. Make it again with the tokenizer of the others"
            )
    given_eod = None if config.data.eod_id < 0 else config.data.eod_id
    eod_id = _fact("eod_id", manifests, given_eod)
    tokenizer_folder = _tokenizer_folder(manifests)
    masking = (
        None if config.model.causal else _masking(config, tokenizer_folder, vocab_size, eod_id)
    )
    num_added_ids = 0 if masking is None else max(0, masking.mask_id + 1 - vocab_size)
    return TrainingData(
        train=train,
        blend=build_blend(config, train, eod_id),
        validation={
            group: SampleDataset(
                shards,
                config.data.sequence_length,
                # Bins of whole documents are scored as they are trained on: none is cut.
                order="best_fit" if config.data.order == "best_fit" else "sequential",
                documents=documents_of(config.data),
                eod_id=eod_id,
            )
            for group, shards in validation.items()
        },
        vocab_size=vocab_size + num_added_ids,
        eod_id=eod_id,
        tokenizer_folder=tokenizer_folder,
        tokenizer_fingerprint=fingerprint,
        masking=masking,
        num_added_ids=num_added_ids,
    )


def _masking(
    config: PretrainConfig, folder: Path | None, vocab_size: int, eod_id: int | None
) -> Masking:
    settings = config.masking
    known = masking_vocabulary(
        folder,
        vocab_size,
        eod_id,
        mask_token=settings.mask_token,
        whole_words=settings.whole_words,
    )
    return Masking(
        known.special,
        known.mask_id,
        config.training.seed,
        settings.share,
        settings.mask_share,
        settings.random_share,
        known.continues,
    )


def _open_split(folder: str, split: str) -> dict[str, list[IndexedDataset]]:
    if not folder_exists(folder):
        raise PrefixNotFoundError(
            f"there is no data folder {folder}. Run `gristmill preprocess` into the same output "
            "folder first, or set data.path to a folder with train/ and validation/ prefixes"
        )
    # A label needs a token before it: a train group of one token scores nothing.
    least = 2 if split == "train" else 1
    inner = join_path(folder, split)
    opened = open_groups(inner, least_tokens=least) if folder_exists(inner) else {}
    if not opened:
        remedy = (
            "Run `gristmill preprocess` with pack.validation_fraction above 0, or set "
            "evaluate.enabled = false to train without validation"
            if split == "validation"
            else "Run `gristmill preprocess` into the same output folder first, or set data.path"
        )
        raise PrefixNotFoundError(f"{inner} holds no tokens to read. {remedy}")
    return opened


def _open_validation(folder: str, config: PretrainConfig) -> dict[str, list[IndexedDataset]]:
    """Open the validation groups of the data folder, and the further sets by NAME/GROUP."""
    named = config.data.validation
    is_there = folder_exists(join_path(folder, "validation"))
    opened = _open_split(folder, "validation") if is_there or not named else {}
    for name, path in named.items():
        groups = open_groups(path)
        if not groups:
            raise PrefixNotFoundError(
                f"{path} holds no tokens to read, but data.validation names it {name}. Give a "
                "folder of prefixes, or take it out"
            )
        opened |= {f"{name}/{group}": shards for group, shards in groups.items()}
    return opened


def _one_tokenizer(manifests: Mapping[str, DatasetManifest | None]) -> str | None:
    """Return the fingerprint of the tokenizer that made every prefix with a manifest."""
    found: dict[str, str] = {}
    for prefix, manifest in manifests.items():
        if manifest and manifest.tokenizer and "fingerprint" in manifest.tokenizer:
            found.setdefault(manifest.tokenizer["fingerprint"], prefix)
    if len(found) > 1:
        (one, first), (two, second) = list(found.items())[:2]
        raise TokenizerMismatchError(
            f"{first} was made with the tokenizer {one[:12]}, {second} with {two[:12]}: the same "
            "id means different text in them. Make all prefixes with one tokenizer"
        )
    return next(iter(found), None)


def _fact(
    name: str, manifests: Mapping[str, DatasetManifest | None], given: int | None
) -> int | None:
    """Return the value that all manifests and the config agree on; None if nobody knows it."""
    known: dict[int, str] = {} if given is None else {given: f"the config (data.{name})"}
    for prefix, manifest in manifests.items():
        value = getattr(manifest, name) if manifest else None
        if value is not None:
            known.setdefault(value, prefix)
    if len(known) > 1:
        says = "; ".join(f"{where} says {value}" for value, where in list(known.items())[:3])
        raise IndexedDatasetError(
            f"the datasets disagree about {name}: {says}. Make all prefixes with one tokenizer, "
            f"and leave data.{name} at its default where there are manifests"
        )
    return next(iter(known), None)


def _tokenizer_folder(manifests: Mapping[str, DatasetManifest | None]) -> Path | None:
    for prefix, manifest in manifests.items():
        if manifest and manifest.tokenizer and "path" in manifest.tokenizer:
            path = join_path(prefix, "..", manifest.tokenizer["path"])
            if is_url(path):
                return local_folder(path)
            folder = Path(os.path.normpath(path))
            return folder if folder.is_dir() else None
    return None


class Batches:
    """This rank's batches, step after step, read ahead by a thread.

    Args:
        sizes: samples of each step over all ranks; a number: always so many.
        first_step: step to begin with.
        num_steps: step to end before.
        data: the copies of the model; each takes an equal share of a step's samples.
    """

    def __init__(
        self,
        source: TrainingData,
        sizes: BatchSizes | int,
        data: Ranks,
        first_step: int,
        num_steps: int,
        *,
        pinned: bool = False,
    ) -> None:
        self._source = source
        self._sizes = BatchSizes(sizes) if isinstance(sizes, int) else sizes
        self._data = data
        self._steps = range(first_step, num_steps)
        self._pinned = pinned
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(_BATCHES_AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read_ahead, daemon=True)
        self._thread.start()

    def positions(self, step: int) -> range:
        """Return the positions in the blend of this rank's samples of one step."""
        share = self._sizes.size(step) // self._data.size
        start = self._sizes.first_sample(step) + self._data.rank * share
        return range(start, start + share)

    def next(self) -> Batch:
        """Return the next step's batch; an error of the reading thread is raised here."""
        item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stop reading ahead."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._ready.get(timeout=0.05)
            except queue.Empty:
                continue

    def _read_ahead(self) -> None:
        steps = map(self.positions, self._steps)
        coming = read_in_order(self._source.blend, itertools.chain.from_iterable(steps))
        try:
            for step in self._steps:
                if self._stopped.is_set():
                    break
                positions = self.positions(step)
                samples = list(itertools.islice(coming, len(positions)))
                where = f"samples {positions.start} to {positions.stop - 1} of the blend"
                batch = read_batch(
                    samples,
                    self._source.vocab_size,
                    where,
                    pinned=self._pinned,
                    masking=self._source.masking,
                    numbers=positions,
                )
                self._ready.put(batch)
        except BaseException as error:  # raised again where the batches are used
            self._ready.put(error)
        finally:
            coming.close()
