"""What counts as similar: scripts, marks, case, symbols, short and pathological texts."""

import itertools
import random
import tracemalloc

import numpy as np
import pytest

from gristmill import kernels
from gristmill.kernels.distinct import MAX_SET_SIZE
from gristmill.kernels.folding import classify, fold, fold_table
from gristmill.kernels.reference.shingling import tokenize


def arrays(*texts):
    encoded = [text.encode() if isinstance(text, str) else text for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    offsets[1:] = np.cumsum([len(text) for text in encoded])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


def sets_of(*texts, **options):
    values, offsets, shifts, _ = kernels.shingle_lists(*arrays(*texts), **options)
    return [np.unique(values[a:b]) for a, b in itertools.pairwise(offsets)], shifts


def similarity(left, right):
    (first, second), shifts = sets_of(left, right)
    return kernels.set_jaccard(first, second, int(shifts.max()))


def num_shingles(text):
    return len(sets_of(text)[0][0])


@pytest.mark.parametrize(
    ("script", "left", "right"),
    [
        ("Thai tone", "ไม้ใหม่ไหม้", "ไมใหมไหม"),
        ("Thai tone, other", "ป่า", "ป้า"),
        ("Thai vowel", "กิน", "กัน"),
        ("Hindi vowel sign", "कल", "कुल"),
        ("Hindi nukta", "खुदा", "ख़ुदा"),
        ("Vietnamese tone, composed", "ma má mà mả mã mạ", "ma ma ma ma ma ma"),
        ("Vietnamese tone, decomposed", "ma\u0301", "ma\u0300"),
        ("Arabic short vowel", "كَتَبَ", "كُتِبَ"),
        ("Arabic, marks or none", "كَتَبَ", "كتب"),
        ("Japanese dakuten, composed", "ガラス", "カラス"),
        ("Japanese dakuten, decomposed", "カ\u3099ラス", "カラス"),
        ("Hebrew points", "שָׁלוֹם", "שלום"),
        ("Burmese asat", "က်", "က"),
        ("Tibetan subjoined letter", "རྐ", "རཀ"),
    ],
)
def test_texts_that_differ_in_marks_alone_stay_different(script, left, right):
    assert left != right
    assert similarity(left, right) == 0.0, script
    keys = kernels.band_keys(*arrays(left, right))
    assert not np.any(keys[:, 0] == keys[:, 1]), script


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("The Cat sat, on THE mat!", "the cat sat on the mat"),
        ("ＦＵＬＬ　ｗｉｄｔｈ", "full width"),
        ("ｶﾀｶﾅ", "カタカナ"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("soft\u00adhyphen zero\u200dwidth", "softhyphen zerowidth"),
        ("漢字。かな", "漢字かな"),
        ("a line\nand  another", "a line and another"),
    ],
)
def test_case_width_and_punctuation_make_no_difference(left, right):
    assert similarity(left, right) == 1.0


@pytest.mark.parametrize(
    ("left", "right"),
    [("if x < y", "if x > y"), ("2 + 2", "2 - 2 + 2"), ("I 👍 it", "I 👎 it"), ("5 km", "6 km")],
)
def test_symbols_and_digits_are_words(left, right):
    assert similarity(left, right) == 0.0


def test_a_drawn_line_is_one_token():
    assert similarity("title =========== text", "title == text") == 1.0


@pytest.mark.parametrize(
    ("token", "separator", "num_tokens"),
    [("w{}", " ", 5), ("{}", "", 8), ("{}", "", 12), ("{}", "", 16)],
)
def test_a_window_is_five_words_eight_ideographs_twelve_kana_or_sixteen_letters(
    token, separator, num_tokens
):
    alphabet = {
        5: [str(number) for number in range(40)],
        8: [chr(0x4E00 + number) for number in range(40)],
        12: [chr(0x30A1 + number) for number in range(40)],
        16: [chr(0x0E01 + number) for number in range(40)],
    }[num_tokens]
    text = separator.join(token.format(part) for part in alphabet)

    assert num_shingles(text) == 40 - num_tokens + 1
    shorter = separator.join(token.format(part) for part in alphabet[: num_tokens - 1])
    assert num_shingles(shorter) == 1


