"""What is written comes back, in whatever way it is asked for."""

import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    IndexedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    SampleDataset,
    TokenRangeError,
)
from gristmill.indexed_dataset.format import pack_header

DOCUMENTS = st.lists(st.lists(st.integers(0, 999), max_size=12), max_size=12)


def flat(documents):
    return np.array([token for document in documents for token in document], np.int64)


@given(documents=DOCUMENTS, batch=st.integers(1, 5), rule=st.booleans())
def test_documents_come_back_whatever_the_batches(tmp_path_factory, documents, batch, rule):
    folder = tmp_path_factory.mktemp("round")
    rule = "empty_sequence" if rule else "no_sequence"
    with IndexedDatasetBuilder(folder / "a", vocab_size=1000, empty_documents=rule) as builder:
        for first in range(0, len(documents), batch):
            part = documents[first : first + batch]
            builder.add_documents(flat(part), [len(d) for d in part])
        manifest = builder.finalize()
    with IndexedDatasetBuilder(folder / "b", vocab_size=1000, empty_documents=rule) as builder:
        for document in documents:
            builder.add_document(document)

    dataset = IndexedDataset(folder / "a")

    for suffix in (".bin", ".idx", ".json"):
        assert (folder / f"a{suffix}").read_bytes() == (folder / f"b{suffix}").read_bytes()
    assert [dataset.get_document(i).tolist() for i in range(len(documents))] == documents
    assert dataset.document_lengths.tolist() == [len(d) for d in documents]
    assert dataset.manifest == manifest
    kept = [d for d in documents if d or rule == "empty_sequence"]
    assert [tokens.tolist() for tokens in dataset[:]] == kept
    assert (manifest.num_documents, manifest.num_sequences) == (len(documents), len(kept))
    assert manifest.max_token_id == max(flat(documents).tolist(), default=None)


@given(documents=DOCUMENTS.filter(any), data=st.data())
def test_document_starts_come_from_the_index(tmp_path_factory, documents, data):
    prefix = tmp_path_factory.mktemp("starts") / "data"
    with IndexedDatasetBuilder(prefix, vocab_size=1000) as builder:
        for document in documents:
            half = len(document) // 2
            builder.add_document(document, [half, len(document) - half])
    dataset = IndexedDataset(prefix)
    ends = np.cumsum([len(d) for d in documents])
    starts = sorted({int(end) - len(d) for end, d in zip(ends, documents, strict=True) if d})
    low = data.draw(st.integers(0, int(ends[-1])))
    high = data.draw(st.integers(low, int(ends[-1]) + 3))

    assert dataset.document_starts(low, high).tolist() == [s for s in starts if low <= s < high]
    for position in range(dataset.num_tokens):
        number = dataset.document_at(position)
        assert ends[number] - len(documents[number]) <= position < ends[number]


def test_parts_slices_and_negative_numbers(write_prefix):
    dataset = IndexedDataset(write_prefix([[1, 2, 3, 4], [5], [6, 7]]))

    assert dataset.get(0, 1, 2).tolist() == [2, 3]
    assert dataset.get(0, offset=3).tolist() == [4]
    assert dataset[-1].tolist() == [6, 7]
    assert [tokens.tolist() for tokens in dataset[::2]] == [[1, 2, 3, 4], [6, 7]]
    assert dataset[np.int64(1)].tolist() == [5]
    assert dataset.dtype == np.uint16
    with pytest.raises(IndexError, match="sequence 3 was asked for, but there are 3"):
        dataset[3]
    with pytest.raises(IndexedDatasetError, match=r"4 tokens from offset 1.*has 4 tokens"):
        dataset.get(0, 1, 4)
    with pytest.raises(IndexedDatasetError, match=r"tokens 5 to 9.*there are 7"):
        dataset.read_tokens(5, 4)


