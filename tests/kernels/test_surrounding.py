"""Ids put around documents, beside the readable twin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference


@given(
    st.lists(st.lists(st.integers(0, 65_535), max_size=4), max_size=6),
    st.integers(-1, 65_535),
    st.integers(-1, 65_535),
    st.sampled_from([np.uint16, np.int32]),
)
def test_ids_around_documents_that_have_any(documents, before, after, dtype):
    tokens = np.array([one for ids in documents for one in ids], dtype)
    lengths = np.array([len(ids) for ids in documents], np.int64)

    got = kernels.surround_documents(tokens, lengths, before, after)
    expected = reference.surround_documents(tokens, lengths, before, after)

    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


def test_lengths_and_ids_that_do_not_fit_are_refused():
    tokens = np.zeros(3, np.uint16)
    with pytest.raises(ValueError, match="do not add up to 3 tokens"):
        kernels.surround_documents(tokens, np.array([1, 1], np.int64))
    with pytest.raises(ValueError, match="do not fit uint16"):
        kernels.surround_documents(tokens, np.array([3], np.int64), 65_536)
