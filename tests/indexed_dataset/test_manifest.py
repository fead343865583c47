"""PREFIX.json: the same content gives the same bytes, and a damaged one never passes."""

import hashlib
import json
from pathlib import Path

import pytest

from gristmill.indexed_dataset import (
    DatasetManifest,
    IndexedDataset,
    IndexedDatasetError,
    ManifestError,
    UnsupportedVersionError,
)
from gristmill.indexed_dataset.manifest import BlockHasher

ROW = {"documents": 2, "tokens": 5, "text_bytes": 9}


def test_the_manifest_on_disk_is_pinned(write_prefix):
    prefix = write_prefix(
        [[1, 2, 0], [3, 0]],
        vocab_size=1000,
        text_bytes=9,
        tokenizer={"path": "../tokenizer", "fingerprint": "ab"},
        split="train",
        group="eng_Latn",
        languages={"eng_Latn": ROW},
        sources={"wiki": ROW},
        config={"seed": 1},
        stages={"dedup": 1, "clean": 2},
    )
    text = Path(f"{prefix}.json").read_text()
    digest = hashlib.blake2b(Path(f"{prefix}.bin").read_bytes(), digest_size=16).hexdigest()
    index = hashlib.blake2b(Path(f"{prefix}.idx").read_bytes(), digest_size=16).hexdigest()

    assert json.loads(text) == {
        "schema_version": 1,
        "format": "MMIDIDX",
        "dtype": "uint16",
        "num_documents": 2,
        "num_sequences": 2,
        "num_tokens": 5,
        "text_bytes": 9,
        "vocab_size": 1000,
        "eod_id": 0,
        "max_token_id": 3,
        "tokenizer": {"path": "../tokenizer", "fingerprint": "ab"},
        "document_order": "shuffled",
        "split": "train",
        "group": "eng_Latn",
        "shard": 0,
        "num_shards": 1,
        "languages": {"eng_Latn": ROW},
        "sources": {"wiki": ROW},
        "origin_files": [],
        "side_streams": {},
        "checksums": {
            "algorithm": "blake2b-128",
            "block_bytes": 67108864,
            "bin": [digest],
            "idx": index,
            "origin": None,
        },
        "config": {"seed": 1},
        "stages": {"clean": 2, "dedup": 1},
        "gristmill": "0.1.0",
    }
    assert text == json.dumps(json.loads(text), sort_keys=True, indent=1) + "\n"
    manifest = IndexedDataset(prefix).manifest
    assert manifest.to_json() == text
    assert DatasetManifest.from_json(text, Path("x.json")) == manifest


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schema_version": 2}, UnsupportedVersionError, "schema_version 2.*reads 1"),
        ({"num_tokens": 6}, ManifestError, "num_tokens = 6, but the .bin and .idx have 5"),
        ({"num_documents": 1}, ManifestError, "num_documents = 1"),
        ({"dtype": "int16"}, ManifestError, "dtype = 'int16'"),
        ({"num_tokens": -5}, ManifestError, '"num_tokens" is -5, not a whole number'),
        ({"num_tokens": "5"}, ManifestError, '"num_tokens"'),
        ({"num_tokens": True}, ManifestError, '"num_tokens"'),
        ({"document_order": "random"}, ManifestError, "\"document_order\" is 'random'"),
        ({"languages": {"eng_Latn": {"tokens": 5}}}, ManifestError, '"languages"'),
        ({"checksums": {"bin": []}}, ManifestError, 'the field "algorithm" is missing'),
        ({"tokenizer": {"path": 3}}, ManifestError, '"tokenizer"'),
        ({"surprise": 1}, ManifestError, 'the field "surprise" is not known'),
        ({"num_shards": 0}, ManifestError, '"num_shards"'),
    ],
)
def test_a_wrong_field_is_named(write_prefix, change, error, message):
    path = Path(f"{write_prefix([[1, 2, 0], [3, 0]])}.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(error, match=message) as caught:
        IndexedDataset(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "3", '"a"', "{}", "[" * 100_000, "\x00"),
        '{"schema_version": NaN}',
        '{"schema_version": ' + "9" * 10_000 + "}",
    ],
    ids=lambda text: text[:12],
)
def test_what_is_not_a_manifest_is_refused(write_prefix, text):
    path = Path(f"{write_prefix([[1, 2]])}.json")
    path.write_text(text)

    with pytest.raises(IndexedDatasetError, match=r"data\.json"):
        IndexedDataset(path)


def test_a_missing_field_is_named(write_prefix):
    path = Path(f"{write_prefix([[1, 2]])}.json")
    raw = json.loads(path.read_text())
    for name in raw:
        path.write_text(json.dumps({key: raw[key] for key in raw if key != name}))
        with pytest.raises(ManifestError, match=name):
            IndexedDataset(path)


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 30, 35])
@pytest.mark.parametrize("piece", [1, 3, 10, 50])
def test_block_digests_do_not_depend_on_the_pieces(total, piece):
    data = bytes(range(total))
    hasher = BlockHasher(block_bytes=10)
    for first in range(0, total, piece):
        hasher.update(data[first : first + piece])

    blocks = [data[first : first + 10] for first in range(0, total, 10)]
    assert hasher.hexdigests() == tuple(
        hashlib.blake2b(block, digest_size=16).hexdigest() for block in blocks
    )
