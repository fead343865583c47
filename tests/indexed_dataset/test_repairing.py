"""A lost index comes back to the byte, or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetBuilder,
    RepairError,
    repair,
    repairing,
    verify,
)


@given(
    documents=st.lists(st.lists(st.integers(1, 99), max_size=9), max_size=9),
    has_last_eod=st.booleans(),
    chunk=st.integers(2, 20),
)
@settings(max_examples=40)
def test_a_lost_index_comes_back_to_the_byte(tmp_path_factory, documents, has_last_eod, chunk):
    prefix = tmp_path_factory.mktemp("repair") / "data"
    with IndexedDatasetBuilder(prefix, vocab_size=100) as builder:
        for number, document in enumerate(documents):
            is_last = number == len(documents) - 1
            if has_last_eod or not is_last:
                builder.add_document([*document, 0])
            elif document:
                builder.add_document(document)
        builder.finalize(eod_id=0)
    path = Path(f"{prefix}.idx")
    original = path.read_bytes()
    path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repairing, "_CHUNK_BYTES", chunk)
        report = repair(prefix)

    assert report.written
    assert path.read_bytes() == original
    assert verify(prefix, full=True).ok
    assert not repair(prefix).written


def test_a_damaged_index_is_replaced(write_prefix):
    prefix = write_prefix([[1, 2, 0], [3, 0]], origin_files=["a"])
    path = Path(f"{prefix}.idx")
    original = path.read_bytes()
    path.write_bytes(original[:-5] + b"\7" * 5)
    seen = []
    assert repair(prefix, progress=lambda done, total: seen.append((done, total))).written
    assert path.read_bytes() == original
    assert seen == [(10, 10)]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([[1, 0, 2, 0]], "finds 2 documents, and the manifest counts 1"),
        ([[1, 0], [], [2, 0]], "finds 2 documents, and the manifest counts 3"),
        ([[1], [2, 0]], "finds 1 documents, and the manifest counts 2"),
    ],
)
def test_what_is_not_the_index_is_not_written(write_prefix, documents, message):
    prefix = write_prefix(documents)
    Path(f"{prefix}.idx").unlink()
    with pytest.raises(RepairError, match=message):
        repair(prefix)
    assert not Path(f"{prefix}.idx").exists()
    assert list(Path(prefix).parent.glob("*.tmp-*")) == []
    assert Path(f"{prefix}.bin").exists()


def test_an_altered_bin_does_not_get_another_index(write_prefix):
    prefix = write_prefix([[1, 2, 0], [3, 0]])
    index, tokens = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    index.write_bytes(b"damaged")
    tokens.write_bytes(np.array([1, 0, 2, 3, 0], "<u2").tobytes())
    with pytest.raises(RepairError, match=r"the \.bin was altered"):
        repair(prefix)
    assert index.read_bytes() == b"damaged"


def test_what_is_needed_for_a_repair_is_named(write_prefix):
    prefix = write_prefix([[1, 0]])
    manifest = Path(f"{prefix}.json")
    fields = json.loads(manifest.read_text())
    Path(f"{prefix}.idx").unlink()
    manifest.write_text(json.dumps(fields | {"eod_id": None}))
    with pytest.raises(RepairError, match="names no end-of-document id"):
        repair(prefix)
    manifest.write_text(json.dumps(fields | {"checksums": None}))
    with pytest.raises(RepairError, match="has no checksums"):
        repair(prefix)
    manifest.write_text(json.dumps(fields))
    Path(f"{prefix}.bin").write_bytes(b"\1\0")
    with pytest.raises(RepairError, match="has 2 bytes, but the manifest counts 2 tokens in 4"):
        repair(prefix)
    Path(f"{prefix}.bin").unlink()
    with pytest.raises(RepairError, match="its tokens are lost"):
        repair(prefix)


def test_a_dataset_of_one_document_without_end_is_repaired(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "data", dtype="int32") as builder:
        builder.add_document([5, 6, 7])
        builder.finalize(eod_id=0)
    (tmp_path / "data.idx").unlink()
    repair(tmp_path / "data.bin")

    assert IndexedDataset(tmp_path / "data")[0].tolist() == [5, 6, 7]
