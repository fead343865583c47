"""Config files: typed, strict, documented, and the same after a round trip."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from gristmill.config import (
    ConfigError,
    RunConfig,
    build,
    field_documentation,
    read_config,
    to_toml,
)
from gristmill.pipeline.config import (
    CleanConfig,
    DedupConfig,
    PackConfig,
    PreprocessConfig,
    SourceConfig,
    TokenizerConfig,
)
from gristmill.trainer.config import PretrainConfig

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def classes(kind: type) -> list[type]:
    """Return `kind` and the config classes inside it."""
    found = [kind]
    for field in dataclasses.fields(kind):
        value = field.default_factory() if callable(field.default_factory) else None
        if dataclasses.is_dataclass(value):
            found += classes(type(value))
    return found


@pytest.mark.parametrize(
    "kind", [RunConfig, SourceConfig, *classes(PreprocessConfig), *classes(PretrainConfig)]
)
def test_every_field_is_documented(kind: type) -> None:
    documented = field_documentation(kind)

    assert [f.name for f in dataclasses.fields(kind) if f.name not in documented] == []


def test_a_config_survives_the_way_to_toml_and_back() -> None:
    config = PreprocessConfig(
        sources=(
            SourceConfig(path='a b/ü"x\\.jsonl', language="de"),
            SourceConfig(path=("one", "two"), columns=("url",)),
        ),
        clean=CleanConfig(min_characters=7),
        dedup=DedupConfig(threshold=0.75, near=False),
        tokenizer=TokenizerConfig(vocab_size=999),
        pack=PackConfig(group_by=("language", "source")),
    )

    text = to_toml({"run": RunConfig(), "preprocess": config, "pretrain": PretrainConfig()})
    tables = tomllib.loads(text)

    assert build(PreprocessConfig, tables["preprocess"], "x") == config
    assert build(PretrainConfig, tables["pretrain"], "x") == PretrainConfig()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            {"dedup": {"treshold": 0.8}},
            "x, dedup: unknown key `treshold`; did you mean `threshold`?",
        ),
        ({"sorces": []}, "x: unknown key `sorces`; did you mean `sources`?"),
        ({"sources": [{"path": "a", "langage": "en"}]}, "did you mean `language`?"),
        ({"dedup": {"threshold": "high"}}, "Expected `float`, got `str` - at `$.dedup.threshold`"),
        ({"sources": [{}]}, "missing required field `path`"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_a_way_out(table: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(PreprocessConfig, table, "x")

    assert message in str(caught.value)


def test_an_unknown_section_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[pretain]\n")

    with pytest.raises(ConfigError, match="did you mean `pretrain`"):
        read_config(path)


def test_broken_toml_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[run]\noutput = \n")

    with pytest.raises(ConfigError, match=r"c\.toml is not valid TOML.*line 2"):
        read_config(path)


def test_a_missing_config_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "demo.toml").write_text("")

    with pytest.raises(ConfigError, match=r"demo\.toml exists"):
        read_config(tmp_path / "demmo.toml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_config_is_valid(path: Path) -> None:
    tables = read_config(path)

    build(RunConfig, tables.get("run", {}), path.name)
    build(PreprocessConfig, tables.get("preprocess", {}), path.name)
    build(PretrainConfig, tables.get("pretrain", {}), path.name)
