"""Merging gives Megatron's bytes, a manifest that adds up, and drops what it is told to drop."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    DocumentFacts,
    DocumentNotFoundError,
    IndexedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    PrefixExistsError,
    SideStream,
    TokenizerMismatchError,
    TokenRangeError,
    chosen_documents,
    copying,
    merge,
    verify,
)
from gristmill.indexed_dataset import index as index_module
from gristmill.indexed_dataset.manifest import BlockHasher


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """What survives a power cut is no subject here, and hundreds of syncs take minutes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


DOCUMENTS = st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=10)


def content(prefix):
    dataset = IndexedDataset(prefix)
    return [dataset.get_document(number).tolist() for number in range(dataset.num_documents)]


def write(prefix, documents, *, offset=0, files=("a.jsonl",), language="eng_Latn", **fields):
    """Documents with origins (file number, row) and tables of counts, ten bytes of text each."""
    row = {
        "documents": len(documents),
        "tokens": sum(map(len, documents)),
        "text_bytes": 10 * len(documents),
    }
    with IndexedDatasetBuilder(prefix, vocab_size=100, empty_documents="empty_sequence") as builder:
        for number, document in enumerate(documents):
            builder.add_document(document, origin=(number % len(files), offset + number))
        builder.finalize(
            **{
                "eod_id": 0,
                "text_bytes": row["text_bytes"],
                "languages": {language: row},
                "sources": {"web": row},
                "origin_files": files,
                "tokenizer": {"path": "../tokenizer", "fingerprint": "ab"},
                "document_order": "shuffled",
                "split": "train",
                **fields,
            }
        )
    return prefix


def facts(language="eng_Latn"):
    return DocumentFacts(language, "web", 10)


@pytest.mark.parametrize("modes", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_merged_bytes_are_those_of_megatrons_builder(tmp_path, seed, modes):
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset", exc_type=ImportError)
    random = np.random.default_rng(seed)
    dtype = [np.uint16, np.int32, np.int64, np.float32, np.uint8, np.int16][seed]
    prefixes = [str(tmp_path / name) for name in "abcd"]
    for prefix in prefixes:
        builder = megatron.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype, multimodal=modes)
        for _ in range(random.integers(0, 30)):
            lengths = random.integers(0, 9, size=random.integers(0, 4)).tolist()
            tokens = random.integers(0, 100, sum(lengths)).astype(dtype)
            builder.add_document(tokens, lengths, *[[1] * len(lengths)][: int(modes)])
        builder.finalize(f"{prefix}.idx")
    theirs = megatron.IndexedDatasetBuilder(
        str(tmp_path / "theirs.bin"), dtype=dtype, multimodal=modes
    )
    for prefix in prefixes:
        theirs.add_index(prefix)
    theirs.finalize(str(tmp_path / "theirs.idx"))

    report = merge(prefixes, tmp_path / "ours")

    for suffix in (".bin", ".idx"):
        expected = (tmp_path / f"theirs{suffix}").read_bytes()
        assert (tmp_path / f"ours{suffix}").read_bytes() == expected, suffix
    assert verify(tmp_path / "ours", full=True).ok
    assert report.manifest.tokenizer is None
    assert "no manifest" in report.notes[0]


