"""Settings that cannot be meant are refused by name, before anything is read or written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gristmill.pipeline.check import check_config
from gristmill.pipeline.config import PreprocessConfig, SourceConfig
from gristmill.pipeline.plan import plan_preprocess
from gristmill.pipeline.recipe import preprocess

WRONG: list[tuple[str, str, Any, str]] = [
    ("clean", "min_characters", -1, "it must be 0 or more"),
    ("clean", "max_bytes", -1, "0: no limit"),
    ("clean", "unit_bytes", 0, "it must be 1 or more"),
    ("dedup", "threshold", 0.0, "it is a Jaccard similarity"),
    ("dedup", "threshold", 80.0, "above 0 and at most 1"),
    ("dedup", "threshold", float("nan"), "above 0 and at most 1"),
    ("dedup", "num_bands", 0, "it must be 1 or more"),
    ("dedup", "rows_per_band", 0, "it must be 1 or more"),
    ("dedup", "rows_per_band", 100_000, "at most 10000 hash values"),
    ("dedup", "partitions", -1, "it must be 0 or more"),
    ("dedup", "boilerplate_documents", -1, "it must be 0 or more"),
    ("dedup", "boilerplate_documents", 1, "every shingle would be boilerplate"),
    ("dedup", "payload_overlap", 1.5, "it must be from 0 to 1"),
    ("dedup", "keep", ("longst",), "'longst', which says of no two copies which one is kept"),
    ("dedup", "among_new", False, "nothing to compare with"),
    ("dedup", "partitions", 1_000_000, "at most 65536"),
    ("tokenizer", "vocab_size", 264, "an id for each of the 256 bytes .* at least 265"),
    ("tokenizer", "train_bytes", 0, "it must be 1 or more"),
    ("tokenizer", "min_frequency", -1, "it must be 1 or more"),
    ("pack", "group_by", ("language", "language"), "once at most"),
    ("pack", "min_documents", -1, "it must be 0 or more"),
    ("pack", "max_shard_tokens", 0, "it must be 1 or more"),
    ("pack", "validation_fraction", 1.0, "at least 0 and below 1"),
    ("pack", "validation_fraction", -0.1, "at least 0 and below 1"),
    ("pack", "validation_max_tokens", -1, "it must be 0 or more"),
]


@pytest.mark.parametrize(("section", "setting", "value", "message"), WRONG)
def test_a_setting_without_sense_is_refused_by_name(
    section: str, setting: str, value: Any, message: str
) -> None:
    default = PreprocessConfig()
    part = replace(getattr(default, section), **{setting: value})

    with pytest.raises(ValueError, match=message) as caught:
        check_config(replace(default, **{section: part}))

    assert f"{section}.{setting}" in str(caught.value)


def test_the_defaults_make_sense() -> None:
    check_config(PreprocessConfig())


@pytest.mark.parametrize("wrong", ["setting", "tokenizer", "input"])
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    config = PreprocessConfig(sources=(SourceConfig(path=str(tmp_path / "in.jsonl")),))
    if wrong == "setting":  # of the last stage
        config = replace(config, pack=replace(config.pack, validation_fraction=1.5))
    elif wrong == "tokenizer":
        path = str(tmp_path / "no/tokenizer.json")
        config = replace(config, tokenizer=replace(config.tokenizer, path=path))
    else:
        (tmp_path / "in.jsonl").unlink()

    with pytest.raises((ValueError, FileNotFoundError)):
        preprocess(config, output=tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()
    with pytest.raises((ValueError, FileNotFoundError)):
        plan_preprocess(config, output=tmp_path / "out")
