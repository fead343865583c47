"""megatron-core 0.16.1 is the oracle: it reads what we write, and writes the same bytes."""

import logging

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDataset, IndexedDatasetBuilder
from gristmill.indexed_dataset.format import DTYPE_OF_CODE

logging.getLogger("megatron").setLevel(logging.ERROR)
megatron = pytest.importorskip(
    "megatron.core.datasets.indexed_dataset",
    reason="megatron-core is not installed (extra `test`, Linux only)",
    exc_type=ImportError,
)


def random_corpus(seed, dtype, empty_share=0.1):
    """Documents as (ids, sequence lengths), some empty and some of several sequences."""
    random = np.random.default_rng(seed)
    corpus = []
    for _ in range(random.integers(1, 40)):
        num_sequences = 0 if random.random() < empty_share else random.integers(1, 5)
        lengths = random.integers(0, 30, size=num_sequences).tolist()
        if dtype.kind == "f":
            tokens = random.standard_normal(sum(lengths))
        else:
            limit = min(int(np.iinfo(dtype).max), 2**40)
            tokens = random.integers(0, limit, size=sum(lengths), endpoint=True)
        corpus.append((tokens.astype(dtype), lengths))
    return corpus


def write_with_megatron(prefix, corpus, dtype):
    builder = megatron.IndexedDatasetBuilder(megatron.get_bin_path(str(prefix)), dtype=dtype.type)
    for tokens, lengths in corpus:
        builder.add_document(tokens, lengths)
    builder.finalize(megatron.get_idx_path(str(prefix)))


@pytest.mark.parametrize("dtype", DTYPE_OF_CODE.values(), ids=str)
@pytest.mark.parametrize("seed", range(5))
def test_our_bytes_are_those_of_megatrons_builder(tmp_path, dtype, seed):
    corpus = random_corpus(seed, dtype)
    write_with_megatron(tmp_path / "theirs", corpus, dtype)
    with IndexedDatasetBuilder(tmp_path / "ours", dtype=dtype) as builder:
        for tokens, lengths in corpus:
            builder.add_document(tokens, lengths)

    for suffix in (".bin", ".idx"):
        theirs = (tmp_path / f"theirs{suffix}").read_bytes()
        assert (tmp_path / f"ours{suffix}").read_bytes() == theirs, suffix


@pytest.mark.parametrize("mmap", [True, False])
def test_megatron_reads_every_token_that_we_write(tmp_path, mmap):
    corpus = [pair for pair in random_corpus(7, np.dtype("<i4")) if pair[0].size]
    with IndexedDatasetBuilder(tmp_path / "ours", vocab_size=2**31) as builder:
        builder.add_documents(
            np.concatenate([tokens for tokens, _ in corpus]), [len(t) for t, _ in corpus]
        )

    theirs = megatron.IndexedDataset(str(tmp_path / "ours"), mmap=mmap)

    assert len(theirs) == len(corpus)
    assert theirs.document_indices.tolist() == list(range(len(corpus) + 1))
    for number, (tokens, _) in enumerate(corpus):
        np.testing.assert_array_equal(theirs[number], tokens)


@pytest.mark.parametrize("seed", range(10))
def test_we_read_every_token_that_megatron_writes(tmp_path, seed):
    corpus = random_corpus(seed, np.dtype("<u2"))
    write_with_megatron(tmp_path / "theirs", corpus, np.dtype("<u2"))

    ours = IndexedDataset(tmp_path / "theirs")

    assert ours.manifest is None
    assert ours.num_documents == len(corpus)
    assert ours.document_lengths.tolist() == [len(tokens) for tokens, _ in corpus]
    for number, (tokens, _) in enumerate(corpus):
        np.testing.assert_array_equal(ours.get_document(number), tokens)
    assert len(ours) == sum(len(lengths) for _, lengths in corpus)
    theirs = megatron.IndexedDataset(str(tmp_path / "theirs"))
    for number in range(len(ours)):
        np.testing.assert_array_equal(ours[number], theirs[number])


def test_sequence_modes_of_a_multimodal_dataset_are_read(tmp_path):
    builder = megatron.IndexedDatasetBuilder(
        str(tmp_path / "images.bin"), dtype=np.int32, multimodal=True
    )
    builder.add_document(np.arange(5), [2, 3], [0, 1])
    builder.finalize(str(tmp_path / "images.idx"))

    dataset = IndexedDataset(tmp_path / "images")

    assert dataset.sequence_modes.tolist() == [0, 1]
    assert dataset[1].tolist() == [2, 3, 4]


def test_both_of_megatrons_rules_for_empty_documents(tmp_path):
    """add_document([], []) adds no sequence; add_documents of later versions an empty one."""
    write_with_megatron(
        tmp_path / "none", [(np.array([1]), [1]), (np.array([]), [])], np.dtype("<u2")
    )
    write_with_megatron(
        tmp_path / "one", [(np.array([1]), [1]), (np.array([]), [0])], np.dtype("<u2")
    )
    for rule, theirs in (("no_sequence", "none"), ("empty_sequence", "one")):
        with IndexedDatasetBuilder(
            tmp_path / rule, dtype="uint16", empty_documents=rule
        ) as builder:
            builder.add_document([1])
            builder.add_document([])
        with IndexedDatasetBuilder(
            tmp_path / f"{rule}_batch", dtype="uint16", empty_documents=rule
        ) as builder:
            builder.add_documents([1], [1, 0])
        expected = (tmp_path / f"{theirs}.idx").read_bytes()
        assert (tmp_path / f"{rule}.idx").read_bytes() == expected
        assert (tmp_path / f"{rule}_batch.idx").read_bytes() == expected
        assert IndexedDataset(tmp_path / rule).document_lengths.tolist() == [1, 0]