def test_arrays_belong_to_the_caller(write_prefix):
    dataset = IndexedDataset(write_prefix([[1, 2, 3]]))
    dataset[0][:] = 9

    assert dataset[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", ["", ".bin", ".idx", ".json", ".origin"])
def test_any_file_of_a_prefix_names_it(write_prefix, suffix):
    prefix = write_prefix([[1, 2]])

    assert IndexedDataset(f"{prefix}{suffix}").prefix == str(prefix)


def test_a_dataset_pickles_as_its_path(write_prefix):
    prefix = write_prefix([[1, 2], [3]])
    dataset = IndexedDataset(prefix)
    assert dataset[1].tolist() == [3]
    copy = pickle.loads(pickle.dumps(dataset))

    assert copy[0].tolist() == [1, 2]
    assert copy.fingerprint == dataset.fingerprint
    frozen = pickle.dumps(dataset)
    write_prefix([[1, 2], [4]])
    with pytest.raises(IndexedDatasetError, match="was replaced by another dataset"):
        pickle.loads(frozen)


def test_an_empty_dataset_is_one(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "empty", vocab_size=10):
        pass
    dataset = IndexedDataset(tmp_path / "empty")

    assert (len(dataset), dataset.num_documents, dataset.num_tokens) == (0, 0, 0)
    assert dataset.manifest.max_token_id is None


def test_origins_lead_back_to_the_input(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=10) as builder:
        builder.add_document([1], origin=(1, 2**40))
        builder.add_documents([2, 3], [1, 1], origins=np.array([[0, 5], [1, 6]]))
        builder.finalize(origin_files=["a.jsonl", "b.jsonl"])
    dataset = IndexedDataset(tmp_path / "data")

    assert dataset.origin(0) == ("b.jsonl", 2**40)
    assert dataset.origin(-2) == ("a.jsonl", 5)
    raw = np.fromfile(tmp_path / "data.origin", "<i8").reshape(-1, 2)
    assert raw.tolist() == [[1, 2**40], [0, 5], [1, 6]]


def test_origins_come_for_all_documents_or_for_none(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=10) as builder:
        builder.add_document([1], origin=(0, 0))
        with pytest.raises(IndexedDatasetError, match="some documents come with their origin"):
            builder.add_document([2])
        with pytest.raises(IndexedDatasetError, match=r"shape \(1, 2\) for 2 documents"):
            builder.add_documents([2, 3], [1, 1], origins=np.zeros((1, 2), np.int64))

    assert IndexedDataset(tmp_path / "data").num_tokens == 1


@pytest.mark.parametrize(
    ("options", "ids", "message"),
    [
        ({"vocab_size": 1000}, [1, 1000], "token id 1000 does not fit vocab_size 1000"),
        ({"vocab_size": 1000}, [3, -1], "token id -1 does not fit vocab_size 1000"),
        ({"vocab_size": 70_000}, [70_000], "token id 70000 does not fit vocab_size 70000"),
        ({"dtype": "uint16"}, [65_536], "token id 65536 does not fit the dtype uint16"),
        ({"dtype": "int32"}, [2**31], "token id 2147483648 does not fit the dtype int32"),
        ({"dtype": "int32"}, np.array([2**63], np.uint64), "token id 9223372036854775808"),
    ],
)
def test_an_id_that_does_not_fit_is_named_and_not_written(tmp_path, options, ids, message):
    with IndexedDatasetBuilder(tmp_path / "data", **options) as builder:
        builder.add_document([1])
        with pytest.raises(TokenRangeError, match=message):
            builder.add_document(ids)
        with pytest.raises(TokenRangeError, match=message):
            builder.add_documents(ids, [len(ids)])
        builder.add_document([2])
    dataset = IndexedDataset(tmp_path / "data")

    assert [tokens.tolist() for tokens in dataset[:]] == [[1], [2]]
    assert dataset.manifest.max_token_id == 2


def test_what_is_not_a_list_of_ids_is_refused(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "data", vocab_size=10) as builder:
        with pytest.raises(IndexedDatasetError, match="dtype float64"):
            builder.add_document([1.5])
        with pytest.raises(IndexedDatasetError, match=r"shape \(1, 2\)"):
            builder.add_document([[1, 2]])
        with pytest.raises(IndexedDatasetError, match="add up to 3, but 2 tokens"):
            builder.add_document([1, 2], [1, 2])
        with pytest.raises(IndexedDatasetError, match="add up to 1, but 2 tokens"):
            builder.add_documents([1, 2], [1])
        with pytest.raises(IndexedDatasetError, match="length is -1"):
            builder.add_document([1, 2], [3, -1])


def test_the_width_of_a_token_must_follow_from_something(tmp_path):
    with pytest.raises(IndexedDatasetError, match="neither dtype nor vocab_size"):
        IndexedDatasetBuilder(tmp_path / "data")
    with pytest.raises(TokenRangeError, match=r"uint16 does not hold.*vocabulary of 70000"):
        IndexedDatasetBuilder(tmp_path / "data", dtype="uint16", vocab_size=70_000)
    assert list(tmp_path.iterdir()) == []


def test_more_tokens_than_31_bits_count_without_overflow(tmp_path):
    """A sparse .bin of 6 GB: positions and pointers beyond 2**31 tokens and bytes."""
    half = 1_600_000_000
    lengths = np.array([half, half, 3], "<i4")
    pointers = np.array([0, 2 * half, 4 * half], "<i8")
    (tmp_path / "big.idx").write_bytes(
        pack_header("uint16", 3, 4)
        + lengths.tobytes()
        + pointers.tobytes()
        + np.arange(4, dtype="<i8").tobytes()
    )
    with open(tmp_path / "big.bin", "wb") as stream:
        stream.truncate(4 * half)
        stream.seek(4 * half)
        stream.write(np.array([7, 8, 9], "<u2").tobytes())
    dataset = IndexedDataset(tmp_path / "big")

    assert dataset.num_tokens == 2 * half + 3
    assert dataset[2].tolist() == [7, 8, 9]
    assert dataset.get(1, half - 2).tolist() == [0, 0]
    assert dataset.document_lengths.sum() == 2 * half + 3
    assert dataset.document_starts(half, 2 * half + 1).tolist() == [half, 2 * half]


def test_more_documents_than_31_bits_count_are_read(tmp_path):
    """A sparse .idx of 43 GB: all documents are empty but two, one of them the last."""
    num = 2**31 + 5
    (tmp_path / "big.bin").write_bytes(np.array([7, 8, 9, 6], "<u2").tobytes())
    with open(tmp_path / "big.idx", "wb") as stream:
        stream.write(pack_header("uint16", num, num + 1))
        for place, value, dtype in (
            (34 + 4 * (num - 1), 3, "<i4"),  # the last two sequences have 1 and 3 tokens
            (34 + 4 * (num - 2), 1, "<i4"),
            (34 + 4 * num + 8 * (num - 1), 2, "<i8"),
            (34 + 12 * num + 8 * (num - 1), num - 1, "<i8"),
            (34 + 12 * num + 8 * num, num, "<i8"),
        ):
            stream.seek(place)
            stream.write(np.array(value, dtype).tobytes())
    dataset = IndexedDataset(tmp_path / "big")
    separate = SampleDataset(dataset, 2, order="sequential", documents="separate")

    assert (dataset.num_documents, dataset.num_sequences) == (num, num)
    assert dataset[-1].tolist() == [8, 9, 6]
    assert dataset[2**31 + 3].tolist() == dataset.get_document(num - 2).tolist() == [7]
    assert dataset[2**31 - 1].tolist() == dataset.get_document(0).tolist() == []
    assert dataset.document_starts(0, 4).tolist() == [0, 1]
    assert dataset.document_at(3) == num - 1
    assert separate[0]["cu_seqlens"].tolist() == [0, 1, 2]


def test_a_document_costs_the_builder_a_few_bytes_of_memory(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "a", vocab_size=10) as builder:
        builder.add_document([1, 2, 3])
        tracemalloc.start()
        for _ in range(20_000):
            builder.add_document([1, 2, 3])
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert held < 20_000 * 8 * 1.5
    assert IndexedDataset(tmp_path / "a").num_documents == 20_001
