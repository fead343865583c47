"""What the report page is made of: histograms that add up, differences of two texts, bars."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipeline import charts
from gristmill.pipeline.differences import side_by_side
from gristmill.pipeline.histogram import bars, bucket_codes, count_by_group, lower_edge, quantile
from gristmill.pipeline.report_page import language_tag, percent, visible

finite = st.floats(allow_nan=False, allow_infinity=False)


def buckets_of(values: list[float]) -> Counter[int]:
    groups = np.zeros(len(values), np.int64)
    return count_by_group(groups, np.array(values, np.float64)).get(0, Counter())


@given(finite)
def test_a_value_lies_at_most_a_sixteenth_above_the_edge_of_its_bucket(value: float) -> None:
    edge = lower_edge(int(bucket_codes(np.array([value]))[0]))

    assert abs(edge) <= abs(value)
    assert abs(value) - abs(edge) <= abs(edge) / 16
    assert math.copysign(1, edge) == math.copysign(1, value) or value == 0


@given(st.lists(st.integers(-32, 32)))
def test_small_whole_numbers_have_buckets_of_their_own(values: list[int]) -> None:
    found = buckets_of([float(value) for value in values])

    assert {lower_edge(code): count for code, count in found.items()} == Counter(values)


@given(st.lists(finite, max_size=30), st.lists(finite, max_size=30))
def test_histograms_of_parts_add_up_to_that_of_the_whole(
    left: list[float], right: list[float]
) -> None:
    assert buckets_of(left) + buckets_of(right) == buckets_of(left + right)


@given(st.lists(st.integers(1, 30), min_size=1), st.floats(0, 1))
def test_quantiles_of_small_whole_numbers_are_exact(values: list[int], share: float) -> None:
    expected = sorted(values)[min(int(share * len(values)), len(values) - 1)]

    assert quantile(buckets_of([float(value) for value in values]), share) == expected


def test_values_that_are_not_finite_are_left_out() -> None:
    assert sum(buckets_of([1.0, math.nan, math.inf, -math.inf]).values()) == 1
    with pytest.raises(ValueError, match="nothing"):
        quantile(Counter(), 0.5)


@given(st.lists(finite, min_size=1, max_size=50))
def test_every_value_is_in_a_bar_and_there_are_few_bars(values: list[float]) -> None:
    found = bars(buckets_of(values))

    assert sum(bar.count for bar in found) == len(values)
    assert len(found) <= 34


def test_shares_have_bars_of_a_thirty_second_and_one_for_exactly_one() -> None:
    found = bars(buckets_of([0.0, 0.5, 0.99, 1.0]))

    assert [(bar.low, bar.count) for bar in found if bar.count] == [
        (0.0, 1), (0.5, 1), (31 / 32, 1), (1.0, 1),
    ]  # fmt: skip


words = st.lists(
    st.sampled_from(["a ", "b ", "the ", "\n", "word\n\n", "हिन्दी ", "字", "ภาษา"]), max_size=20
)


@given(words, words)
def test_pieces_put_together_are_the_text(left: list[str], right: list[str]) -> None:
    texts = "".join(left), "".join(right)

    for pieces, text in zip(side_by_side(*texts), texts, strict=True):
        assert "".join(piece.text for piece in pieces) == text
        assert all(piece.text and piece.kind in {"equal", "changed"} for piece in pieces)


@given(words)
def test_equal_texts_have_no_change(text: list[str]) -> None:
    for pieces in side_by_side("".join(text), "".join(text)):
        assert {piece.kind for piece in pieces} <= {"equal"}


def test_what_differs_is_marked_and_equal_text_far_from_it_is_left_out() -> None:
    same = "equal words all along the line, " * 40
    left, right = side_by_side(f"{same}\nthe cat sat\n{same}", f"{same}\nthe dog sat\n{same}")

    kinds = [piece.kind for piece in left]
    assert kinds == ["gap", "equal", "changed", "equal", "gap"]
    assert (left[2].text, right[2].text) == ("cat ", "dog ")
    assert sum(len(piece.text) for piece in left) < 300
    assert int(left[0].text) + len(left[1].text) == len(same) + len("\nthe ")


def test_a_character_of_an_unspaced_script_keeps_its_marks() -> None:
    left, right = side_by_side("ภาษาไทยที่ดี", "ภาษาไทยที่ดิ")

    assert [piece.text for piece in left] == ["ภาษาไทยที่", "ดี"]
    assert [piece.text for piece in right] == ["ภาษาไทยที่", "ดิ"]


def test_long_texts_are_cut_and_say_how_much_is_missing() -> None:
    left, right = side_by_side("x" * 5_000, "y" * 100, max_characters=1_000)

    assert [(piece.kind, len(piece.text)) for piece in left] == [("changed", 1_000), ("more", 4)]
    assert left[1].text == "4000"
    assert [piece.kind for piece in right] == ["changed"]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("a\n" * 32_000, "a\n" * 31_999 + "b"),
        ("same " * 12_000, "same " * 11_000 + "other " * 900),
        ("".join(f"{n % 7} {n % 11}\n" for n in range(15_000)), "1 2\n" * 15_000),
        ("人" * 21_000, "人" * 10_000 + "一" * 10_000),
        (" ".join(map(str, range(499))), " ".join(map(str, range(499, 0, -1)))),
    ],
)
def test_repetitive_texts_take_a_bounded_time(left: str, right: str) -> None:
    started = time.process_time()
    side_by_side(left, right)

    assert time.process_time() - started < 3


def test_a_chart_has_as_much_in_its_bars_as_was_counted() -> None:
    kept, dropped = buckets_of([1.0, 2.0, 2.0, 300.0]), buckets_of([2.0, 5_000.0])
    chart = charts.histogram(
        "t", "n", [("kept", "kept", kept), ("r0", "short", dropped)], charts.plain_edge
    )

    assert chart is not None
    assert [r.title for r in chart.rectangles] == [
        "1: 1 kept", "2 to 4: 2 kept", "256 to 512: 1 kept", "2 to 4: 1 short",
        "4096 to 8192: 1 short",
    ]  # fmt: skip
    assert all(r.y >= 0 and r.y + r.height <= chart.baseline + 0.02 for r in chart.rectangles)
    assert charts.histogram("t", "n", [("kept", "kept", {})], charts.plain_edge) is None


def test_shares_of_a_bar_add_up_to_it() -> None:
    found = charts.shares([("kept", "kept", 60), ("r0", "empty", 0), ("r1", "short", 40)], 100)

    assert [(part.x, part.width) for part in found] == [(0, 60), (60, 40)]
    assert charts.shares([("kept", "kept", 0)], 0) == []


def test_names_and_numbers_are_written_for_readers() -> None:
    assert [percent(n, 100_000) for n in (0, 3, 5_000, 99_999, 100_000)] == [
        "0.0 %", "0.003 %", "5.0 %", "99.99 %", "100.0 %",
    ]  # fmt: skip
    assert [charts.short(n) for n in (950, 1_000, 12_345, 3_400_000)] == [
        "950", "1 k", "12 k", "3.4 M",
    ]  # fmt: skip
    assert [charts.byte_edge(n) for n in (1, 4_096, 1 << 24)] == ["1", "4 KiB", "16 MiB"]
    assert [language_tag(name) for name in ("arb_Arab", "cmn_Hans", "und_Zyyy", "")] == [
        "ar", "zh-Hans", "", "",
    ]  # fmt: skip
    assert visible("a\x00\tb\x7f\x85") == "a␀\tb␡\ufffd"
