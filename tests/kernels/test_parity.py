"""Each kernel gives what its readable twin gives, on texts of many scripts and on odd bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference

ALPHABET = st.sampled_from(
    [
        *"aBc Dé Ünß xyz\n,.!+=<=<9٣๕漢字世界人民國かなカナｶﾅー",
        *"กำแพงน้ำကျောင်းབོད་ཡིགខ្មែរहिन्दी",
        *"\u0301\u200d\ufe0f😀👍\u0345\U00020000\ue000ΣςſK",
    ]
)
TEXTS = st.text(ALPHABET, max_size=150) | st.text(max_size=40)
DOCUMENTS = st.lists(TEXTS.map(str.encode) | st.binary(max_size=60), max_size=5)
SEEDS = st.integers(0, 2**32 - 1)
FEW_VALUES = st.integers(0, 12) | st.sampled_from([2**63, 2**64 - 1, 2**63 - 1, 2**53 + 1])


def as_arrays(documents):
    offsets = np.zeros(len(documents) + 1, np.int64)
    offsets[1:] = np.cumsum([len(text) for text in documents])
    return np.frombuffer(b"".join(documents), np.uint8), offsets


def as_set(values):
    return np.array(sorted(set(values)), np.uint64)


@given(DOCUMENTS, SEEDS)
def test_hashes_of_documents(documents, seed):
    arrays = as_arrays(documents)

    np.testing.assert_array_equal(
        kernels.hash_documents(*arrays, seed), reference.hash_documents(*arrays, seed)
    )


@given(DOCUMENTS, st.integers(1, 5), st.integers(1, 7), SEEDS)
def test_band_keys(documents, num_bands, rows, seed):
    arrays = as_arrays(documents)

    np.testing.assert_array_equal(
        kernels.band_keys(*arrays, num_bands, rows, seed),
        reference.band_keys(*arrays, num_bands, rows, seed),
    )


@given(DOCUMENTS, SEEDS, st.integers(1, 40))
def test_shingle_lists_whole_and_sampled(documents, seed, max_size):
    arrays = as_arrays(documents)

    for size in (max_size, 1 << 17):
        got = kernels.shingle_lists(*arrays, seed, size)
        expected = reference.shingle_lists(*arrays, seed, size)
        for mine, theirs in zip(got, expected, strict=True):
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(mine, theirs)


def as_lists(lists):
    """Return lists of numbers as (values, offsets)."""
    offsets = np.zeros(len(lists) + 1, np.int64)
    offsets[1:] = np.cumsum([len(values) for values in lists])
    return np.array([value for values in lists for value in values], np.uint64), offsets


SHINGLE_LISTS = st.lists(
    st.tuples(st.lists(FEW_VALUES, max_size=30), st.integers(0, 3), st.sampled_from([0, 1, 2**63]))
)


@given(SHINGLE_LISTS, st.sets(FEW_VALUES), st.booleans())
def test_sets_and_payloads_of_shingle_lists(documents, frequent, with_many):
    values, offsets = as_lists([values for values, _, _ in documents])
    windows = np.array([window for _, window, _ in documents], np.uint8)
    sources = np.array([source for _, _, source in documents], np.uint64)
    many = {place << 53 for place in range(2000)} if with_many else set()
    arguments = values, offsets, windows, sources, as_set(frequent | many)

    got, expected = kernels.shingle_sets(*arguments), reference.shingle_sets(*arguments)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@given(SHINGLE_LISTS, FEW_VALUES, FEW_VALUES)
def test_shingles_of_a_source(documents, low, high):
    values, offsets = as_lists([values for values, _, _ in documents])
    sources = np.array([source for _, _, source in documents], np.uint64)
    arguments = values, offsets[:-1], np.diff(offsets), sources, low, high

    np.testing.assert_array_equal(
        kernels.source_shingles(*arguments), reference.source_shingles(*arguments)
    )


@given(st.lists(FEW_VALUES), st.lists(FEW_VALUES), st.integers(0, 63))
def test_jaccard_of_sets(left, right, shift):
    sets = as_set(left), as_set(right)

    assert kernels.set_jaccard(*sets, shift) == reference.set_jaccard(*sets, shift)


@given(
    st.lists(
        st.tuples(
            st.lists(FEW_VALUES),
            st.lists(FEW_VALUES, max_size=4),
            st.lists(st.integers(0, 5), max_size=3, unique=True),
            st.booleans(),
        )
    ),
    st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.8, 1.0]),
    st.floats(0, 1),
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.integers(1, 3),
)
def test_verified_groups(
    documents, threshold, overlap, among_new, all_pairs, max_comparisons, max_bucket
):
    group = (
        *as_lists([as_set(values) for values, _, _, _ in documents]),
        np.arange(len(documents), dtype=np.uint8) % 3,
        *as_lists([as_set(payload) for _, payload, _, _ in documents]),
        *(array.astype(np.int64) for array in as_lists([row for _, _, row, _ in documents])),
        np.array([is_old for _, _, _, is_old in documents], np.bool_),
        threshold,
        overlap,
        among_new,
        all_pairs,
    )

    for bounds in ((max_comparisons, max_bucket), (128, 256)):
        got = kernels.verify_group(*group, *bounds)
        for mine, theirs in zip(got, reference.verify_group(*group, *bounds), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@given(st.integers(1, 12), st.sampled_from([np.int32, np.int64]), st.data())
def test_components_whatever_the_order_and_the_split_of_the_buckets(num_documents, dtype, data):
    document = st.integers(0, num_documents - 1)
    buckets = data.draw(st.lists(st.lists(document, min_size=1, max_size=5), max_size=8))
    shuffled = data.draw(st.permutations(buckets))

    def flat(buckets):
        members = [m if n else -1 - m for bucket in buckets for n, m in enumerate(bucket)]
        return np.array(members, np.int64)

    expected = np.full(num_documents, -1, np.int64)
    reference.join_buckets(expected, flat(buckets))
    reference.resolve_components(expected)
    parents, members = np.full(num_documents, -1, dtype), flat(shuffled)
    cut = data.draw(st.integers(0, len(members)))
    first = kernels.join_buckets(parents, members[:cut])
    kernels.join_buckets(parents, members[cut:], first)
    kernels.resolve_components(parents)

    np.testing.assert_array_equal(parents, expected)


@given(st.integers(1, 2**62), st.lists(st.floats(0, 1), max_size=5), st.integers(0, 2**64 - 1))
def test_permuted_positions(num_items, places, key):
    positions = [min(int(place * num_items), num_items - 1) for place in places]
    keys = np.array([(key * (k + 1)) % 2**64 for k in range(16)], np.uint64)

    arguments = np.array(positions, np.int64), num_items, keys
    np.testing.assert_array_equal(kernels.permute(*arguments), reference.permute(*arguments))


def test_hashes_do_not_go_through_floating_point():
    """numba computes `uint64 op int64` in float64: 53 bits would survive."""
    from gristmill.kernels.mixing import mix64, rotate_left

    for word in (0, 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF):
        expected = reference_mix(word)
        assert int(mix64(np.uint64(word))) == expected
        rotated = (word << 31 | word >> 33) % 2**64
        assert int(rotate_left(np.uint64(word), np.uint64(31))) == rotated


def reference_mix(word):
    from gristmill.kernels.reference.hashing import mix64

    return mix64(word)


def test_the_hash_passes_smhashers_verification():
    """SMHasher's value for MurmurHash3_x64_128: hash of the hashes of 0, 1, ... 255 bytes."""
    hashes = b""
    for length in range(256):
        data = np.arange(length, dtype=np.uint8)
        offsets = np.array([0, length], np.int64)
        hashes += kernels.hash_documents(data, offsets, 256 - length).astype("<u8").tobytes()
    final = kernels.hash_documents(np.frombuffer(hashes, np.uint8), np.array([0, len(hashes)]))

    assert int.from_bytes(final.astype("<u8").tobytes()[:4], "little") == 0x6384BA69


@pytest.mark.parametrize("name", ["hash_documents", "band_keys", "shingle_lists"])
@pytest.mark.parametrize("offsets", [[0, 5, 3], [0, 20], [-1, 4], []])
def test_offsets_outside_of_the_text_are_refused(name, offsets):
    data = np.zeros(10, np.uint8)

    with pytest.raises(ValueError, match="do not lie in order within the 10 bytes"):
        getattr(kernels, name)(data, np.array(offsets, np.int64))


def test_numbers_of_a_wrong_type_are_refused_not_converted():
    with pytest.raises(TypeError, match="takes uint8 here, but was given int64"):
        kernels.hash_documents(np.zeros(4, np.int64), np.array([0, 4]))


@pytest.mark.parametrize("members", [[-1, 5], [-6, 1]])
def test_a_bucket_with_a_document_that_does_not_exist_is_refused(members):
    with pytest.raises(ValueError, match="a bucket has document 5, but there are 3"):
        kernels.join_buckets(np.full(3, -1, np.int32), np.array(members))
