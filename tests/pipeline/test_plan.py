"""The plan says what a run would do, near enough, and leaves nothing behind."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.pipeline import plan
from gristmill.pipeline.clean import plan as plan_units
from gristmill.pipeline.config import (
    CleanConfig,
    PassagesConfig,
    PreprocessConfig,
    SourceConfig,
    TokenizerConfig,
)
from gristmill.pipeline.decontamination_config import DecontaminationConfig, EvaluationConfig
from gristmill.pipeline.filter_config import FilterConfig

Write = Callable[[Path, list[dict[str, object]]], Path]


@pytest.fixture
def config(tmp_path: Path, write_jsonl: Write) -> PreprocessConfig:
    """Two files of different documents: 400 short ones, 100 long ones."""
    chance = random.Random(0)

    def text(num_words: int) -> str:
        return " ".join(f"word{chance.randrange(5000)}" for _ in range(num_words))

    write_jsonl(tmp_path / "in" / "short.jsonl", [{"text": text(20)} for _ in range(400)])
    write_jsonl(tmp_path / "in" / "long.jsonl", [{"text": text(300)} for _ in range(100)])
    return PreprocessConfig(
        sources=(SourceConfig(path=str(tmp_path / "in"), language="eng_Latn"),),
        clean=CleanConfig(unit_bytes=20_000),
        tokenizer=TokenizerConfig(vocab_size=400),
    )


def test_the_whole_is_estimated_from_a_part(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SAMPLE_TEXT_BYTES", 60_000)
    files = list((tmp_path / "in").iterdir())
    text_bytes = sum(path.stat().st_size for path in files) - 500 * len('{"text": ""}\n')

    sample = plan.measure(config, plan_units(config))

    assert sample is not None
    assert sample.text_bytes < text_bytes / 2
    assert sample.whole_text_bytes == pytest.approx(text_bytes, rel=0.15)
    assert sample.whole_documents == pytest.approx(500, rel=0.15)
    assert set(sample.seconds) == {"read and clean", "dedup", "tokenize", "pack"}
    assert sample.training_seconds > 0


def test_passages_and_the_search_for_evaluation_data_are_in_the_estimate(
    config: PreprocessConfig, tmp_path: Path, write_jsonl: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SAMPLE_TEXT_BYTES", 60_000)
    path = write_jsonl(tmp_path / "evaluation" / "a.jsonl", [{"question": "what is it? " * 9}])
    searched = DecontaminationConfig(evaluations=(EvaluationConfig(path=str(path)),))
    config = replace(
        config,
        filters=FilterConfig(decontamination=searched, min_language_score=0.5),
        passages=PassagesConfig(lines="drop"),
    )

    sample = plan.measure(config, plan_units(config))

    assert sample is not None
    assert list(sample.seconds) == [
        "read and clean", "search for evaluation data", "dedup", "repeated passages", "tokenize",
        "pack",
    ]  # fmt: skip


def test_a_plan_is_shown_and_nothing_is_written(config: PreprocessConfig, tmp_path: Path) -> None:
    page = io.StringIO()

    plan.plan_preprocess(config, output=tmp_path / "out", console=Console(file=page, width=80))

    for words in ("Input", "documents", "tokens", "time: in all", "disk: data", "memory: each"):
        assert words in page.getvalue()
    assert all(len(line) <= 80 for line in page.getvalue().splitlines())
    assert not (tmp_path / "out").exists()
