"""A small corpus of several units, and whole runs of it to compare byte by byte."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from gristmill.pipeline import recipe
from gristmill.pipeline.config import (
    CleanConfig,
    DedupConfig,
    PreprocessConfig,
    SourceConfig,
    TokenizerConfig,
)
from gristmill.pipeline.report import Report


def write_corpus(folder: Path, *, num_files: int = 6, documents: int = 40) -> PreprocessConfig:
    """Write files of documents, some of them equal or nearly so, across files too."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in range(num_files):
        with (folder / f"{name}.jsonl").open("w") as file:
            for number in range(name * documents, (name + 1) * documents):
                base = number - number % 5 // 3
                words = " ".join(f"word{base * 7919 % 5003 + k * k}" for k in range(50))
                text = words + " more" * (number - base) if number % 7 else "the same again"
                file.write(json.dumps({"text": text, "language": "en"}) + "\n")
    return PreprocessConfig(
        sources=(SourceConfig(path=str(folder)),),
        clean=CleanConfig(unit_bytes=10_000),
        dedup=DedupConfig(partitions=2, boilerplate_documents=2),
        tokenizer=TokenizerConfig(vocab_size=300, train_bytes=20_000),
    )


def run(config: PreprocessConfig, output: Path, **options: Any) -> Report:
    """Run the pipeline in this process, or with `workers`."""
    options = {"workers": 1, "console": Console(file=io.StringIO())} | options
    return recipe.preprocess(config, output=output, **options)


def content(output: Path) -> dict[str, bytes]:
    """Return every file of a run but what is about the run itself: locks and logs."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and not path.name.startswith("lock") and path.parent.name != "log"
    }
