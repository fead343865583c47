"""The whole pipeline: a full disk in any stage, an input of which nothing is left, its tables."""

from __future__ import annotations

import contextlib
import io
import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.indexed_dataset.atomic import DiskFullError
from gristmill.pipeline import recipe
from gristmill.pipeline.config import (
    DedupConfig,
    PreprocessConfig,
    SourceConfig,
    TokenizerConfig,
)
from gristmill.pipeline.progress import Bar, Progress
from gristmill.pipeline.report import Report, Tally, show_report

STAGES = (
    "clean", "keys", "exact", "buckets", "components", "shingles", "boilerplate", "verify",
    "verdicts", "train_tokenizer", "tokenize", "pack",
)  # fmt: skip

ROOM_BYTES = 400
"""Size that no file may exceed while the disk is "full"; each stage writes a larger one."""


class _FullDisk(Progress):
    """Stands for a disk without room while one stage runs: a limit on the size of files."""

    stage_name = ""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    @contextlib.contextmanager
    def stage(
        self, name: str, total_bytes: int, *, num_units: int, num_skipped: int
    ) -> Iterator[Bar]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with super().stage(name, total_bytes, num_units=num_units, num_skipped=num_skipped) as bar:
            if name == self.stage_name:
                resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, hard))
            try:
                yield bar
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_corpus(path: Path) -> PreprocessConfig:
    """Write some hundred documents, a few of them equal or nearly so."""
    with path.open("w") as file:
        for number in range(300):
            base = number - number % 5 // 3  # of five documents the last two are nearly equal
            words = " ".join(f"word{base * 7919 % 5003 + k * k}" for k in range(60))
            text = words + " more" * (number - base) if number % 7 else "the same again"
            file.write(json.dumps({"text": text, "language": "en"}) + "\n")
    return PreprocessConfig(
        sources=(SourceConfig(path=str(path)),),
        dedup=DedupConfig(partitions=1, boilerplate_documents=2),
        tokenizer=TokenizerConfig(vocab_size=400, train_bytes=30_000),
    )


def run(config: PreprocessConfig, output: Path) -> None:
    recipe.preprocess(config, output=output, workers=1, console=Console(file=io.StringIO()))


def content(output: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.name != "lock" and path.parent.name != "log"
    }


def test_a_full_disk_in_any_stage_is_told_and_the_next_run_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_corpus(tmp_path / "in.jsonl")
    monkeypatch.setattr(recipe, "Progress", _FullDisk)
    run(config, tmp_path / "whole")

    for stage in STAGES:
        monkeypatch.setattr(_FullDisk, "stage_name", stage)
        with pytest.raises(DiskFullError, match=r"while writing .*run the same command again"):
            run(config, tmp_path / "out")
        left = [name for name in content(tmp_path / "out") if ".tmp-" in name or "unsort" in name]
        assert left == [], stage
    monkeypatch.setattr(_FullDisk, "stage_name", "")
    run(config, tmp_path / "out")

    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("until", ["pack", "tokenizer"])
def test_an_input_of_which_nothing_is_left_has_a_report_and_is_an_error(
    tmp_path: Path, until: recipe.UntilStage
) -> None:
    (tmp_path / "in.jsonl").write_text('{"content": "a"}\n{"text": ""}\n')
    config = PreprocessConfig(sources=(SourceConfig(path=str(tmp_path / "in.jsonl")),))
    shown = io.StringIO()

    with pytest.raises(ValueError, match="2 were read and all were dropped"):
        recipe.preprocess(
            config, output=tmp_path / "out", workers=1, until=until, console=Console(file=shown)
        )

    assert "2 documents in = 0 kept + 1 empty + 1 missing_text" in shown.getvalue()
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["total"]["dropped"] == {"empty": 1, "missing_text": 1}


def test_a_second_run_in_the_same_folder_is_refused_before_it_writes(tmp_path: Path) -> None:
    config = write_corpus(tmp_path / "in.jsonl")
    started = []

    def start_another() -> None:
        started.append("first")
        with pytest.raises(ValueError, match=r"another run \(process \d+\) is working in"):
            recipe.preprocess(
                config, output=tmp_path / "out", on_start=lambda: started.append("second")
            )
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe.preprocess(config, output=tmp_path / "out", workers=1, on_start=start_another)

    assert started == ["first"]


def test_tables_of_any_size_fit_into_80_columns() -> None:
    total = Tally(
        documents_in=412_345_678,
        kept=400_000_000,
        text_bytes=5 * 10**12,
        tokens=1_234_567_890_123,
        validation_documents=61_234,
        dropped={"near_duplicate": 12_345_600, "rejected_json": 78},
    )
    report = Report(total=total, stage="pack", sources={}, languages={"eng_Latn": replace(total)})
    report.fertility = [
        {"language": "eng_Latn", "bytes_per_token": 4.0, "gpt2_split_bytes_per_token": 3.5}
    ]
    shown = io.StringIO()

    show_report(report, Console(file=shown, width=80))

    assert "…" not in shown.getvalue()
    assert "12,345,600 near_duplicate" in shown.getvalue()


def test_an_output_that_is_a_file_is_said_so(tmp_path: Path) -> None:
    config = write_corpus(tmp_path / "in.jsonl")
    (tmp_path / "out").touch()

    with pytest.raises(ValueError, match=r"cannot write to the output folder .*/out: it is a file"):
        run(config, tmp_path / "out")
