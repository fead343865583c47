"""Order `stable`: every window once an epoch, whatever else changes around it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import (
    BlendedDataset,
    IndexedDatasetBuilder,
    IndexedDatasetError,
    Phase,
    PhasedBlend,
    SampleDataset,
    UnknownOrderError,
)
from gristmill.indexed_dataset.stable import StableOrder

ARRAYS = ("tokens", "labels", "loss_mask", "position_ids")
ORDERS = st.builds(
    StableOrder,
    num_tokens=st.integers(1, 3000),
    sequence_length=st.integers(1, 64),
    seed=st.integers(0, 2**63),
    fingerprint=st.text("0123456789abcdef", min_size=32, max_size=32),
)


@given(order=ORDERS, epoch=st.integers(0, 5))
def test_every_window_is_visited_once_an_epoch(order, epoch):
    size, num = order.sequence_length, order.samples_per_epoch
    starts = sorted(order.window_start(epoch * num + i) for i in range(num))
    if order.num_tokens < size:
        assert starts == [0]
        return
    offset = starts[0]

    assert num == order.num_tokens // size
    assert 0 <= offset < size
    assert offset == 0 or epoch > 0
    assert starts == [offset + i * size for i in range(num)]
    assert starts[-1] < order.num_tokens


@given(order=ORDERS.filter(lambda order: order.num_tokens >= order.sequence_length))
def test_an_epoch_covers_the_ring_but_for_less_than_one_window(order):
    num = order.samples_per_epoch
    seen = np.zeros(order.num_tokens, int)
    for position in range(num, 2 * num):
        window = np.arange(order.sequence_length) + order.window_start(position)
        seen[window % order.num_tokens] += 1

    assert seen.max() == 1
    assert (seen == 0).sum() == order.num_tokens % order.sequence_length


@given(
    num_windows=st.integers(1, 1500),
    stride=st.integers(1, 7),
    first=st.integers(0, 5000),
    jumps=st.lists(st.integers(0, 9000), max_size=20),
)
def test_places_do_not_depend_on_what_was_asked_before(num_windows, stride, first, jumps):
    """Read on, with any stride, places come from blocks computed together; alone, one by one."""
    fresh = lambda: StableOrder(3 * num_windows + 2, 3, 7, "ab")  # noqa: E731
    order = fresh()
    for position in [*range(first, first + 600, stride), *jumps, *jumps, *range(40)]:
        assert order.window_start(position) == fresh().window_start(position)


def test_threads_that_share_an_order_get_the_same_places():
    order = StableOrder(5_000, 2, 7, "ab")
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(order.window_start, [*range(5_000)] * 4, chunksize=1))

    fresh = StableOrder(5_000, 2, 7, "ab")
    assert got == [fresh.window_start(i) for i in range(5_000)] * 4


def test_epochs_differ_in_order_and_in_offset():
    order = StableOrder(10_000, 16, 1, "a")
    num = order.samples_per_epoch
    epochs = [[order.window_start(e * num + i) for i in range(num)] for e in range(20)]

    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert len({min(epoch) for epoch in epochs}) > 8


def test_the_order_is_pinned():
    """A change here changes the data order of every run that is resumed."""
    order = StableOrder(1000, 10, 1234, "00112233445566778899aabbccddeeff")

    assert [order.window_start(i) for i in range(6)] == [380, 620, 300, 80, 440, 530]
    assert [order.window_start(100 + i) for i in range(6)] == [6, 736, 926, 576, 86, 456]
    assert order.identity == "stable 2 seed 1234"
    few, many = (StableOrder(10 * n, 10, 1234, order.fingerprint) for n in (5, 1000))
    assert [few.window_start(i) for i in range(5)] == [30, 10, 40, 20, 0]
    assert [many.window_start(i) for i in range(5)] == [7200, 2730, 9050, 6040, 2000]


@pytest.mark.parametrize("change", ["nothing", "seed", "data"])
def test_another_seed_or_other_data_give_another_order(write_prefix, change):
    documents = [[number, 0] for number in range(1, 201)]
    base = SampleDataset(write_prefix(documents, "a"), 8, seed=1)
    if change == "data":  # one token of the same size in one place
        documents[50][0] += 1
    other = SampleDataset(write_prefix(documents, "b"), 8, seed=2 if change == "seed" else 1)
    orders = [[d._order.window_start(i) for i in range(50)] for d in (base, other)]

    assert (orders[0] == orders[1]) == (change == "nothing")


def test_the_order_does_not_depend_on_the_length_of_the_run(write_prefix, random_documents):
    prefix = write_prefix(random_documents(100))
    short, long = (SampleDataset(prefix, 16, seed=5, num_samples=n) for n in (10, 10_000))

    assert (len(short), len(long)) == (10, 10_000)
    for position in range(10):
        np.testing.assert_array_equal(short[position]["tokens"], long[position]["tokens"])


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_ranks_share_the_samples_of_an_epoch(write_prefix, random_documents, world_size):
    dataset = SampleDataset(write_prefix(random_documents(100)), 16)
    shards = [
        [tuple(dataset[i]["tokens"]) for i in range(rank, len(dataset), world_size)]
        for rank in range(world_size)
    ]

    assert sorted(chain.from_iterable(shards)) == sorted(
        tuple(dataset.split.read(16 * i, 16)) for i in range(len(dataset))
    )


def test_samples_are_windows_with_the_next_token_as_label(write_prefix, random_documents):
    documents = random_documents(100)
    tokens = np.concatenate(documents)
    dataset = SampleDataset(write_prefix(documents), 16, seed=3)
    for position in range(3 * len(dataset)):
        sample = dataset.sample(position)
        start = dataset._order.window_start(position)
        window = np.arange(start, start + 17) % len(tokens)
        np.testing.assert_array_equal(sample["tokens"], tokens[window[:-1]])
        np.testing.assert_array_equal(sample["labels"], tokens[window[1:]])
        assert sample["loss_mask"].all()
        np.testing.assert_array_equal(sample["position_ids"], np.arange(16))
        kinds = [sample[key].dtype.str for key in ("tokens", "labels", "loss_mask", "position_ids")]
        assert kinds == ["<i8", "<i8", "<f4", "<i8"]


def test_shards_are_read_as_one_line_of_tokens(write_prefix, random_documents):
    documents = random_documents(60)
    whole = SampleDataset(write_prefix(documents), 64, seed=3)
    cuts = [0, 1, 20, 21, 22, 60]
    prefixes = [
        write_prefix(documents[a:b], f"eng_Latn-{i:05d}-of-00005", shard=i, num_shards=5)
        for i, (a, b) in enumerate(pairwise(cuts))
    ]
    shards = SampleDataset(prefixes, 64, seed=3, documents="separate")

    assert shards.num_tokens == whole.num_tokens
    assert shards.fingerprint != whole.fingerprint
    np.testing.assert_array_equal(
        shards.split.read(0, shards.num_tokens), np.concatenate(documents)
    )
    np.testing.assert_array_equal(
        shards.split.document_starts(5, shards.num_tokens),
        whole.split.document_starts(5, whole.num_tokens),
    )


@pytest.mark.parametrize("num_tokens", [1, 2, 5, 7])
def test_a_split_shorter_than_a_sample_gives_one_padded_one(write_prefix, num_tokens):
    dataset = SampleDataset(write_prefix([list(range(1, num_tokens + 1))]), 8)
    assert len(dataset) == 1
    for position in (0, 1, 77):
        sample = dataset.sample(position)
        padding = [0] * (8 - num_tokens)
        assert sample["tokens"].tolist() == [*range(1, num_tokens + 1), *padding]
        assert sample["labels"].tolist() == [*range(2, num_tokens + 1), 0, *padding]
        assert sample["loss_mask"].tolist() == [1] * (num_tokens - 1) + [0] * (9 - num_tokens)
    assert dataset.num_scored_tokens == num_tokens - 1


@pytest.mark.parametrize("order", ["stable", "megatron", "sequential"])
@pytest.mark.parametrize("documents", ["joined", "separate"])
def test_what_may_be_changed_in_a_sample_is_its_own(write_prefix, order, documents):
    """Constant arrays are shared and cannot be changed; a changed array changes nothing else."""
    dataset = SampleDataset(
        write_prefix([list(range(1, 23))]), 8, order=order, documents=documents, eod_id=0
    )
    for position in range(len(dataset)):
        for changed in ARRAYS:
            sample = dataset[position]
            before = {key: np.copy(value) for key, value in sample.items()}
            try:
                sample[changed][:] = -1
            except ValueError as error:
                assert "read-only" in str(error)
                assert changed in ("loss_mask", "position_ids")
            again = dataset[position]
            for key, value in before.items():
                np.testing.assert_array_equal(again[key], value)
                if key != changed:
                    np.testing.assert_array_equal(sample[key], value)


def test_a_pytorch_loader_gets_samples_whose_arrays_are_all_their_own(write_prefix):
    dataset = SampleDataset(write_prefix([list(range(1, 23))]), 8)
    blend = BlendedDataset([dataset])
    phases = PhasedBlend([dataset.split], [Phase(sequence_length=8)])
    for source in (dataset, blend, phases):
        samples = source.__getitems__([1, -1, 0])
        for position, sample in zip((1, len(source) - 1, 0), samples, strict=True):
            for key, value in source[position].items():
                np.testing.assert_array_equal(sample[key], value)
            for key in ARRAYS:
                sample[key][:] = 7
        assert dataset[0]["loss_mask"].tolist() == [1] * 8


def test_numbers_outside_are_refused(write_prefix):
    dataset = SampleDataset(write_prefix([list(range(1, 21))]), 8)

    np.testing.assert_array_equal(dataset[-1]["tokens"], dataset[1]["tokens"])
    with pytest.raises(IndexError, match="sample 2 was asked for, but there are 2"):
        dataset[2]
    assert len(list(dataset)) == 2


@pytest.mark.parametrize("option", [{"order": "shuffled"}, {"documents": "apart"}])
def test_an_order_that_is_not_offered_is_refused_with_those_that_are(write_prefix, option):
    with pytest.raises(
        UnknownOrderError, match=r"is not offered\. Choose one of: (stable|joined), "
    ):
        SampleDataset(write_prefix([[1, 2, 3]]), 2, **option)


def test_documents_in_input_order_get_a_warning(write_prefix, caplog):
    with caplog.at_level(logging.WARNING):
        SampleDataset(write_prefix([[1, 2, 3]], "a", document_order="shuffled"), 2)
        assert not caplog.records
        SampleDataset(write_prefix([[1, 2, 3]], "b", document_order="input"), 2)

    assert "lie in the order of the input" in caplog.text


def test_data_without_tokens_is_refused(tmp_path):
    with IndexedDatasetBuilder(tmp_path / "none", vocab_size=9):
        pass
    with pytest.raises(IndexedDatasetError, match="holds no token"):
        SampleDataset(tmp_path / "none", 8)
    with pytest.raises(IndexedDatasetError, match="no prefix was given"):
        SampleDataset([], 8)
    with pytest.raises(IndexedDatasetError, match="sequence_length is 0"):
        SampleDataset(tmp_path / "none", 0)
