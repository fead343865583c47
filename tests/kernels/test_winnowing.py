"""Chosen stretches: those of the readable twin, and one in every long copy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference

TEXTS = st.text(st.sampled_from("ab \né字ก😀"), max_size=60) | st.text(max_size=30)
SIZES = st.integers(4, 12)


def as_arrays(texts):
    documents = [text.encode() for text in texts]
    offsets = np.zeros(len(documents) + 1, np.int64)
    offsets[1:] = np.cumsum([len(text) for text in documents])
    return np.frombuffer(b"".join(documents), np.uint8), offsets


@given(st.lists(TEXTS, max_size=4), SIZES, SIZES)
def test_winnow(texts, length, spacing):
    arrays = as_arrays(texts)

    got = kernels.winnow(*arrays, length, spacing)
    expected = reference.winnow(*arrays, length, spacing)

    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.text("abcdefghé字", min_size=20, max_size=60), SIZES, SIZES)
def test_texts_that_share_a_long_passage_share_a_stretch_of_it(a, b, c, d, shared, length, spacing):
    if len(shared.encode()) < length + spacing - 1:
        return
    documents, starts, ends, hashes = kernels.winnow(
        *as_arrays([a + shared + b, c + shared + d]), length, spacing
    )

    assert set(hashes[documents == 0].tolist()) & set(hashes[documents == 1].tolist())
    assert (ends - starts <= length).all()
    assert (ends - starts > length - 4).all()


def test_stretches_begin_and_end_between_characters():
    data, offsets = as_arrays(["字体กขค😀é" * 30])

    _, starts, ends, _ = kernels.winnow(data, offsets, 10, 5)

    assert len(starts) > 20
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        data[start:end].tobytes().decode()


def test_uniform_text_has_few_stretches_and_sizes_that_are_too_small_are_refused():
    _, starts, _, hashes = kernels.winnow(*as_arrays(["=" * 10_000]), 100, 50)

    assert len(set(hashes.tolist())) == 1
    assert len(starts) == pytest.approx(10_000 / 50, abs=5)
    with pytest.raises(ValueError, match="both are 4 bytes or more"):
        kernels.winnow(*as_arrays(["a"]), 3, 4)