@given(corpora=st.lists(DOCUMENTS, min_size=1, max_size=4), data=st.data(), chunk=st.integers(1, 4))
@settings(max_examples=60)
def test_what_is_not_dropped_is_kept_and_counted(tmp_path_factory, corpora, data, chunk):
    """The same prefix as a builder writes that never saw the dropped documents."""
    folder = tmp_path_factory.mktemp("merge")
    prefixes, wanted, kept = [], {}, []
    for place, documents in enumerate(corpora):
        # The first name is shared by all inputs, the second is each one's own.
        files = ("shared", f"own{place}")
        prefixes.append(write(folder / f"in{place}", documents, files=files, offset=100 * place))
        for number, document in enumerate(documents):
            if data.draw(st.booleans()):
                wanted[files[number % 2], 100 * place + number] = facts()
            else:
                kept.append((document, files[number % 2], 100 * place + number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chosen_documents, "CHUNK_DOCUMENTS", chunk)
        report = merge(prefixes, folder / "out", drop_origins=wanted)
    write(folder / "expected", [document for document, _, _ in kept])
    dataset = IndexedDataset(folder / "out")

    assert report.num_dropped == len(wanted)
    assert content(folder / "out") == [document for document, _, _ in kept]
    for suffix in (".bin", ".idx"):
        expected = (folder / f"expected{suffix}").read_bytes()
        assert (folder / f"out{suffix}").read_bytes() == expected
    if any(corpora):
        origins = [dataset.origin(number) for number in range(len(kept))]
        assert origins == [(file, row) for _, file, row in kept]
        assert report.manifest.text_bytes == 10 * len(kept)
    assert verify(folder / "out", full=True).problems == ()
    assert report.manifest.max_token_id == max(
        (token for document, _, _ in kept for token in document), default=None
    )


def test_a_merged_manifest_adds_its_inputs_up(tmp_path):
    write(tmp_path / "in" / "a", [[1, 2], [3]], files=["x", "y"], language="eng_Latn")
    write(tmp_path / "in" / "b", [[4]], files=["y", "z"], offset=7, language="deu_Latn")
    manifest = merge([tmp_path / "in" / "a", tmp_path / "in" / "b.idx"], tmp_path / "c").manifest

    assert manifest == IndexedDataset(tmp_path / "c").manifest
    assert manifest.languages["eng_Latn"] == {"documents": 2, "tokens": 3, "text_bytes": 20}
    assert manifest.languages["deu_Latn"]["tokens"] == 1
    assert manifest.sources["web"] == {"documents": 3, "tokens": 4, "text_bytes": 30}
    assert manifest.origin_files == ("x", "y", "z")
    assert manifest.tokenizer == {"path": "tokenizer", "fingerprint": "ab"}
    assert (manifest.eod_id, manifest.vocab_size, manifest.split) == (0, 100, "train")
    assert manifest.document_order == "shuffled"
    assert [IndexedDataset(tmp_path / "c").origin(n) for n in range(3)] == [
        *(("x", 0), ("y", 1), ("y", 7))
    ]


def test_a_dataset_can_be_rewritten_in_place_without_some_documents(tmp_path):
    prefix = write(tmp_path / "a", [[1], [2], [3]], files=["x"])
    with pytest.raises(PrefixExistsError):
        merge([prefix], prefix)
    report = merge([prefix], prefix, drop_origins={("x", 1): facts()}, overwrite=True)

    assert content(prefix) == [[1], [3]]
    assert report.manifest.sources["web"]["documents"] == 2
    assert verify(prefix, full=True).ok


def test_a_document_that_is_nowhere_is_an_error_unless_that_is_allowed(tmp_path):
    prefix = write(tmp_path / "a", [[1], [2]], files=["x"])
    wanted = {("x", 1): facts(), ("x", 2): facts(), ("y", 1): facts()}
    with pytest.raises(DocumentNotFoundError, match=r"2 of the documents.*x 2, y 1\), and nothing"):
        merge([prefix], tmp_path / "b", drop_origins=wanted)
    assert not (tmp_path / "b.idx").exists()
    report = merge([prefix], tmp_path / "b", drop_origins=wanted, allow_missing=True)

    assert report.missing == (("x", 2), ("y", 1))
    assert content(tmp_path / "b") == [[1]]


def test_documents_without_known_facts_are_dropped_and_the_tables_left_out(tmp_path):
    prefix = write(tmp_path / "a", [[1], [2], [9]], files=["x"])
    report = merge([prefix], tmp_path / "b", drop_documents={0: [2, 0]})

    assert content(tmp_path / "b") == [[2]]
    assert report.manifest.languages == {}
    assert report.manifest.text_bytes is None
    assert report.manifest.max_token_id == 2
    assert "not known" in report.notes[0]
    with pytest.raises(DocumentNotFoundError, match="there is no document 3"):
        merge([prefix], tmp_path / "c", drop_documents={0: [3]})
    with pytest.raises(DocumentNotFoundError, match="there are 1, counted from 0"):
        merge([prefix], tmp_path / "c", drop_documents={1: [0]})


def test_nothing_can_be_dropped_by_origin_where_there_are_none(write_prefix, tmp_path):
    prefix = write_prefix([[1], [2]])
    with pytest.raises(IndexedDatasetError, match="does not say where its documents came from"):
        merge([prefix], tmp_path / "out", drop_origins={("x", 0): None})


def test_verdicts_of_another_run_are_refused(tmp_path):
    prefix = write(tmp_path / "a", [[1]], files=["x"])
    with pytest.raises(IndexedDatasetError, match="verdicts do not belong"):
        merge([prefix], tmp_path / "b", drop_origins={("x", 0): facts("fra_Latn")})


def test_the_wider_dtype_holds_both(tmp_path):
    for name, dtype, tokens in (("a", "uint16", [1, 65_535]), ("b", "int32", [2, 70_000])):
        with IndexedDatasetBuilder(tmp_path / name, dtype=dtype) as builder:
            builder.add_document(tokens)
    manifest = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c").manifest

    assert manifest.dtype == "int32"
    assert content(tmp_path / "c") == [[1, 65_535], [2, 70_000]]
    assert verify(tmp_path / "c", full=True).ok
    with IndexedDatasetBuilder(tmp_path / "d", dtype="float32") as builder:
        builder.add_document([1.5])
    with pytest.raises(IndexedDatasetError, match="some hold ids and some hold floats"):
        merge([tmp_path / "a", tmp_path / "d"], tmp_path / "e")


@pytest.mark.parametrize(
    "fields", [{"eod_id": 1}, {"tokenizer": {"path": "t", "fingerprint": "cd"}}]
)
def test_datasets_of_different_tokenizers_are_not_merged(tmp_path, fields):
    write(tmp_path / "a", [[1]])
    write(tmp_path / "b", [[1]], **fields)
    with pytest.raises(TokenizerMismatchError, match="the same id would mean"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")


def test_an_altered_input_that_holds_ids_outside_of_the_vocabulary_is_refused(tmp_path):
    write(tmp_path / "a", [[1, 2], [3]])
    data = bytearray((tmp_path / "a.bin").read_bytes())
    data[0:2] = (200).to_bytes(2, "little")
    (tmp_path / "a.bin").write_bytes(bytes(data))
    with pytest.raises(TokenRangeError, match="ids from 2 to 200, but the vocabulary has 100"):
        merge([tmp_path / "a"], tmp_path / "b", drop_documents={0: [1]})
    assert sorted(path.suffix for path in tmp_path.glob("b*")) == []


def test_a_damaged_index_is_not_copied_on(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "_CHECKED_AT_OPEN_BYTES", -1)  # as if it were large
    prefix = write(tmp_path / "a", [[1]] * 60)
    data = bytearray(Path(f"{prefix}.idx").read_bytes())
    data[34 + 4 * 60 + 8 * 10] += 2
    Path(f"{prefix}.idx").write_bytes(bytes(data))
    with pytest.raises(IndexedDatasetError, match=r"a\.idx: the sequences .* not in order"):
        merge([prefix], tmp_path / "b")
    assert list(tmp_path.glob("b*")) == []


def test_modes_are_for_all_sequences_or_for_none(tmp_path):
    for name, multimodal in (("a", True), ("b", False)):
        with IndexedDatasetBuilder(tmp_path / name, vocab_size=9, multimodal=multimodal) as builder:
            builder.add_document([1, 2])
    with pytest.raises(IndexedDatasetError, match="some have none"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")


def test_side_streams_travel_with_their_tokens(tmp_path):
    for name in "ab":
        with IndexedDatasetBuilder(
            tmp_path / name, vocab_size=9, streams={"loss_mask": "uint8"}
        ) as builder:
            for number in (1, 2, 3):
                tokens = [number] * number
                builder.add_document(tokens, streams={"loss_mask": [number % 2] * number})
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c", drop_documents={1: [1]})
    dataset = IndexedDataset(tmp_path / "c")
    mask = SideStream(dataset, "loss_mask")

    assert mask.read(0, dataset.num_tokens).tolist() == [1, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert verify(tmp_path / "c", full=True).ok
    with IndexedDatasetBuilder(tmp_path / "d", vocab_size=9) as builder:
        builder.add_document([1])
    with pytest.raises(IndexedDatasetError, match="side streams none, but"):
        merge([tmp_path / "a", tmp_path / "d"], tmp_path / "e")


def test_an_input_that_is_replaced_meanwhile_is_noticed(tmp_path):
    write(tmp_path / "a", [[1, 2]])

    def replace(done, total):
        Path(tmp_path / "a.idx").touch()

    with pytest.raises(IndexedDatasetError, match="was replaced while it was read"):
        merge([tmp_path / "a"], tmp_path / "b", progress=replace)
    assert list(tmp_path.glob("b*")) == []


@given(data=st.data())
def test_copied_spans_have_the_right_bytes_and_checksums(tmp_path_factory, data):
    """Small blocks and buffers, so that every boundary of the copy is met."""
    folder = tmp_path_factory.mktemp("copy")
    block = 16
    sources, arrays = [], []
    for place in range(3):
        dtype = np.dtype(data.draw(st.sampled_from(["<u2", "<i4"])))
        values = np.arange(data.draw(st.integers(1, 40)), dtype=dtype) + 100 * place
        path = folder / str(place)
        path.write_bytes(values.tobytes())
        hasher = BlockHasher(block)
        hasher.update(values.tobytes())
        known = data.draw(st.booleans())
        sources.append(
            copying.TokenSource(
                path=path,
                dtype=dtype,
                num_tokens=len(values),
                blocks=hasher.hexdigests() if known else (),
            )
        )
        arrays.append(values)
    spans = []
    for _ in range(data.draw(st.integers(0, 6))):
        source = data.draw(st.integers(0, 2))
        start = data.draw(st.integers(0, len(arrays[source])))
        spans.append((source, start, data.draw(st.integers(0, len(arrays[source]) - start))))
    dtype = np.dtype("<i4") if any(s.dtype.itemsize == 4 for s in sources) else np.dtype("<u2")
    with pytest.MonkeyPatch.context() as patch, open(folder / "out", "wb") as stream:
        patch.setattr(copying, "CHECKSUM_BLOCK_BYTES", block)
        patch.setattr(copying, "_BUFFER_BYTES", 8)
        copied = copying.copy_tokens(
            sources,
            np.array(spans, np.int64).reshape(-1, 3),
            stream.fileno(),
            dtype,
            find_range=data.draw(st.booleans()),
        )
    parts = [arrays[source][start : start + count] for source, start, count in spans]
    expected = np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype).tobytes()
    hasher = BlockHasher(block)
    hasher.update(expected)

    assert (folder / "out").read_bytes() == expected
    assert copied.blocks == hasher.hexdigests()


def test_blocks_that_lie_as_in_their_source_keep_its_checksums(tmp_path, monkeypatch):
    """Only what is not aligned is hashed: the rest is copied by the kernel."""
    tokens = np.random.default_rng(0).integers(0, 9, 70 << 20, dtype=np.uint8)
    for name in "ab":
        with IndexedDatasetBuilder(tmp_path / name, dtype="uint8") as builder:
            builder.add_documents(tokens, [len(tokens)])
    asked = []
    real = copying._Plan.known_digest

    def spy(self, *arguments):
        asked.append(real(self, *arguments))
        return asked[-1]

    monkeypatch.setattr(copying._Plan, "known_digest", spy)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")

    manifest = json.loads((tmp_path / "a.json").read_text())
    assert manifest["checksums"]["bin"][0] in asked
    assert asked.count(None) == len(asked) - 1
    assert verify(tmp_path / "c", full=True).ok
