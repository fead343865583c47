"""A finished file of tokens becomes a prefix: the bytes that a builder writes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    DatasetManifest,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    PrefixExistsError,
    verify,
)
from gristmill.indexed_dataset.adopting import adopt_tokens
from gristmill.indexed_dataset.manifest import BlockHasher

LENGTHS = np.array([3, 0, 5, 1, 0], np.int32)
TOKENS = np.arange(9, dtype=np.uint16)
ORIGINS = np.array([[0, n] for n in range(5)], np.int64)


def manifest() -> DatasetManifest:
    return DatasetManifest(
        dtype="uint16", num_documents=0, num_sequences=0, num_tokens=0, vocab_size=20, eod_id=2,
        max_token_id=8, origin_files=("a",),
    )  # fmt: skip


def blocks() -> tuple[str, ...]:
    hasher = BlockHasher()
    hasher.update(TOKENS.tobytes())
    return hasher.hexdigests()


def adopt(folder: Path, **options: object) -> DatasetManifest:
    path = folder / "tokens"
    path.write_bytes(TOKENS.tobytes())
    chunks = [(LENGTHS[:2], ORIGINS[:2]), (LENGTHS[2:], ORIGINS[2:])]
    return adopt_tokens(folder / "out", path, chunks, blocks(), manifest(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("empty", ["no_sequence", "empty_sequence"])
def test_the_files_are_those_of_a_builder(tmp_path: Path, empty: str) -> None:
    with IndexedDatasetBuilder(tmp_path / "built", vocab_size=20, empty_documents=empty) as builder:
        builder.add_documents(TOKENS, LENGTHS, origins=ORIGINS)
        builder.finalize(eod_id=2, origin_files=("a",))

    adopt(tmp_path, empty_documents=empty)

    for end in (".bin", ".idx", ".json", ".origin"):
        ours, theirs = (tmp_path / f"{name}{end}" for name in ("out", "built"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert verify(tmp_path / "out", full=True).ok


def test_no_token_is_copied_and_the_file_may_go(tmp_path: Path) -> None:
    adopt(tmp_path)

    assert (tmp_path / "tokens").stat().st_ino == (tmp_path / "out.bin").stat().st_ino
    (tmp_path / "tokens").unlink()
    assert verify(tmp_path / "out", full=True).ok


def test_where_there_are_no_links_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    adopt(tmp_path)

    assert (tmp_path / "out.bin").read_bytes() == TOKENS.tobytes()
    assert (tmp_path / "tokens").stat().st_ino != (tmp_path / "out.bin").stat().st_ino


def test_a_file_of_another_size_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(TOKENS[:-1].tobytes())

    with pytest.raises(IndexedDatasetError, match="add up to 18"):
        adopt_tokens(tmp_path / "out", path, [(LENGTHS, ORIGINS)], blocks(), manifest())

    assert [one.name for one in tmp_path.iterdir()] == ["tokens"]


def test_an_existing_prefix_is_replaced_only_on_request(tmp_path: Path) -> None:
    adopt(tmp_path)
    with pytest.raises(PrefixExistsError):
        adopt(tmp_path)

    adopt(tmp_path, overwrite=True)
    assert verify(tmp_path / "out", full=True).ok
