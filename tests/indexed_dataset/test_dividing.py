"""Dividing keeps every document, in order, and cuts where it was asked to."""

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    PrefixExistsError,
    SideStream,
    chosen_documents,
    divide,
    find_prefixes,
    merge,
    verify,
)


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """What survives a power cut is no subject here, and hundreds of syncs take minutes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def write(prefix, lengths, **fields):
    with IndexedDatasetBuilder(prefix, vocab_size=1000, streams={"mask": "uint8"}) as builder:
        for number, length in enumerate(lengths):
            mask = [number % 2] * length
            tokens = [number + 1] * length
            builder.add_document(tokens, origin=(0, number), streams={"mask": mask})
        builder.finalize(origin_files=["a"], eod_id=0, split="train", group="g", **fields)
    return prefix


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=20),
    chunk=st.integers(1, 5),
    way=st.sampled_from(["num_shards", "max_tokens", "shares"]),
    data=st.data(),
)
@settings(max_examples=40)
def test_parts_put_together_again_are_the_whole(tmp_path_factory, lengths, chunk, way, data):
    folder = tmp_path_factory.mktemp("divide")
    write(folder / "whole", lengths)
    option = {
        "num_shards": st.integers(1, 5),
        "max_tokens": st.integers(1, 20),
        "shares": st.lists(st.floats(0.1, 1), min_size=1, max_size=4).map(
            lambda shares: {f"part{number}": share for number, share in enumerate(shares)}
        ),
    }[way]
    value = data.draw(option)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen_documents, "CHUNK_DOCUMENTS", chunk)
        error = None
        try:
            parts = divide(folder / "whole", folder / "out", **{way: value})
        except IndexedDatasetError as caught:
            error = caught
    if error is not None:
        num_parts = value if way == "num_shards" else len(value)
        assert f"too few for {num_parts} parts" in str(error)
        assert len(lengths) < num_parts
        return
    merge([part.prefix for part in parts], folder / "again")

    for suffix in (".bin", ".idx", ".origin", ".mask.side"):
        whole = (folder / f"whole{suffix}").read_bytes()
        assert (folder / f"again{suffix}").read_bytes() == whole, suffix
    for part in parts:
        assert verify(part.prefix, full=True).problems == ()
        assert part.manifest == IndexedDataset(part.prefix).manifest
    if way == "max_tokens":
        for part in parts:
            assert part.manifest.num_tokens <= value or part.manifest.num_documents == 1
        for part, following in pairwise(parts):  # as full as can be
            first = IndexedDataset(following.prefix).document_lengths[0]
            assert part.manifest.num_tokens + first > value
    if way == "num_shards":
        assert len(parts) == value
        for part in parts:
            assert part.manifest.num_tokens <= sum(lengths) / value + max(lengths)


def test_shards_have_the_names_and_numbers_of_a_group(tmp_path):
    write(tmp_path / "in" / "whole", [5, 5, 5, 5])
    parts = divide(tmp_path / "in" / "whole", tmp_path / "out" / "deu", num_shards=2)

    assert [part.manifest.shard for part in parts] == [0, 1]
    assert {part.manifest.num_shards for part in parts} == {2}
    assert {part.manifest.group for part in parts} == {"g"}
    assert find_prefixes(tmp_path / "out") == {"deu": [part.prefix for part in parts]}
    mask = SideStream(IndexedDataset(parts[1].prefix), "mask")
    assert mask.read(0, 10).tolist() == [0] * 5 + [1] * 5
    assert IndexedDataset(parts[1].prefix).origin(0) == ("a", 2)


def test_shares_are_named_and_the_name_is_the_split(tmp_path):
    write(tmp_path / "whole", [10] * 10)
    parts = divide(tmp_path / "whole", tmp_path / "x", shares={"train": 8, "validation": 2})

    assert [part.prefix for part in parts] == [f"{tmp_path}/x-train", f"{tmp_path}/x-validation"]
    assert [part.manifest.split for part in parts] == ["train", "validation"]
    assert [part.manifest.num_tokens for part in parts] == [80, 20]


def test_what_cannot_be_divided_is_refused_and_nothing_is_written(tmp_path):
    write(tmp_path / "whole", [3, 3])
    for options, message in (
        ({}, "exactly one of"),
        ({"num_shards": 2, "max_tokens": 3}, "exactly one of"),
        ({"num_shards": 3}, "2 documents, too few for 3 parts"),
        ({"num_shards": 0}, "give one or more"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"shares": {"a": 1.0, "b": 0.0}}, "all greater than 0"),
    ):
        with pytest.raises(IndexedDatasetError, match=message):
            divide(tmp_path / "whole", tmp_path / "out", **options)
    assert list(tmp_path.glob("out*")) == []


def test_a_part_that_exists_is_not_replaced_unasked(tmp_path):
    write(tmp_path / "whole", [3, 3])
    write(tmp_path / "out-00001-of-00002", [1])
    with pytest.raises(PrefixExistsError, match="out-00001-of-00002 exists"):
        divide(tmp_path / "whole", tmp_path / "out", num_shards=2)
    assert not (tmp_path / "out-00000-of-00002.idx").exists()
    divide(tmp_path / "whole", tmp_path / "out", num_shards=2, overwrite=True)

    assert np.array_equal(IndexedDataset(tmp_path / "out-00001-of-00002")[0], [2, 2, 2])
