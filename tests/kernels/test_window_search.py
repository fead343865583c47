"""Windows of tokens and where documents have them: as the readable twins find them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference

WORDS = st.sampled_from(["a", "bé", "क़", "ก", "ข็", "字", "か", "+", "++", "\u200b", "\u0301", "x,"])
TEXTS = st.lists(WORDS, max_size=25).map(" ".join) | st.lists(WORDS, max_size=40).map("".join)
RAW = st.binary(max_size=40)
DOCUMENTS = st.lists(TEXTS.map(str.encode) | RAW, max_size=4)
WORD = 48


def as_arrays(documents):
    offsets = np.zeros(len(documents) + 1, np.int64)
    offsets[1:] = np.cumsum([len(text) for text in documents])
    return np.frombuffer(b"".join(documents), np.uint8), offsets


def assert_equal(got, expected):
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@given(DOCUMENTS, st.integers(1, 8), st.integers(0, 3))
def test_text_windows(documents, words, seed):
    arrays = as_arrays(documents)

    assert_equal(
        kernels.text_windows(*arrays, words * WORD, seed),
        reference.text_windows(*arrays, words * WORD, seed),
    )


def listed(texts, weight, anchor_weight):
    """Return what find_windows looks for: windows of heavy texts, anchors of light ones."""
    arrays = as_arrays(texts)
    hashes, _, lengths, offsets, totals = kernels.text_windows(*arrays, weight)
    ends, _, _, end_offsets, _ = kernels.text_windows(*arrays, anchor_weight)
    long = [
        hashes[a:b]
        for a, b, t in zip(offsets[:-1], offsets[1:], totals, strict=True)
        if t >= weight
    ]
    short = [
        (ends[end_offsets[n + 1] - 1], hashes[offsets[n]], lengths[offsets[n]])
        for n, total in enumerate(totals)
        if 0 < total < weight
    ]
    windows = np.unique(np.concatenate([np.zeros(0, np.uint64), *long]))
    columns = list(zip(*sorted(short), strict=True)) or [(), (), ()]
    types = (np.uint64, np.uint64, np.int64)
    return windows, *(np.array(c, t) for c, t in zip(columns, types, strict=True))


@given(DOCUMENTS, DOCUMENTS, st.integers(2, 6), st.integers(1, 6))
def test_find_windows(documents, texts, words, anchor_words):
    weight, anchor_weight = words * WORD, min(words, anchor_words) * WORD
    arrays = as_arrays([*documents, *texts, b" ".join([*texts, *documents])])
    wanted = listed(texts, weight, anchor_weight)

    assert_equal(
        kernels.find_windows(*arrays, weight, anchor_weight, *wanted),
        reference.find_windows(*arrays, weight, anchor_weight, *wanted),
    )


PASSAGES = {
    "Latin": (
        "Seven grey herons stood along the quiet canal while the ferryman counted his coins twice."
    ),
    "Han": "七只灰鹭站在安静的运河边，渡船夫把他的硬币数了两遍，然后慢慢地划向对岸的村庄。",
    "Thai": "นกกระสาสีเทาเจ็ดตัวยืนอยู่ริมคลองที่เงียบสงบขณะที่คนแจวเรือนับเหรียญของเขาสองครั้ง",
    "Hindi": "सात धूसर बगुले शांत नहर के किनारे खड़े थे जबकि नाविक ने अपने सिक्के दो बार गिने थे",
    "Arabic": (
        "وقفت سبعة طيور رمادية على طول القناة الهادئة بينما كان صاحب العبارة يعد نقود"
        "ه مرتين متتاليتين"
    ),
}


@pytest.mark.parametrize("script", PASSAGES)
def test_a_passage_of_thirteen_words_is_found_in_every_script_with_its_bytes(script):
    passage = PASSAGES[script].encode()
    before, after = "Before it。 ".encode(), "。 And after it.".encode()
    wanted = listed([passage], 13 * WORD, 8 * WORD)
    assert len(wanted[0]) > 0

    documents, starts, ends, _, _ = kernels.find_windows(
        *as_arrays([b"nothing", before + passage + after]), 13 * WORD, 8 * WORD, *wanted
    )

    assert set(documents.tolist()) == {1}
    first = 7 + len(before)
    assert starts.min() == first
    assert (
        first + len(passage) - 4 <= ends.max() <= first + len(passage)
    )  # a full stop may stay out


@pytest.mark.parametrize("script", PASSAGES)
def test_a_change_in_the_middle_of_a_short_passage_hides_it(script):
    passage = PASSAGES[script]
    middle = len(passage) // 2
    changed = passage[:middle] + " zz " + passage[middle:]
    wanted = listed([passage.encode()], 13 * WORD, 8 * WORD)

    found = kernels.find_windows(*as_arrays([changed.encode()]), 13 * WORD, 8 * WORD, *wanted)

    assert len(found[0]) == 0


def test_case_punctuation_and_spacing_do_not_hide_a_passage():
    passage = PASSAGES["Latin"]
    wanted = listed([passage.encode()], 13 * WORD, 8 * WORD)
    other = passage.upper().replace(" ", "\n - ").encode()

    found = kernels.find_windows(*as_arrays([other]), 13 * WORD, 8 * WORD, *wanted)

    assert len(found[0]) == len(wanted[0])


def test_a_short_text_is_found_whole_and_a_very_short_one_only_as_a_whole_document():
    texts = [b"one two three four five six seven eight nine", b"Paris"]
    wanted = listed(texts, 13 * WORD, 8 * WORD)
    documents = [
        b"so: one, two three four five six seven eight nine (or ten)",
        b"one two three four five six seven eight",
        b"Paris is a city",
        b"Paris.",
    ]

    found = kernels.find_windows(*as_arrays(documents), 13 * WORD, 8 * WORD, *wanted)

    assert found[0].tolist() == [0, 3]
    data, _ = as_arrays(documents)
    assert data[found[1][0] : found[2][0]].tobytes() == b"one, two" + texts[0][7:]
    assert data[found[1][1] : found[2][1]].tobytes() == b"Paris"


def test_more_places_than_there_was_room_for_are_all_returned():
    text = b"tick tock " * 20
    wanted = listed([text], 13 * WORD, 8 * WORD)

    documents, *_ = kernels.find_windows(*as_arrays([text * 100] * 2), 13 * WORD, 8 * WORD, *wanted)

    assert len(documents) == 2 * (4000 - 12)


def test_weights_that_cannot_be_meant_are_refused():
    none = np.zeros(0, np.uint64)
    with pytest.raises(ValueError, match="anchor_weight 96 must be from 1 to weight 48"):
        kernels.find_windows(*as_arrays([b"a"]), 48, 96, none, none, none, np.zeros(0, np.int64))
