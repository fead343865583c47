"""From a sample back to the documents that it was cut from."""

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDataset, SampleDataset, passages


@pytest.mark.parametrize("order", ["stable", "sequential"])
@pytest.mark.parametrize("eod_id", [0, None])
def test_the_passages_of_a_sample_are_its_tokens(write_prefix, random_documents, order, eod_id):
    shards = [
        write_prefix(
            [*random_documents(30, seed=n), [], [5, 0], []], f"s{n}", group="all", eod_id=eod_id
        )
        for n in range(3)
    ]
    dataset = SampleDataset(shards, 16, order=order)
    epochs = 2 if order == "stable" else 1
    for index in range(epochs * dataset.samples_per_epoch):
        sample = dataset.sample(index)
        found = passages(dataset, index)
        num_tokens = min(int(sample["loss_mask"].sum()) + 1, 16)

        assert sum(passage.num_tokens for passage in found) >= num_tokens - (found[0].offset == 1)
        for passage in found:
            place = slice(passage.offset, passage.offset + passage.num_tokens)
            np.testing.assert_array_equal(passage.read(), sample["tokens"][place])
            document = passage.shard.get_document(passage.document)
            assert passage.document_tokens == len(document)
            np.testing.assert_array_equal(document[passage.first_token :][: passage.num_tokens],
                                          passage.read())  # fmt: skip
        ends = [passage.offset + passage.num_tokens for passage in found]
        assert [passage.offset for passage in found[1:]] == ends[:-1]


def test_a_document_knows_where_it_lies(write_prefix):
    dataset = IndexedDataset(write_prefix([[1, 2, 0], [], [3, 0]]))

    assert [dataset.document_span(n) for n in range(3)] == [(0, 3), (3, 3), (3, 5)]
    with pytest.raises(IndexError, match="document 3 was asked for"):
        dataset.document_span(3)
