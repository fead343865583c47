"""The sample that ships with the pipeline: what other tests and the demo may rely on."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from pathlib import Path

from gristmill.pipeline.demo import SAMPLE_FOLDER
from gristmill.pipeline.language import normalize_language

NUM_SAMPLE = 208


def sample_rows() -> list[tuple[Path, dict[str, str]]]:
    return [
        (path, json.loads(line))
        for path in sorted(SAMPLE_FOLDER.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def test_each_line_of_the_sample_has_id_text_and_the_language_of_its_file() -> None:
    rows = sample_rows()
    assert len(rows) == NUM_SAMPLE
    for path, row in rows:
        assert list(row) == ["id", "text", "language"]
        assert row["language"] == path.stem == normalize_language(path.stem)
        assert row["id"].startswith(f"{path.stem}/")
    assert len({row["id"] for _, row in rows}) == NUM_SAMPLE


def test_the_sample_spans_many_languages_and_scripts() -> None:
    per_language = Counter(row["language"] for _, row in sample_rows())
    assert len(per_language) == 24
    assert min(per_language.values()) >= 8
    scripts: Counter[str] = Counter()
    for _, row in sample_rows():
        names = {unicodedata.name(letter).split()[0] for letter in row["text"] if letter.isalpha()}
        assert len(names) <= 3, (row["id"], names)  # Japanese has three; none other mixes
        scripts.update(names)
    widespread = {script for script, num_pieces in scripts.items() if num_pieces >= 8}
    assert len(widespread) >= 14, widespread


def test_the_texts_of_the_sample_are_distinct_normal_and_of_one_size() -> None:
    texts = [row["text"] for _, row in sample_rows()]
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert unicodedata.is_normalized("NFC", text)
        assert text == text.strip()
        assert 80 <= len(text) <= 500
        odd = [c for c in text if unicodedata.category(c)[0] == "C" and c not in "\n\u200c"]
        assert not odd, (text, odd)


def test_no_two_pieces_of_the_sample_are_alike() -> None:
    """Tests of dedup make their own copies, and must find no others."""
    grams = [
        (row["id"], {row["text"][i : i + 5] for i in range(len(row["text"]) - 4)})
        for _, row in sample_rows()
    ]
    for index, (first, one) in enumerate(grams):
        for second, other in grams[:index]:
            assert len(one & other) < 0.15 * len(one | other), (first, second)


def test_the_sample_states_its_licence() -> None:
    assert "CC0" in (SAMPLE_FOLDER / "README.md").read_text(encoding="utf-8")
