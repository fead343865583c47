"""Counts of texts: the kernel against its readable twin, and worked values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference
from gristmill.kernels.reference.document_statistics import tokens_of
from gristmill.kernels.statistics_columns import COLUMNS

STOP_WORDS = (("the", "be", "to"), ("der", "die"))

PIECES = st.sampled_from(
    [
        *"aAzéß漢字かなกขะ가аЯ1२.,;:!?-—–~'’\"“”()[]{}<>/=+*^%#&@_$€|\\•…。、「」😀©\u0301\u200d",
        *[
            "the ",
            "be ",
            "to ",
            "U.S. ",
            "don't ",
            "e.g. ",
            "3.14 ",
            "... ",
            "www.a.b/c ",
            "http://x.y/z ",
        ],
        *["- ", "• ", "\n", "\n", "\n\n", " ", " ", "\t", "\xa0", "\u3000", "[12]", "[edit]"],
        *[
            "lorem ipsum ",
            "JavaScript ",
            "privacy policy ",
            "terms of use ",
            "use cookies ",
            "the cat ",
        ],
        *["uses cookies ", "use of cookies", "Cookie Policy", "[citation needed]", "x" * 1001],
    ]
)
TEXTS = st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=30)


def arrays(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def count(text: str, *stop_words: str) -> dict[str, int]:
    lists = np.zeros(1, np.int32) if stop_words else None
    row = kernels.text_statistics(*arrays([text]), [stop_words] if stop_words else (), lists)[0]
    return dict(zip(COLUMNS, row.tolist(), strict=True))


def has_surrogates(text: str) -> bool:
    return any(0xD800 <= ord(character) <= 0xDFFF for character in text)


@given(texts=st.lists(TEXTS.filter(lambda text: not has_surrogates(text)), max_size=4))
@example(texts=["a b. c d. e f g.\n- x...\n\na b. c d. e f g."])
@example(texts=["a.b.", "A.", "..", ".", "U.S", "a..b", "50%", "%", "é" * 70])
@example(texts=["漢字。漢字。漢字。漢字。漢字。漢字。漢字。漢字。"])
@example(texts=["the " * 200, "one two three four five six seven eight nine ten eleven " * 3])
def test_the_kernel_counts_what_the_twin_counts(texts):
    data, offsets = arrays(texts)
    lists = np.arange(len(texts), dtype=np.int32) % 3 - 1

    found = kernels.text_statistics(data, offsets, STOP_WORDS, lists)

    expected = reference.text_statistics(data, offsets, STOP_WORDS, lists)
    assert [dict(zip(COLUMNS, row, strict=True)) for row in found.tolist()] == [
        dict(zip(COLUMNS, row, strict=True)) for row in expected.tolist()
    ]


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        ('"don\'t stop," he said.', '" don \'t stop , " he said .'),
        (
            "The U.S. is (almost) 3.14 km/h, i.e. 50%.",
            "The U.S. is ( almost ) 3.14 km / h , i.e . 50 % .",
        ),
        ("well-known—or not… covid-19", "well - known — or not … covid-19"),
        ("see http://a.b/c?d=e, or www.x.org", "see http://a.b/c?d=e , or www.x.org"),
        ("漢字、かな。", "漢 字 、 か な 。"),
        ("ไปไหน", "ไ ป ไ ห น"),
        ("Dr. No met John.", "Dr. No met John ."),
        ("l'homme aujourd'hui", "l'homme aujourd'hui"),
        ("स्कूल क्षत्रिय", "स्कूल क्षत्रिय"),
    ],
)
def test_lines_are_cut_into_these_tokens(line, tokens):
    assert [token.text for token in tokens_of(line)] == tokens.split()


def test_words_of_unspaced_scripts_weigh_as_in_shingles():
    assert count("漢" * 160)["words"] == 100  # 30 of 48 a character
    assert count("ก" * 160)["words"] == 50
    assert count("word " * 100)["words"] == 100


def test_stop_words_are_counted_once_each_as_they_are_written():
    assert count("the the The to", "the", "to", "of")["stop_words"] == 2


def test_paragraphs_and_lines_that_repeat_are_counted_with_their_characters():
    counts = count("one\ntwo\n\none\ntwo\n\nthree")

    assert (counts["paragraphs"], counts["duplicate_paragraphs"]) == (3, 1)
    assert counts["duplicate_paragraph_characters"] == len("one\ntwo")
    assert (counts["text_lines"], counts["duplicate_lines"]) == (5, 2)
    assert counts["duplicate_line_characters"] == 6


def test_more_stop_words_than_bits_are_refused():
    with pytest.raises(ValueError, match="at most 63"):
        kernels.text_statistics(*arrays(["a"]), [["a"] * 64], np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="1 lists of stop words"):
        kernels.text_statistics(*arrays(["a"]), [["a"]], np.ones(1, np.int32))


@pytest.mark.parametrize(
    "text", ["x" * 10_000_000, "(" * 3_000_000, "." * 3_000_000, "漢" * 3_000_000]
)
def test_a_character_repeated_for_megabytes_is_counted_in_seconds(text):
    counts = count(text)

    assert counts["characters"] == len(text)
    assert counts["words"] <= len(text)


def test_repetition_is_looked_for_in_the_first_million_tokens():
    counts = count("a b\n" * 700_000)

    assert counts["words"] == 1_400_000
    assert counts["repetition_characters"] == 4 * ((1 << 19) - 1)
