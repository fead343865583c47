"""Stop words come from text that one trusts, and are what the statistics look for."""

from __future__ import annotations

import json
import logging
import tomllib
from pathlib import Path

import pytest

from gristmill import kernels
from gristmill.kernels.statistics_columns import COLUMNS
from gristmill.pipeline import stop_words
from gristmill.pipeline.config import CleanConfig, SourceConfig
from gristmill.pipeline.stop_words import as_toml, find_stop_words


@pytest.fixture(scope="module")
def found(tmp_path_factory, sample_texts):
    """Stop words of the sample that ships with the pipeline, which is small."""
    path = tmp_path_factory.mktemp("texts") / "in.jsonl"
    rows = [{"text": text, "language": language} for language, text in sample_texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stop_words, "MIN_WORDS", 300)
        return find_stop_words([SourceConfig(path=str(path))], CleanConfig())


def test_the_commonest_words_of_a_language_are_found_and_are_the_known_ones(found):
    assert {"the", "and", "of", "to"} <= set(found["eng_Latn"].words)
    assert all(8 <= len(one.words) <= 32 for one in found.values())
    assert found["eng_Latn"].share > 0.15
    if "deu_Latn" in found:
        assert {"die", "und"} <= set(found["deu_Latn"].words)


def test_scripts_of_letters_without_words_have_none(found, caplog):
    assert not {name for name in found if name.endswith(("Thai", "Khmr", "Laoo", "Mymr", "Tibt"))}


def test_what_is_printed_is_a_table_of_the_config(found):
    table = tomllib.loads(as_toml(found))["preprocess"]["clean"]["annotate"]["stop_words"]

    assert table == {language: list(one.words) for language, one in found.items()}


def test_the_statistics_find_these_words_in_texts_of_the_language(found, sample_texts):
    """Each text of a language has two of its words at least, in whatever script."""
    import numpy as np

    for language, words in found.items():
        texts = [text.encode() for name, text in sample_texts if name == language]
        offsets = np.cumsum([0, *map(len, texts)])
        data = np.frombuffer(b"".join(texts), np.uint8)
        lists = np.zeros(len(texts), np.int32)
        rows = kernels.text_statistics(data, offsets, [words.words], lists)
        seen = rows[:, list(COLUMNS).index("stop_words")]
        assert np.median(seen) >= 2, (language, words.words)


def test_few_words_and_letters_are_named_and_left_out(tmp_path, caplog):
    rows = [{"text": "tiny text", "lang": "en"}, {"text": "ข้อความ", "lang": "th"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.WARNING):
        words = find_stop_words([SourceConfig(path=str(tmp_path))], CleanConfig())

    assert words == {}
    assert "eng_Latn has 2 words here" in caplog.text
    assert "tha_Thai has no stop words" in caplog.text


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(ValueError, match="most <= 63"):
        find_stop_words([], CleanConfig(), most=64)


def test_the_command_prints_the_table(tmp_path: Path, capsys, monkeypatch):
    from gristmill.cli import main

    monkeypatch.setattr(stop_words, "MIN_WORDS", 10)
    text = "the cat and the dog and the bird sat on a mat of the house " * 5
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": text}) + "\n")

    main(["stop-words", str(tmp_path / "in.jsonl"), "--language", "en"])

    assert capsys.readouterr().out.startswith(
        '[preprocess.clean.annotate.stop_words]\neng_Latn = ["the", "and"'
    )
