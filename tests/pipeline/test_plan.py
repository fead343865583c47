"""The plan says what a run would do, near enough, and leaves nothing behind."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.pipeline import plan, recipe
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
from gristmill.pipeline.plan_needs import NoRoomError, Room

from .small_runs import run

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
    units = plan_units(config)

    sample = plan.measure(config, units)

    assert sample is not None
    assert sample.text_bytes[0] < sample.text_bytes[1] < text_bytes / 2
    assert sample.whole_text_bytes == pytest.approx(text_bytes, rel=0.15)
    assert sample.whole_documents == pytest.approx(500, rel=0.15)
    assert list(sample.stages) == [
        "clean", "keys", "exact", "buckets", "components", "shingles", "boilerplate", "verify",
        "verdicts", "train_tokenizer", "tokenize", "pack", "summary", "pages",
    ]  # fmt: skip


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_needs_no_more_disk_than_its_plan_says(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    monkeypatch.setattr(plan, "SAMPLE_TEXT_BYTES", 60_000)
    meters = []

    class Noted(plan.Meter):
        def __init__(self, *_: object, **__: object) -> None:
            super().__init__(tmp_path / "out")
            meters.append(self)

    units = plan_units(config)
    needs = plan.estimate(config, units, 1, "pack", False, keep)
    monkeypatch.setattr(recipe, "RunLog", Noted)
    run(config, tmp_path / "out", keep_scratch=keep)

    assert needs is not None
    planned = {stage.name: stage.disk_bytes for stage in needs.stages}
    for name, cost in meters[-1].costs.items():
        assert sum(cost.disk_bytes.values()) <= planned[name], name


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
    assert {"contamination", "passages", "repeats", "cuts"} <= set(sample.stages)


def test_a_plan_is_shown_and_nothing_is_written(config: PreprocessConfig, tmp_path: Path) -> None:
    page = io.StringIO()

    plan.plan_preprocess(config, output=tmp_path / "out", console=Console(file=page, width=80))

    for words in ("Input", "documents", "tokens", "memory each", "disk in use", "in all", "data "):
        assert words in page.getvalue()
    for stage in ("clean", "components", "tokenize", "pack"):
        assert f"│ {stage} " in page.getvalue()
    assert all(len(line) <= 80 for line in page.getvalue().splitlines() if "│" in line)
    assert not (tmp_path / "out").exists()


def test_a_plan_that_cannot_fit_is_refused_after_it_is_shown(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = io.StringIO()
    monkeypatch.setattr(Room, "of", lambda _: Room(disk_bytes=1000, memory_bytes=None))
    arguments = {"output": tmp_path / "out", "console": Console(file=page, width=80)}

    with pytest.raises(NoRoomError, match=r"needs about .* of disk .* there are 1.0 kB"):
        plan.plan_preprocess(config, **arguments)
    assert "disk in use" in page.getvalue()

    plan.plan_preprocess(config, **arguments, check_space=False)
