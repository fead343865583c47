"""The real classes of megatron-core 0.16.1, on datasets that live in memory."""

from __future__ import annotations

import itertools
import logging
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

logging.getLogger("megatron").setLevel(logging.ERROR)
gpt_dataset = pytest.importorskip(
    "megatron.core.datasets.gpt_dataset",
    reason="megatron-core is not installed (extra `test`, Linux only)",
    exc_type=ImportError,
)
from megatron.core.datasets.blended_dataset import BlendedDataset  # noqa: E402
from megatron.core.datasets.blended_megatron_dataset_builder import (  # noqa: E402
    BlendedMegatronDatasetBuilder,
    _get_size_per_split_per_dataset,
)
from megatron.core.datasets.blended_megatron_dataset_config import (  # noqa: E402
    convert_split_vector_to_split_matrix,
    parse_and_normalize_split,
)
from megatron.core.datasets.utils import Split, normalize  # noqa: E402

PARTS = ("train", "valid", "test")


class Tokenizer:
    """As much of a tokenizer as Megatron's datasets ask for; its padding is no token."""

    vocab_size = 60_000
    eod = 0
    pad = -1
    unique_identifiers: dict[str, str] = {}  # noqa: RUF012 (json.dumps reads it)


def megatron_config(sequence_length, seed, *, extra=True, drop_last=True, **fields):
    return gpt_dataset.GPTDatasetConfig(
        random_seed=seed,
        sequence_length=sequence_length,
        tokenizer=Tokenizer(),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        add_extra_token_to_sequence=extra,
        drop_last_partial_validation_sequence=drop_last,
        **fields,
    )


def build_all(sizes, config):
    """Return what Megatron builds of its prefixes: train, valid and test."""
    builder = BlendedMegatronDatasetBuilder(gpt_dataset.GPTDataset, sizes, lambda: True, config)
    return builder.build()


def requests(weights, size, surplus):
    """Return the samples that the builder asks each dataset for."""
    per_dataset = _get_size_per_split_per_dataset(normalize(weights), [size], surplus=surplus)
    return [one for (one,) in per_dataset]


@contextmanager
def no_index_files(folder):
    """Let GPTDataset write its cache into `folder`, and BlendedDataset none: it needs ranks."""
    original = gpt_dataset.GPTDataset._build_document_sample_shuffle_indices

    def build(dataset):
        dataset.config.path_to_cache = str(folder / "cache")
        try:
            return original(dataset)
        finally:
            dataset.config.path_to_cache = None

    gpt_dataset.GPTDataset._build_document_sample_shuffle_indices = build
    try:
        yield
    finally:
        gpt_dataset.GPTDataset._build_document_sample_shuffle_indices = original


def split_bounds(split, num_sequences):
    """Return the sequences of each part, as the builder rounds them."""
    matrix = convert_split_vector_to_split_matrix(parse_and_normalize_split(split))
    return {
        part: edges and tuple(round(edge * float(num_sequences)) for edge in edges)
        for part, edges in zip(PARTS, matrix, strict=True)
    }


class Corpus:
    """Documents in memory, read by Megatron's GPTDataset and, as a split, by our orders.

    Token t of the whole is t + 1 (as if ids were that large), so that every id tells its place.
    """

    def __init__(self, lengths):
        self.sequence_lengths = np.asarray(lengths, dtype=np.int32)
        self._starts = np.concatenate(([0], np.cumsum(self.sequence_lengths, dtype=np.int64)))

    def get(self, number, offset=0, length=None):
        length = self.sequence_lengths[number] - offset if length is None else length
        first = self._starts[number] + 1 + offset
        return np.arange(first, first + length)

    def as_split(self):
        return SimpleNamespace(shards=[self], name="corpus")

    @property
    def prefix(self):
        return "corpus"

    @property
    def num_sequences(self):
        return len(self.sequence_lengths)

    @property
    def num_tokens(self):
        return int(self._starts[-1])

    @property
    def sequence_pointers(self):
        return self._starts[:-1] * 2

    @property
    def dtype(self):
        return np.dtype(np.uint16)

    def megatron(self, first, stop, num_samples, part, config):
        config.mock = True  # keeps it from writing index files
        indices = np.arange(first, stop, dtype=np.int32)
        return gpt_dataset.GPTDataset(self, None, indices, num_samples, Split[part], config)


def blend(sizes, weights, size):
    """Return Megatron's two blend indices over datasets of these sizes."""
    datasets = [SizedDataset(size_of_one) for size_of_one in sizes]
    config = SimpleNamespace(
        path_to_cache=None, defer_npy_index_mmap=False, mid_level_dataset_surplus=0.005
    )
    blended = BlendedDataset(datasets, weights, size, config)
    return blended.dataset_index, blended.dataset_sample_index


class SizedDataset:
    """A dataset of which only the length matters."""

    _numbers = itertools.count()

    def __init__(self, size):
        self.index_split = Split.train
        self.unique_identifiers = {"number": next(self._numbers)}
        self._size = size

    def __len__(self):
        return self._size
