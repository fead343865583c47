"""The run's tokenizer: an even sample, the same bytes each time, marks kept with their letters."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from gristmill.pipeline import Tokenizer
from gristmill.pipeline.config import PreprocessConfig, TokenizerConfig
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.fertility import count_words
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.tokenizer_files import TokenizerError
from gristmill.pipeline.tokenizer_sample import read_sample, share_bytes
from gristmill.pipeline.train_tokenizer import TokenizerResult, run, special_tokens, train_bpe

ENGLISH = "It was a bright cold day in April, and the clocks were striking {}."
HINDI = "अप्रैल का एक उजला और ठंडा दिन था, और घड़ियाँ {} बजा रही थीं।"
THAI = "วันนั้นเป็นวันที่อากาศหนาวและสดใสในเดือนเมษายน นาฬิกากำลังตี {}"


@pytest.fixture(scope="module")
def rows(make_row):
    """Much English, less Hindi, little Thai; some documents dropped."""
    rows = [make_row(ENGLISH.format(n), offset=n) for n in range(300)]
    rows += [make_row(HINDI.format(n), "hin_Deva", file="h", offset=n) for n in range(60)]
    rows += [make_row(THAI.format(n), "tha_Thai", file="t", offset=n) for n in range(20)]
    rows[7] = make_row("dropped " * 30, offset=7, reason="near_duplicate")
    rows[8] = make_row("rejected", offset=8, reason="rejected_json", by_clean=True)
    return rows


def train(config: TokenizerConfig, output: Path, markers, workers: int = 1) -> TokenizerResult:
    with LocalExecutor(workers) as executor:
        preprocess = PreprocessConfig(tokenizer=config)
        return run(preprocess, output, markers, executor, Progress(quiet=True))


def files(result: TokenizerResult) -> tuple[bytes, bytes]:
    return tuple((result.folder / n).read_bytes() for n in ("tokenizer.json", "token_bytes.npy"))


def test_the_budget_is_shared_evenly_and_what_is_left_goes_to_the_others() -> None:
    assert share_bytes({"a": 10, "b": 100, "c": 100}, 90) == {"a": 10, "b": 40, "c": 40}
    assert share_bytes({"a": 10, "b": 20}, 1000) == {"a": 10, "b": 20}
    assert share_bytes({"a": 50, "b": 50, "c": 50}, 0) == {"a": 0, "b": 0, "c": 0}
    assert sum(share_bytes({"a": 5, "b": 70, "c": 90}, 101).values()) == 101


def test_the_sample_is_even_over_languages_and_holds_kept_documents_only(
    tmp_path: Path, rows, write_units
) -> None:
    write_units(tmp_path, {"u": rows})
    available: dict[str, int] = {}
    for row in rows:
        if row.reason is None:
            available[row.language] = available.get(row.language, 0) + len(row.text.encode())

    sample = read_sample(tmp_path, ["u"], available, 12_000)

    sizes = {name: sum(len(text.encode()) for text in texts) for name, texts in sample.items()}
    assert sizes["tha_Thai"] == available["tha_Thai"]
    share = (12_000 - sizes["tha_Thai"]) / 2
    for language in ("eng_Latn", "hin_Deva"):
        assert share <= sizes[language] < share + 200
    texts = {text for texts in sample.values() for text in texts}
    assert texts <= {row.text for row in rows if row.reason is None}


def test_the_sample_does_not_depend_on_how_documents_are_cut_into_units(
    tmp_path: Path, rows, write_units
) -> None:
    available = {"eng_Latn": 20_000, "hin_Deva": 10_000, "tha_Thai": 4_000}
    write_units(tmp_path / "one", {"u": rows})
    write_units(tmp_path / "two", {"b": rows[150:], "a": rows[:150]})

    one = read_sample(tmp_path / "one", ["u"], available, 9_000)
    two = read_sample(tmp_path / "two", ["b", "a"], available, 9_000)

    assert one == two
    assert list(one) == list(two)


def test_of_a_long_document_only_the_beginning_is_learned_from(
    tmp_path: Path, make_row, write_units
) -> None:
    write_units(tmp_path, {"u": [make_row("é" * 60_000)]})

    sample = read_sample(tmp_path, ["u"], {"eng_Latn": 120_000}, 1_000_000)

    assert sample == {"eng_Latn": ["é" * 50_000]}


def test_training_again_with_other_workers_and_units_gives_the_same_bytes(
    tmp_path: Path, rows, write_units
) -> None:
    config = TokenizerConfig(vocab_size=500, train_bytes=12_000)
    one = write_units(tmp_path / "one", {"u": rows})
    two = write_units(tmp_path / "two", {"b": rows[100:], "a": rows[:100]})

    first = train(config, tmp_path / "one", one, workers=1)
    second = train(config, tmp_path / "two", two, workers=2)

    assert files(first) == files(second)
    assert first.fertility == second.fertility
    assert first.fingerprint == second.fingerprint == Tokenizer(str(first.folder)).fingerprint


def test_a_trained_tokenizer_has_its_special_tokens_first_and_loses_no_byte(
    tmp_path: Path, rows, write_units
) -> None:
    config = TokenizerConfig(vocab_size=400, train_bytes=50_000)

    result = train(config, tmp_path, write_units(tmp_path, {"u": rows}))

    tokenizer = Tokenizer(str(result.folder), eod=result.eod)
    assert (result.eod, tokenizer.eod_id, tokenizer.vocab_size) == ("<|endoftext|>", 0, 400)
    assert tokenizer._rule == "lines"
    text = "ⵣ unseen \x07 script\r\n\t 🙂 " + HINDI
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.decode(ids) == text
    token_bytes = np.load(result.folder / "token_bytes.npy")
    assert token_bytes[ids].sum() == len(text.encode())
    assert token_bytes[:9].tolist() == [0] * 9


def test_combining_marks_stay_with_their_letters() -> None:
    texts = [HINDI.format(n) for n in range(30)] + [THAI.format(n) for n in range(30)]
    ours, gpt2 = (
        tokenizers.Tokenizer.from_str(
            train_bpe(texts, vocab_size=600, special_tokens=special_tokens("<e>"), **options)
        )
        for options in ({}, {"pattern": None})
    )

    def pieces(engine: tokenizers.Tokenizer, text: str) -> list[str]:
        split = engine.pre_tokenizer.pre_tokenize_str(text)
        return [text[start:end] for _, (start, end) in split]

    assert pieces(ours, "घड़ियाँ बजा, 12345!\n") == ["घड़ियाँ", " बजा", ",", " ", "123", "45", "!\n"]
    assert len(pieces(gpt2, "घड़ियाँ बजा")) > 4
    text = "".join(texts)
    assert len(ours.encode(text).ids) < len(gpt2.encode(text).ids)


def test_fertility_compares_the_two_splittings_for_each_language(
    tmp_path: Path, rows, write_units
) -> None:
    config = TokenizerConfig(vocab_size=600, train_bytes=50_000)

    result = train(config, tmp_path, write_units(tmp_path, {"u": rows}))

    table = {row["language"]: row for row in result.fertility}
    assert list(table) == ["eng_Latn", "hin_Deva", "tha_Thai"]  # by text, most first
    for row in table.values():
        assert row["bytes_per_token"] > 1
        assert row["gpt2_split_bytes_per_token"] > 1
        assert row["tokens_per_word"] > 0
    hindi = table["hin_Deva"]
    assert hindi["bytes_per_token"] > hindi["gpt2_split_bytes_per_token"]
    tokenizer = Tokenizer(str(result.folder))
    texts = [row.text for row in rows if row.language == "tha_Thai"]
    num_tokens = sum(map(len, tokenizer.encode_batch(texts)))
    num_bytes = sum(len(text.encode()) for text in texts)
    assert table["tha_Thai"]["bytes_per_token"] == pytest.approx(num_bytes / num_tokens, abs=1e-4)


def test_a_given_tokenizer_is_copied_with_the_eod_that_stood_beside_it(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    content = train_bpe([ENGLISH] * 3, vocab_size=300, special_tokens=["<a>", "<b>"])
    (given / "tokenizer.json").write_text(content)
    (given / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<b>"}))

    result = train(TokenizerConfig(path=str(given)), tmp_path / "out", {})

    assert result.eod == "<b>"
    assert (result.folder / "tokenizer.json").read_text() == content
    assert np.load(result.folder / "token_bytes.npy").shape == (Tokenizer(str(given)).vocab_size,)
    assert result.fertility == []


def test_a_tokenizer_without_a_known_eod_is_refused_before_any_work(tmp_path: Path) -> None:
    content = train_bpe([ENGLISH], vocab_size=300, special_tokens=["<a>"])
    (tmp_path / "tokenizer.json").write_text(content)

    with pytest.raises(TokenizerError, match=r"Set tokenizer\.eod"):
        train(TokenizerConfig(path=str(tmp_path)), tmp_path / "out", {})


def test_nothing_to_train_on_is_an_error(tmp_path: Path, make_row, write_units) -> None:
    markers = write_units(tmp_path, {"u": [make_row("x", reason="too_short", by_clean=True)]})

    with pytest.raises(ValueError, match="no kept document to train"):
        train(TokenizerConfig(), tmp_path, markers)


def test_reference_tokenizers_are_measured_on_the_same_sample(
    tmp_path: Path, rows, write_units
) -> None:
    other = tmp_path / "other.json"
    other.write_text(train_bpe([ENGLISH] * 3, vocab_size=300, special_tokens=[]))
    markers = write_units(tmp_path, {"u": rows})
    plain = TokenizerConfig(vocab_size=600, train_bytes=50_000)

    result = train(replace(plain, reference_tokenizers=(str(other),)), tmp_path, markers)

    row = next(row for row in result.fertility if row["language"] == "tha_Thai")  # all of it
    texts = [one.text for one in rows if one.language == "tha_Thai"]
    num_tokens = sum(map(len, Tokenizer(str(other)).encode_batch(texts)))
    measured = row["references"][str(other)]
    assert measured["bytes_per_token"] == pytest.approx(row["sample_bytes"] / num_tokens, abs=1e-4)
    assert measured["tokens_per_byte"] == pytest.approx(num_tokens / row["sample_bytes"], abs=1e-4)
    assert all(str(other) in row["references"] for row in result.fertility)
    before = files(result)
    again = train(plain, tmp_path, markers)
    assert files(again) == before
    assert "references" not in again.fertility[0]


def test_a_given_tokenizer_is_measured_beside_references(tmp_path: Path, rows, write_units) -> None:
    paths = []
    for name, size in (("given", 400), ("other", 300)):
        paths.append(str(tmp_path / f"{name}.json"))
        content = train_bpe([ENGLISH] * 3, vocab_size=size, special_tokens=["<|endoftext|>"])
        Path(paths[-1]).write_text(content)
    config = TokenizerConfig(path=paths[0], reference_tokenizers=(paths[1],), train_bytes=50_000)

    result = train(config, tmp_path, write_units(tmp_path, {"u": rows}))

    assert [row["language"] for row in result.fertility] == ["eng_Latn", "hin_Deva", "tha_Thai"]
    english = result.fertility[0]
    assert english["bytes_per_token"] > english["references"][paths[1]]["bytes_per_token"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("two words", 2),
        ("two words 三个字", 5),
        ("かなと漢字", 5),
        ("e\u0301t\u00e9, naïve!", 2),
        ("हिन्दी में", 2),
        ("น้ำ", 2),  # two letters, one tone mark
        ("བོད་ཡིག་", 2),
        (" \n", 0),
    ],
)
def test_words_are_counted_by_the_way_a_script_is_written(text: str, words: int) -> None:
    assert count_words(text) == words