def test_a_mark_belongs_to_its_letter_and_weighs_nothing():
    assert [characters for _, characters in tokenize("ที่นี่")] == ["ที่", "นี่"]
    letters = [chr(0x0E01 + number) for number in range(20)]

    assert num_shingles("".join(f"{letter}\u0e48" for letter in letters)) == 20 - 16 + 1


def test_texts_of_several_scripts_need_no_rule_of_their_own():
    text = "私は iPhone を 3 台 持っています。ที่บ้าน and five more words follow here"

    assert similarity(text, text.upper()) == 1.0
    assert num_shingles(text) > 5


def test_a_text_without_tokens_has_no_shingle_and_no_key():
    keys = kernels.band_keys(*arrays("", "...", "\u200b \n", "x"))

    assert [num_shingles(text) for text in ("", "...", "\u200b \n", "x")] == [0, 0, 0, 1]
    assert not np.any(keys[:, :3])
    assert np.all(keys[:, 3])


def test_the_order_of_words_counts():
    assert similarity("one two three four", "four three two one") == 0.0


def test_the_seed_changes_every_hash():
    text = "some words of a text"

    assert not np.array_equal(sets_of(text)[0][0], sets_of(text, seed=1)[0][0])
    keys = [kernels.band_keys(*arrays(text), seed=seed) for seed in (0, 1)]
    assert not np.any(keys[0] == keys[1])


def test_folding_is_idempotent_and_never_makes_a_mark_a_letter():
    table = fold_table()
    folded = table & 0xFFFFFF

    np.testing.assert_array_equal(folded[folded], folded)
    for code_point in (0x301, 0x345, 0xE34, 0x93F, 0x3099, 0x64B):
        assert folded[code_point] == code_point
        assert fold(chr(code_point)) == chr(code_point)
        assert table[code_point] >> 24 == classify("\u0301")


def test_minhash_estimates_jaccard_without_bias():
    """Shares of equal one-row keys over many pairs of texts average the exact similarity."""
    rng = random.Random(0)
    errors = []
    for _ in range(40):
        words = [f"w{rng.randrange(10**6)}" for _ in range(120)]
        overlap = rng.randrange(10, 110)
        other = words[:overlap] + [f"v{rng.randrange(10**6)}" for _ in range(120 - overlap)]
        left, right = " ".join(words), " ".join(other)
        keys = kernels.band_keys(*arrays(left, right), num_bands=512, rows_per_band=1)
        errors.append(np.mean(keys[:, 0] == keys[:, 1]) - similarity(left, right))

    # Standard error of the mean: at most sqrt(0.25 / 512 / 40) = 0.0035.
    assert abs(np.mean(errors)) < 0.012
    assert np.std(errors) < 0.03  # sqrt(0.25 / 512) = 0.022


@pytest.mark.parametrize(
    "text",
    [
        b"a" * 3_000_000,
        b"a " * 1_500_000,
        "漢".encode() * 1_000_000,
        "ก้".encode() * 500_000,
        b"\xff" * 3_000_000,
        "\u0301".encode() * 1_000_000,
        b"=" * 3_000_000,
        b"=+" * 1_500_000,
    ],
    ids=["one word", "words", "ideographs", "letters", "no UTF-8", "marks", "line", "symbols"],
)
def test_repetition_a_million_times_needs_little_memory(text):
    data, offsets = arrays(text)
    kernels.warm_kernels()
    tracemalloc.start()
    keys = kernels.band_keys(data, offsets)
    values, *_ = kernels.shingle_lists(data, offsets)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4_000_000  # the sets' scratch has one fixed size, whatever the text
    assert np.all(keys)
    assert len(values) <= 4


def test_a_huge_text_is_sampled_alike_in_bounded_memory():
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 10**9, 400_000).astype(str)
    left, right = " ".join(numbers), " ".join(numbers[40_000:])
    (first, second), shifts = sets_of(left, right)

    assert shifts.min() >= 1
    assert max(len(first), len(second)) <= MAX_SET_SIZE
    assert similarity(left, right) == pytest.approx(0.9, abs=0.01)
    assert similarity(left, left.upper()) == 1.0


def test_a_text_gives_the_same_set_alone_and_among_others():
    texts = ["first text here", "a" * 5000, "漢字かな交じり文の例です。" * 9, ""]
    together, _ = sets_of(*texts)

    for text, expected in zip(texts, together, strict=True):
        np.testing.assert_array_equal(sets_of(text)[0][0], expected)
