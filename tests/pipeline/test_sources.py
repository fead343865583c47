"""Paths become files with stable names, and files become units that depend on nothing else."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.pipeline.config import SourceConfig
from gristmill.pipeline.sources import SourceFile, find_files
from gristmill.pipeline.units import fingerprints, plan_units

LINE = '{"text": "a"}\n'


def make(folder: Path, *names: str, content: str = LINE) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def source(path: Path | str | Sequence[Path | str], **settings: Any) -> SourceConfig:
    paths = str(path) if isinstance(path, Path | str) else tuple(map(str, path))
    return SourceConfig(path=paths, **settings)


def names(*sources: SourceConfig) -> list[str]:
    return [file.origin_file for file in find_files(sources)]


def unit_names(*sources: SourceConfig, unit_bytes: int = 64_000_000) -> list[str]:
    return [unit.name for unit in plan_units(find_files(sources), unit_bytes)]


# Which files


def test_a_folder_is_read_recursively_with_names_relative_to_it(tmp_path: Path) -> None:
    make(tmp_path, "b.jsonl", "a/deep/x.jsonl.gz", ".hidden.jsonl", "_SUCCESS", ".git/y.jsonl")

    assert names(source(tmp_path)) == ["a/deep/x.jsonl.gz", "b.jsonl"]


def test_a_glob_gives_names_relative_to_its_fixed_part(tmp_path: Path) -> None:
    make(tmp_path, "data/a/1.jsonl", "data/a/2.txt", "data/b/3.jsonl", "data/b/c/4.jsonl")

    assert names(source(tmp_path / "data/*/*.jsonl")) == ["a/1.jsonl", "b/3.jsonl"]
    assert names(source(tmp_path / "data/**/*.jsonl")) == ["a/1.jsonl", "b/3.jsonl", "b/c/4.jsonl"]


def test_a_language_in_the_path_gives_the_language(tmp_path: Path) -> None:
    make(tmp_path, "swh_Latn/train/0.jsonl", "vie_Latn/train/0.jsonl", "vie_Latn/test/0.jsonl")

    files = find_files([source(tmp_path / "{language}/train/*.jsonl")])

    assert [(file.origin_file, file.language) for file in files] == [
        ("swh_Latn/train/0.jsonl", "swh_Latn"),
        ("vie_Latn/train/0.jsonl", "vie_Latn"),
    ]


def test_a_language_can_be_a_part_of_a_name_and_stand_twice(tmp_path: Path) -> None:
    make(tmp_path, "de/wiki-de.jsonl", "de/wiki-fr.jsonl", "fr/wiki-fr.jsonl")

    files = find_files([source(tmp_path / "{language}/wiki-{language}.jsonl")])

    assert [(file.origin_file, file.language) for file in files] == [
        ("de/wiki-de.jsonl", "de"),
        ("fr/wiki-fr.jsonl", "fr"),
    ]


def test_a_name_with_brackets_is_a_name_before_it_is_a_pattern(tmp_path: Path) -> None:
    make(tmp_path, "a[1].jsonl", "a1.jsonl")

    assert names(source(tmp_path / "a[1].jsonl")) == ["a[1].jsonl"]


def test_texts_beside_data_files_are_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a.jsonl", "README.md", "stats.json")

    assert names(source(tmp_path)) == ["a.jsonl"]
    assert "README.md, stats.json" in caplog.text


def test_texts_alone_are_read(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.md.zst", "c.json")

    assert names(source(tmp_path)) == ["a.txt", "b.md.zst", "c.json"]


def test_a_set_format_reads_what_its_suffix_does_not_tell(tmp_path: Path) -> None:
    make(tmp_path, "a.dump")

    assert find_files([source(tmp_path / "a.dump", format="jsonl")])[0].format == "jsonl"


def test_a_file_named_twice_is_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "a.jsonl", "b.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
    paths = [tmp_path / "a.jsonl", tmp_path, tmp_path / "*.jsonl"]

    assert names(source(paths)) == ["a.jsonl", "b.jsonl"]
    assert "named twice" in caplog.text


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    make(tmp_path, "a/x.jsonl")
    (tmp_path / "a/up").symlink_to(tmp_path)

    assert names(source(tmp_path)) == ["a/x.jsonl"]


# What goes wrong


def test_a_missing_file_is_named_with_what_is_near(tmp_path: Path) -> None:
    make(tmp_path, "data/german.jsonl")

    with pytest.raises(FileNotFoundError, match=r"germann\.jsonl: no such file.*/german\.jsonl"):
        find_files([source(tmp_path / "data/germann.jsonl")])
    with pytest.raises(FileNotFoundError, match=r"near it: .*/data/german\.jsonl"):
        find_files([source(tmp_path / "dat/german.jsonl")])
    with pytest.raises(FileNotFoundError, match=r"no file matches; .*data holds german\.jsonl"):
        find_files([source(tmp_path / "data/*.parquet")])


def test_what_looks_like_a_hub_id_gets_the_hint(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='format = "huggingface"'):
        find_files([source("HuggingFaceFW/fineweb-2")])


def test_an_unknown_suffix_lists_the_known_ones(tmp_path: Path) -> None:
    make(tmp_path, "a.pdf")

    with pytest.raises(ValueError, match=r"a\.pdf: .* Known are \.jsonl .*\.parquet"):
        find_files([source(tmp_path / "a.pdf")])
    with pytest.raises(FileNotFoundError, match=r"nothing to read here \(it has 1 x \.pdf\)"):
        find_files([source(tmp_path)])


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing to read here"):
        find_files([source(tmp_path)])


def test_no_sources_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sources: name files or folders"):
        find_files([])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subset": "x"}, "subset is for data sets only"),
        ({"max_documents": 5}, "max_documents is for data sets only"),
        ({"streaming": False}, "streaming is for data sets only"),
        ({"columns": ("text",)}, "columns names 'text', which every document has"),
        ({"columns": ("url", "url")}, "names a column twice"),
        ({"priority": -1}, "priority is -1; it must be from 0 to 9999"),
        ({"text_unit": "line", "format": "jsonl"}, "text_unit is for plain text"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    make(tmp_path, "a.jsonl")

    with pytest.raises(ValueError, match=message):
        find_files([source(tmp_path, **settings)])


# Names and order


def test_equal_names_are_told_apart_by_the_folders_above(tmp_path: Path) -> None:
    make(tmp_path, "wiki/part/0.jsonl", "books/part/0.jsonl", "books/part/1.jsonl")
    sources = [source(tmp_path / "wiki"), source(tmp_path / "books")]

    assert names(*sources) == ["books/part/0.jsonl", "part/1.jsonl", "wiki/part/0.jsonl"]


def test_sources_are_named_after_their_path(tmp_path: Path) -> None:
    make(tmp_path, "wiki/0.jsonl", "notes.en.jsonl.gz", "books/a/1.jsonl", "books/b/2.jsonl")
    paths: list[Any] = [
        tmp_path / "wiki",
        tmp_path / "notes.en.jsonl.gz",
        tmp_path / "books/*/1.jsonl",
        [tmp_path / "books/b/2.jsonl", tmp_path / "books/a/1.jsonl"],
    ]

    assert [find_files([source(path)])[0].source_name for path in paths] == [
        "wiki",
        "notes",
        "books",
        "books",
    ]


def test_the_order_of_sources_and_files_given_does_not_matter(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jsonl", "a/2.jsonl", "b/1.jsonl", "c/9.jsonl")
    sources = [
        source([tmp_path / "a/2.jsonl", tmp_path / "a/1.jsonl"], name="a"),
        source(tmp_path / "b", priority=2),
        source(tmp_path / "c", priority=1),
    ]
    swapped = source([tmp_path / "a/1.jsonl", tmp_path / "a/2.jsonl"], name="a")

    orders = [unit_names(*order) for order in itertools.permutations([swapped, *sources[1:]])]

    assert all(order == unit_names(*sources) for order in orders)
    # priority first (a: 0, c: 1, b: 2), then the name
    assert [file.source_name for file in find_files(sources)] == ["a", "a", "c", "b"]


def test_moving_a_folder_changes_no_name_and_no_fingerprint(tmp_path: Path) -> None:
    make(tmp_path, "here/data/x/1.jsonl", "here/data/2.jsonl")
    before = plan_units(find_files([source(tmp_path / "here/data")]), 10)
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copy2)

    after = plan_units(find_files([source(tmp_path / "there/data")]), 10)

    assert [(unit.name, fingerprints(unit)) for unit in after] == [
        (unit.name, fingerprints(unit)) for unit in before
    ]


def test_another_setting_of_the_source_is_another_fingerprint(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl")

    def print_of(**settings: Any) -> tuple[str, ...]:
        return fingerprints(plan_units(find_files([source(tmp_path, **settings)]), 100)[0])

    prints = [
        print_of(),
        print_of(text_key="content"),
        print_of(id_key="key"),
        print_of(language="en"),
        print_of(columns=("url",)),
        print_of(name="other"),
    ]
    assert len(set(prints)) == len(prints)


# Units


def test_large_line_files_are_split_by_bytes(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", content=LINE * 100)

    units = plan_units(find_files([source(tmp_path)]), 500)

    pieces = [unit.pieces[0] for unit in units]
    assert [(piece.start, piece.end) for piece in pieces] == [(0, 500), (500, 1000), (1000, 1400)]
    assert sum(unit.size_bytes for unit in units) == 1400


def test_unit_names_sort_as_documents_count(tmp_path: Path) -> None:
    make(tmp_path, "x/b.jsonl", "x/a b.jsonl", "x/a.jsonl", "x/Ä/ü.jsonl", content=LINE * 99)
    make(tmp_path, "x/" + "long" * 50 + ".jsonl")

    found = unit_names(source(tmp_path / "x", priority=3), unit_bytes=300)

    assert found == sorted(found)
    assert len(set(found)) == len(found)
    assert "0003-a.jsonl-000000000300" in found
    assert all("/" not in name and len(name.encode()) < 200 for name in found)


def test_thousands_of_tiny_files_share_units(tmp_path: Path) -> None:
    for number in range(2_500):
        (tmp_path / f"{number:05}.txt").write_text("x")

    units = plan_units(find_files([source(tmp_path)]), 64_000_000)

    assert [len(unit.pieces) for unit in units] == [1000, 1000, 500]


def test_files_of_sources_with_other_settings_share_no_unit(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jsonl", "b/2.jsonl")
    sources = [source(tmp_path / "a", columns=("url",)), source(tmp_path / "b")]

    assert len(unit_names(*sources)) == 2


def test_parquet_is_split_by_row_groups(tmp_path: Path) -> None:
    table = pa.table({"text": [f"{n} {n * 7919 % 1000} text" for n in range(1000)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100, compression="none")

    units = plan_units(find_files([source(tmp_path)]), 4_000)

    ranges = [(unit.pieces[0].start, unit.pieces[0].end) for unit in units]
    assert len(ranges) > 2
    assert ranges[0][0] == 0
    assert ranges[-1][1] == 10
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))


def test_a_file_knows_its_format_and_compression(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl.zst", "b.NDJSON.GZ", "c.arrow", "d.json.gz", "e.parquet")
    files: list[SourceFile] = find_files([source(tmp_path)])

    assert [(file.format, file.compression) for file in files] == [
        ("jsonl", "zstd"),
        ("jsonl", "gzip"),
        ("arrow", ""),
        ("jsonl", "gzip"),
        ("parquet", ""),
    ]


@pytest.fixture(autouse=True)
def _see_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
