"""Cleaning changes what it says and nothing else, and its files depend on the input only."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipeline import clean
from gristmill.pipeline.batches import text_array
from gristmill.pipeline.config import CleanConfig, PreprocessConfig, SourceConfig
from gristmill.pipeline.documents import document_schema
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.normalize import Normalizer, clean_text
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.stage import Marker

DEFAULT = CleanConfig()


def run(
    output: Path,
    *sources: SourceConfig,
    workers: int = 1,
    settings: CleanConfig = DEFAULT,
) -> dict[str, Marker]:
    config = PreprocessConfig(sources=sources, clean=settings)
    with LocalExecutor(workers) as executor:
        return clean.run(config, output, executor, Progress(quiet=True))


def documents(output: Path) -> list[dict[str, Any]]:
    paths = sorted((output / "documents").glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def rejected(output: Path) -> list[dict[str, Any]]:
    paths = sorted((output / "rejected").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]


def files_of(output: Path) -> dict[str, bytes]:
    paths = (path for path in output.rglob("*") if path.is_file())
    return {str(path.relative_to(output)): path.read_bytes() for path in paths}


def outcomes(markers: dict[str, Marker]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for marker in markers.values():
        for _, _, outcome, count, _ in marker.counts["rows"]:
            totals[outcome] = totals.get(outcome, 0) + count
    assert sum(totals.values()) == sum(one.counts["documents_in"] for one in markers.values())
    return totals


def jsonl(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# The form of a text


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("as it is\n\nand\tstays", "as it is\n\nand\tstays"),
        ("e\u0301te\u0301", "\u00e9t\u00e9"),
        ("a\r\nb\rc\x85d\u2028e\u2029f", "a\nb\nc\nd\ne\nf"),
        ("nul\x00 bell\x07 esc\x1b[0m del\x7f c1\x9b", "nul bell esc[0m del c1"),
        ("\ufeffmark\ufeff in the middle", "mark in the middle"),
        ("non\ufdd0\ufdef\ufffe\uffff\U0001fffe\U0010ffffcharacters", "noncharacters"),
        ("  both ends \n\n", "both ends"),
        ("line ends \t\n\u3000\nx\u00a0\ny", "line ends\n\nx\ny"),
        ("\u3000 \u2003ideographic\u3000", "ideographic"),
        ("  two  spaces  inside  ", "two  spaces  inside"),
        ("می‌خواهم क्‍ष \u200fעברית\u200e", "می‌خواهم क्‍ष \u200fעברית\u200e"),
        ("\ufffd stays, \ue000 too, 👩‍👩‍👧", "\ufffd stays, \ue000 too, 👩‍👩‍👧"),
        ("e\x00\u0301", "\u00e9"),
        ("\x00 \ufeff\r\n", ""),
    ],
)
def test_a_text_gets_its_normal_form(raw: str, expected: str) -> None:
    assert clean_text(raw, DEFAULT) == expected


def test_every_step_can_be_turned_off() -> None:
    raw = " e\u0301\x00 \r\n"
    assert clean_text(raw, CleanConfig(unicode_form="none")) == "e\u0301"
    assert clean_text(raw, CleanConfig(control_characters="keep")) == "\u00e9\x00"
    assert clean_text(raw, CleanConfig(newlines=False)) == "\u00e9"
    assert clean_text(raw, CleanConfig(strip=False)) == " \u00e9 \n"


texts = st.text(max_size=30) | st.text(
    alphabet=" \t\n\r\x00\x0b\x7f\x85\x9f\xa0\u0301\u0345\u1680\u200a\u200d\u2028\u202f\u205f\u3000"
    "\ufdd0\ufeff\ufffd\uffff\U0001fffe\U0002f800ae\u00e9рあ俾ক가ᄀ",
    max_size=12,
)
settings_of = st.builds(
    CleanConfig,
    unicode_form=st.sampled_from(["NFC", "none"]),
    newlines=st.booleans(),
    control_characters=st.sampled_from(["remove", "keep"]),
    strip=st.booleans(),
)


@given(texts, settings_of)
def test_cleaning_twice_changes_nothing_more(text: str, settings: CleanConfig) -> None:
    once = clean_text(text, settings)
    assert clean_text(once, settings) == once


@given(st.lists(texts, max_size=20), settings_of, st.sampled_from([1, 3, 1000]))
def test_a_batch_is_cleaned_as_its_texts_one_by_one(
    batch: list[str], settings: CleanConfig, segment_bytes: int
) -> None:
    array = text_array([text.encode() for text in batch])
    offsets = np.frombuffer(array.buffers()[1], np.int64)[: len(batch) + 1]
    data = np.frombuffer(array.buffers()[2] or b"", np.uint8)

    changed = Normalizer(settings, segment_bytes)(data, offsets)

    result = [changed.get(n, text.encode()).decode() for n, text in enumerate(batch)]
    assert result == [clean_text(text, settings) for text in batch]


# Documents


def test_a_document_has_all_its_columns(tmp_path: Path) -> None:
    rows = [
        {"id": "a1", "text": "Mzee \n", "lang": "sw", "url": "http://x", "score": 0.5},
        {"id": 7, "text": "Ärger", "language": "de", "tags": ["x", {"y": None}], "url": None},
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/part.jsonl").write_text(jsonl(rows))
    columns = ("url", "score", "tags")

    run(tmp_path / "out", SourceConfig(path=str(tmp_path / "in"), name="web", columns=columns))

    path = next((tmp_path / "out/documents").iterdir())
    assert pq.read_schema(path).equals(document_schema(columns))
    first, second = documents(tmp_path / "out")
    assert first == {
        "id": hashlib.blake2b(b"Mzee \n", digest_size=16).digest(),
        "input_id": "a1",
        "text": "Mzee",
        "language": "swh_Latn",
        "source": "web",
        "origin_file": "part.jsonl",
        "origin_offset": 0,
        "url": "http://x",
        "score": "0.5",
        "tags": None,
    }
    assert second["origin_offset"] == len(jsonl(rows[:1]).encode())
    assert (second["input_id"], second["language"]) == ("7", "deu_Latn")
    assert (second["url"], second["score"], second["tags"]) == (None, None, '["x",{"y":null}]')


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["fra_Latn", "deu_Latn", "und_Zyyy"]),
        ({"language": "zh"}, ["cmn_Hani"] * 3),
        ({"language_keys": ("lang",)}, ["eng_Latn", "und_Zyyy", "und_Zyyy"]),
    ],
)
def test_the_language_comes_from_the_source_or_from_the_first_key_that_has_one(
    tmp_path: Path, settings: dict[str, Any], expected: list[str]
) -> None:
    rows = [
        {"text": "a", "language": "fr", "lang": "en"},
        {"text": "b", "language": "de", "lang": 5},
        {"text": "c", "language": None},
    ]
    (tmp_path / "a.jsonl").write_text(jsonl(rows))

    run(tmp_path / "out", SourceConfig(path=str(tmp_path / "a.jsonl"), **settings))

    assert [row["language"] for row in documents(tmp_path / "out")] == expected


def test_the_language_of_the_path_wins_over_the_rows(tmp_path: Path) -> None:
    (tmp_path / "sr-Latn.jsonl").write_text(jsonl([{"text": "a", "lang": "sr"}]))

    run(tmp_path / "out", SourceConfig(path=str(tmp_path / "{language}.jsonl")))

    assert [row["language"] for row in documents(tmp_path / "out")] == ["srp_Latn"]


def test_a_code_that_is_no_language_is_reported_once_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl([{"text": str(n), "lang": "gj"} for n in range(5)]))

    markers = run(tmp_path / "out", SourceConfig(path=str(tmp_path / "a.jsonl")))

    assert outcomes(markers) == {"clean": 5}
    assert [one.message for one in caplog.records if "'gj'" in one.message] == [
        "language code 'gj' is no language that we know: 5 documents are und_Zyyy (set `language` "
        "or `language_keys` of their source)"
    ]


def test_a_column_that_never_has_a_value_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl([{"text": "a", "url": "x"}]))

    run(tmp_path / "out", SourceConfig(path=str(tmp_path / "a.jsonl"), columns=("url", "ulr")))

    assert "no document has a value in column 'ulr'" in caplog.text
    assert "'url'" not in caplog.text


def test_short_long_and_empty_texts_are_dropped_by_name(tmp_path: Path) -> None:
    rows = [{"text": text, "id": text} for text in ["", " \n", "ab", "äöü", "x" * 20, "y" * 21]]
    (tmp_path / "a.jsonl").write_text(jsonl(rows))
    settings = CleanConfig(min_characters=3, max_bytes=20)

    markers = run(tmp_path / "out", SourceConfig(path=str(tmp_path / "a.jsonl")), settings=settings)

    assert outcomes(markers) == {"empty": 2, "too_short": 1, "too_long": 1, "clean": 2}
    assert [row["text"] for row in documents(tmp_path / "out")] == ["äöü", "x" * 20]
    dropped = rejected(tmp_path / "out")
    assert [row["reason"] for row in dropped] == ["empty", "empty", "too_short", "too_long"]
    assert dropped[2] == {
        "id": hashlib.blake2b(b"ab", digest_size=16).hexdigest(),
        "input_id": "ab",
        "source": "a",
        "origin_file": "a.jsonl",
        "origin_offset": len(jsonl(rows[:2]).encode()),
        "language": "und_Zyyy",
        "reason": "too_short",
        "detail": "2 characters; min_characters is 3",
        "text_bytes": 2,
        "excerpt": "ab",
    }


def test_counts_are_by_source_language_and_outcome(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        jsonl([{"text": "é ", "lang": "fr"}, {"text": "b", "lang": "en"}, {"text": ""}]) + "\n\n"
    )

    (marker,) = run(tmp_path / "out", SourceConfig(path=str(tmp_path / "a.jsonl"))).values()

    assert marker.counts["documents_in"] == 3
    assert marker.counts["blank_lines"] == 2
    assert marker.counts["bytes_in"] == (tmp_path / "a.jsonl").stat().st_size
    assert marker.counts["rows"] == [
        ["a", "eng_Latn", "clean", 1, 1],
        ["a", "fra_Latn", "clean", 1, 2],
        ["a", "und_Zyyy", "empty", 1, 0],
    ]


# The same bytes, whatever happens


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with files of several formats, some good and some bad rows."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    rows = [
        {"id": n, "text": f"text {n} " * (n % 50), "lang": ["en", "ar", "xx"][n % 3]}
        for n in range(2_000)
    ]
    (folder / "plain.jsonl").write_text(jsonl(rows[:1000]) + "broken\n" + jsonl(rows[1000:]))
    (folder / "z.jsonl.zst").write_bytes(zstandard.compress(jsonl(rows).encode()))
    (folder / "g.jsonl.gz").write_bytes(gzip.compress(jsonl(rows).encode()) + b"rubbish")
    table = pa.table({"text": [row["text"] for row in rows], "lang": ["fr"] * len(rows)})
    pq.write_table(table, folder / "p.parquet", row_group_size=300)
    for number in range(20):
        (folder / f"small-{number:02}.jsonl").write_text(jsonl(rows[number : number + 3]))
    return folder


SPLIT = CleanConfig(unit_bytes=50_000)


def test_one_and_two_workers_write_the_same_bytes(mixed: Path, tmp_path: Path) -> None:
    one = run(tmp_path / "one", SourceConfig(path=str(mixed)), settings=SPLIT)
    two = run(tmp_path / "two", SourceConfig(path=str(mixed)), settings=SPLIT, workers=2)

    assert len(one) > 10
    assert list(one) == sorted(one)
    assert one == two
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    # every 50th text is empty; the first of the small files has one of them
    assert outcomes(one) == {
        "clean": 4 * 1960 + 59,
        "empty": 4 * 40 + 1,
        "rejected_json": 1,
        "rejected_truncated": 1,
    }


def test_a_split_file_gives_the_same_documents_as_a_whole_one(mixed: Path, tmp_path: Path) -> None:
    path = SourceConfig(path=str(mixed / "plain.jsonl"))
    for unit_bytes in (9_970, 50_000, 10**9):
        run(tmp_path / str(unit_bytes), path, settings=CleanConfig(unit_bytes=unit_bytes))

    whole = documents(tmp_path / str(10**9))
    assert len(whole) == 1960
    assert documents(tmp_path / "9970") == whole
    assert documents(tmp_path / "50000") == whole
    assert rejected(tmp_path / "9970") == rejected(tmp_path / str(10**9))


def test_what_a_kill_leaves_undone_is_redone_to_the_same_bytes(mixed: Path, tmp_path: Path) -> None:
    path = SourceConfig(path=str(mixed))
    run(tmp_path / "whole", path, settings=SPLIT)
    run(tmp_path / "killed", path, settings=SPLIT)
    killed = tmp_path / "killed"
    for number, marker in enumerate(sorted((killed / "work/clean").iterdir())):
        unit = marker.stem
        if number % 3 == 0:  # killed before the marker
            marker.unlink()
        if number % 6 == 0:  # killed while writing
            (killed / f"documents/{unit}.parquet").rename(
                killed / f"documents/{unit}.parquet.tmp-1"
            )
            (killed / f"rejected/{unit}.jsonl").write_text("left over")

    run(killed, path, settings=SPLIT)

    assert files_of(killed) == files_of(tmp_path / "whole")


def test_finished_units_are_skipped(mixed: Path, tmp_path: Path) -> None:
    path = SourceConfig(path=str(mixed))
    run(tmp_path / "out", path, settings=SPLIT)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.is_file()}
    (mixed / "z.jsonl.zst").write_bytes(zstandard.compress(b'{"text": "new"}\n'))

    run(tmp_path / "out", path, settings=SPLIT)

    redone = {p.name for p, time in before.items() if not p.exists() or p.stat().st_mtime_ns > time}
    assert redone
    assert all("z.jsonl.zst" in name or "small" in name for name in redone), redone


def test_moving_the_input_changes_nothing(mixed: Path, tmp_path: Path) -> None:
    source = SourceConfig(path=str(mixed), name="mixed")
    run(tmp_path / "out", source, settings=SPLIT)
    before = files_of(tmp_path / "out")
    mixed.rename(tmp_path / "elsewhere")

    moved = dataclasses.replace(source, path=str(tmp_path / "elsewhere"))
    run(tmp_path / "out", moved, settings=SPLIT)
    run(tmp_path / "fresh", moved, settings=SPLIT)

    assert files_of(tmp_path / "out") == before == files_of(tmp_path / "fresh")


def test_large_outputs_have_bounded_row_groups(
    tmp_path: Path, write_jsonl: Callable[[Path, list[dict[str, object]]], Path]
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": f"{n} " * 250_000} for n in range(100, 140)])

    run(tmp_path / "out", SourceConfig(path=str(path)))

    metadata = pq.read_metadata(next((tmp_path / "out/documents").iterdir()))
    sizes = [metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)]
    assert len(sizes) >= 2
    assert max(sizes) < 20_000_000


@pytest.fixture(autouse=True)
def _see_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
