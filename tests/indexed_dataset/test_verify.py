"""`verify` lists everything that is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import index as index_module
from gristmill.indexed_dataset import verify


def change(prefix, **fields):
    path = Path(f"{prefix}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_good_prefix_has_no_problems(write_prefix, random_documents):
    prefix = write_prefix(random_documents(20))
    report = verify(prefix, full=True)

    assert report.ok
    assert report.unchecked == ()
    assert report.num_documents == 20
    assert verify(f"{prefix}.idx").unchecked == ("tokens: not read (full verification does)",)


def test_a_prefix_that_does_not_open_is_a_problem_and_not_an_error(tmp_path):
    report = verify(tmp_path / "none")

    assert not report.ok
    assert "there is no file" in report.problems[0]


def test_an_index_entry_that_opening_does_not_look_at_is_found(write_prefix, monkeypatch):
    monkeypatch.setattr(index_module, "_CHECKED_AT_OPEN_BYTES", -1)
    prefix = write_prefix([[1, 2], [3], [4], [5]])
    path = Path(f"{prefix}.idx")
    data = bytearray(path.read_bytes())
    data[34 + 4 * 4 + 8] += 2  # the second of four pointers
    path.write_bytes(bytes(data))

    assert any("sequence 1 is said to start" in problem for problem in verify(prefix).problems)
    assert any("idx has checksum" in problem for problem in verify(prefix, full=True).problems)


def test_another_tokenizer_is_found(write_prefix):
    prefix = write_prefix([[1]], tokenizer={"path": "../tokenizer", "fingerprint": "ab"})

    assert verify(prefix, tokenizer_fingerprint="ab").ok
    (problem,) = verify(prefix, tokenizer_fingerprint="cd").problems
    assert "made with tokenizer ab, not cd" in problem


def test_ids_out_of_range_are_found(write_prefix):
    prefix = write_prefix([[1, 500]], vocab_size=1000)
    change(prefix, vocab_size=400)

    assert "max_token_id 500 is not below vocab_size 400" in verify(prefix).problems[0]
    problems = verify(prefix, full=True).problems
    assert any("ids go from 0 to 500" in p or "ids go from 1 to 500" in p for p in problems)


def test_counts_that_do_not_add_up_are_found(write_prefix):
    row = {"documents": 1, "tokens": 2, "text_bytes": 3}
    prefix = write_prefix([[1, 2]], languages={"eng_Latn": row}, text_bytes=3)
    change(prefix, sources={"wiki": row | {"tokens": 9}})

    (problem,) = verify(prefix).problems
    assert "the tokens of all sources add up to 9, not 2" in problem


@pytest.mark.parametrize("altered", [True, False])
def test_an_origin_file_that_is_altered_or_missing_is_found(tmp_path, altered):
    from gristmill.indexed_dataset import IndexedDatasetBuilder

    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=9) as builder:
        builder.add_documents([1, 2], [1, 1], origins=np.array([[0, 1], [0, 2]]))
        builder.finalize(origin_files=["a"])
    path = tmp_path / "data.origin"
    path.write_bytes(b"\1" + path.read_bytes()[1:]) if altered else path.unlink()

    (problem,) = verify(tmp_path / "data", full=True).problems
    assert "data.origin" in problem
    assert ("has checksum" if altered else "there is no file") in problem


def test_what_a_foreign_dataset_cannot_show_is_said(write_prefix):
    prefix = write_prefix([[1, 2]])
    Path(f"{prefix}.json").unlink()
    report = verify(prefix, full=True)

    assert report.ok
    assert "there is no manifest" in report.unchecked[0]
