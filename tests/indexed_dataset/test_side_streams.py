"""What stands beside the tokens: side streams and sequence modes, written, read and checked."""

import json
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    ManifestError,
    PrefixNotFoundError,
    SideStream,
    TokenRangeError,
    TruncatedDataError,
    verify,
)


def write(prefix, **options):
    streams = {"loss_mask": "uint8", "weight": "float32"}
    with IndexedDatasetBuilder(prefix, vocab_size=100, streams=streams, **options) as builder:
        builder.add_document([1, 2], streams={"loss_mask": [0, 1], "weight": [0.5, 2]})
        builder.add_documents(
            [3, 4, 5],
            [2, 1],
            streams={"loss_mask": np.array([True, False, True]), "weight": np.ones(3)},
        )
    return prefix


def test_side_streams_come_back_beside_their_tokens(tmp_path):
    dataset = IndexedDataset(write(tmp_path / "data"))
    mask, weight = SideStream(dataset, "loss_mask"), SideStream(dataset, "weight")

    assert dataset.read_tokens(1, 3).tolist() == [2, 3, 4]
    assert mask.read(1, 3).tolist() == [1, 1, 0]
    assert weight.read(0, 2).tolist() == [0.5, 2]
    assert (mask.dtype, weight.dtype) == (np.uint8, np.float32)
    assert (tmp_path / "data.loss_mask.side").read_bytes() == b"\0\1\1\0\1"
    entry = dataset.manifest.side_streams["loss_mask"]
    assert (entry.dtype, entry.suffix, entry.aligned_with) == ("uint8", ".loss_mask.side", "tokens")
    assert verify(tmp_path / "data", full=True).ok
    with pytest.raises(IndexedDatasetError, match="entries 3 to 6 were asked for, but there are 5"):
        mask.read(3, 3)
    with pytest.raises(IndexedDatasetError, match=r"no side stream 'x'; it has loss_mask, weight"):
        SideStream(dataset, "x")


def test_an_empty_dataset_has_its_side_streams_too(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "a", vocab_size=9, streams={"m": "uint8"}):
        pass
    assert len(SideStream(IndexedDataset(tmp_path / "a"), "m").read(0, 0)) == 0


def test_streams_and_tokens_must_match(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "a", vocab_size=9, streams={"m": "uint8"}) as builder:
        with pytest.raises(IndexedDatasetError, match=r"has the side streams \['m'\], but .* \[\]"):
            builder.add_document([1])
        with pytest.raises(IndexedDatasetError, match="2 entries for 1 tokens"):
            builder.add_document([1], streams={"m": [0, 1]})
        with pytest.raises(TokenRangeError, match="256 does not fit the dtype uint8"):
            builder.add_document([1], streams={"m": [256]})
        builder.add_document([2], streams={"m": [1]})
    assert IndexedDataset(tmp_path / "a")[0].tolist() == [2]


@pytest.mark.parametrize("name", ["", "Mask", "a-b", "../x", "1a"])
def test_a_stream_has_a_name_that_can_stand_in_a_file_name(tmp_path, name):
    with pytest.raises(ManifestError, match="cannot name a side stream"):
        IndexedDatasetBuilder(tmp_path / "a", vocab_size=9, streams={name: "uint8"})
    assert list(tmp_path.iterdir()) == []


def test_altered_cut_and_lost_side_streams_are_found(tmp_path):
    prefix = write(tmp_path / "data")
    path = tmp_path / "data.loss_mask.side"
    path.write_bytes(b"\0\1\1\1\1")
    assert verify(prefix).ok
    (problem,) = verify(prefix, full=True).problems
    assert f"{path}: block 0" in problem
    path.write_bytes(b"\0\1\1\0")
    (problem,) = verify(prefix).problems
    assert "has 4 bytes, but 5 tokens need 5" in problem
    assert len(verify(prefix, full=True).problems) == 1
    with pytest.raises(TruncatedDataError, match="loss_mask"):
        SideStream(IndexedDataset(prefix), "loss_mask")
    path.unlink()
    with pytest.raises(PrefixNotFoundError, match="which the manifest names"):
        SideStream(IndexedDataset(prefix), "loss_mask")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suffix": ".x.side"}, "has the suffix '.x.side'"),
        ({"suffix": "/etc/passwd"}, "has the suffix"),
        ({"dtype": "uint32"}, "\"dtype\" is 'uint32', not one of"),
        ({"dtype": "no such"}, "no such"),
        ({"aligned_with": "documents"}, '"aligned_with"'),
        ({"blocks": ["x"]}, '"blocks"'),
        ({"more": 1}, '"more" is not known'),
    ],
)
def test_a_damaged_entry_is_named(tmp_path, change, message):
    path = Path(f"{write(tmp_path / 'data')}.json")
    fields = json.loads(path.read_text())
    fields["side_streams"]["loss_mask"] |= change
    path.write_text(json.dumps(fields))
    with pytest.raises(ManifestError, match=message):
        IndexedDataset(tmp_path / "data")


def test_replacing_a_dataset_removes_the_side_streams_of_the_old_one(tmp_path):
    write(tmp_path / "data")
    (tmp_path / "data.x.mask.side").write_bytes(b"of the prefix data.x")
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=9, overwrite=True) as builder:
        builder.add_document([1])
    names = sorted(path.name for path in tmp_path.iterdir())

    assert names == ["data.bin", "data.idx", "data.json", "data.x.mask.side"]


def test_modes_come_back_with_their_sequences(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "a", vocab_size=99, multimodal=True) as builder:
        builder.add_document([1, 2, 3], [1, 2], modes=[1, 0])
        builder.add_document([])
        builder.add_documents([4, 5], [1, 0, 1], modes=[1, 1, 0])
        builder.add_document([6])
        with pytest.raises(IndexedDatasetError, match=r"modes has shape \(2,\) for 1 sequences"):
            builder.add_document([7], modes=[0, 1])
        with pytest.raises(IndexedDatasetError, match="does not fit int8"):
            builder.add_document([7], modes=[300])
    dataset = IndexedDataset(tmp_path / "a")

    assert dataset.sequence_modes.tolist() == [1, 0, 1, 0, 0]
    assert dataset.num_documents == 6
    assert verify(tmp_path / "a", full=True).ok
    with (
        IndexedDatasetBuilder(tmp_path / "b", vocab_size=9) as builder,
        pytest.raises(IndexedDatasetError, match="Make it with multimodal=True"),
    ):
        builder.add_document([1], modes=[1])
