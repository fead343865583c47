"""Every format gives the same documents; data sets in hub layout are read like any files."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import zstandard

from gristmill.pipeline import clean
from gristmill.pipeline.config import CleanConfig, PreprocessConfig, SourceConfig
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.sources import find_files

ROWS = [
    {
        "id": f"id-{n}",
        "text": f"Text number {n} 文字 é",
        "lang": ["en", "fr"][n % 2],
        "url": f"u{n}",
    }
    for n in range(250)
]


def read(output: Path, path: Path | str, **settings: Any) -> list[dict[str, Any]]:
    source = SourceConfig(path=str(path), **settings)
    with LocalExecutor(1) as executor:
        clean.run(PreprocessConfig(sources=(source,)), output, executor, Progress(quiet=True))
    paths = sorted((output / "documents").iterdir())
    return [row for one in paths for row in pq.read_table(one).to_pylist()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    table = pa.Table.from_pylist(rows)
    match path.name.split(".", 1)[1]:
        case "jsonl" | "json" | "ndjson":
            path.write_bytes(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "jsonl.zst":
            path.write_bytes(zstandard.compress(lines))
        case "parquet":
            pq.write_table(table, path, row_group_size=70)
        case "feather":
            feather.write_feather(table, str(path), compression="zstd", chunksize=60)
        case "arrow":
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as to:
                to.write_table(table, max_chunksize=60)
        case other:
            raise AssertionError(other)
    return path


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.json", "a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.feather", "a.arrow"],
)
def test_every_format_gives_the_same_documents(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)

    documents = read(tmp_path / "out", path, columns=("url",))

    keys = ("input_id", "text", "url")
    assert [tuple(row[key] for key in keys) for row in documents] == [
        (row["id"], row["text"], row["url"]) for row in ROWS
    ]
    assert [row["language"] for row in documents[:2]] == ["eng_Latn", "fra_Latn"]
    assert {row["origin_file"] for row in documents} == {name}
    offsets = [row["origin_offset"] for row in documents]
    if "json" in name:
        sizes = [len(json.dumps(row, ensure_ascii=False).encode()) + 1 for row in ROWS]
        assert offsets == [sum(sizes[:n]) for n in range(len(sizes))]
    else:
        assert offsets == list(range(250))


@pytest.mark.parametrize(
    "text_type",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
    ids=str,
)
def test_every_type_of_text_column_is_read(tmp_path: Path, text_type: pa.DataType) -> None:
    values = ["eins", "zwei", None, "eins"]
    array = pa.array([v.encode() if v and "binary" in str(text_type) else v for v in values])
    if pa.types.is_dictionary(text_type):
        array = array.dictionary_encode()
    table = pa.table({"text": array.cast(text_type)})
    file = pa.OSFile(str(tmp_path / "a.arrow"), "wb")
    with file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)

    documents = read(tmp_path / "out", tmp_path / "a.arrow")

    assert [(row["text"], row["origin_offset"]) for row in documents] == [
        ("eins", 0),
        ("zwei", 1),
        ("eins", 3),
    ]


def test_sliced_and_nested_columns_are_carried_as_json(tmp_path: Path) -> None:
    row = {
        "text": "a",
        "when": datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC),
        "price": decimal.Decimal("1.50"),
        "tags": ["x", None],
        "meta": {"deep": {"n": 1}},
        "raw": b"\x00\xff",
        "none": None,
        "flag": True,
        "nan": float("nan"),
    }
    columns = tuple(key for key in row if key != "text")
    pq.write_table(pa.Table.from_pylist([row] * 3), tmp_path / "a.parquet")

    document = read(tmp_path / "out", tmp_path / "a.parquet", columns=columns)[1]

    assert {key: document[key] for key in columns} == {
        "when": '"2024-05-06T07:08:09Z"',
        "price": '"1.50"',
        "tags": '["x",null]',
        "meta": '{"deep":{"n":1}}',
        "raw": '"AP8="',
        "none": None,
        "flag": "true",
        "nan": "null",
    }


def test_a_language_column_and_other_keys_are_used_as_configured(tmp_path: Path) -> None:
    table = {"content": ["a", "b"], "key": [7, None], "tongue": ["sw", "vi"], "lang": ["x", "y"]}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")

    documents = read(
        tmp_path / "out",
        tmp_path / "a.parquet",
        text_key="content",
        id_key="key",
        language_keys=("tongue",),
    )

    assert [(row["input_id"], row["language"]) for row in documents] == [
        ("7", "swh_Latn"),
        (None, "vie_Latn"),
    ]


TEXT = "First line\nof one paragraph.\n\n  \nSecond é\r\n\r\n\n third "


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("file", [("First line\nof one paragraph.\n\n\nSecond é\n\n\n third", 0)]),
        (
            "paragraph",
            [("First line\nof one paragraph.", 0), ("Second é", 33), ("third", 47)],
        ),
        (
            "line",
            [("First line", 0), ("of one paragraph.", 11), ("Second é", 33), ("third", 47)],
        ),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.md.gz", "a.txt.zst"])
def test_a_text_file_is_one_document_or_one_a_paragraph_or_one_a_line(
    tmp_path: Path, name: str, unit: Any, expected: list[tuple[str, int]]
) -> None:
    data = TEXT.encode()
    compress = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.rsplit(".")[-1], bytes)
    (tmp_path / name).write_bytes(compress(data))

    documents = read(tmp_path / "out", tmp_path / name, text_unit=unit, language="de")

    assert [(row["text"], row["origin_offset"]) for row in documents] == expected
    assert {row["language"] for row in documents} == {"deu_Latn"}


def test_texts_by_line_are_split_into_units(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"line {n}\n" for n in range(5_000)))
    config = PreprocessConfig(
        sources=(SourceConfig(path=str(tmp_path / "a.txt"), text_unit="line"),),
        clean=CleanConfig(unit_bytes=10_000),
    )

    with LocalExecutor(1) as executor:
        markers = clean.run(config, tmp_path / "out", executor, Progress(quiet=True))

    assert len(markers) == 5
    assert sum(marker.counts["documents_in"] for marker in markers.values()) == 5_000


def test_one_text_with_bad_bytes_costs_that_text(tmp_path: Path) -> None:
    for name, data in {"a.txt": b"good", "b.txt": b"b\xe9d", "c.txt": b"good"}.items():
        (tmp_path / name).write_bytes(data)

    assert [row["origin_file"] for row in read(tmp_path / "out", tmp_path)] == ["a.txt", "c.txt"]


# Data sets of the Hugging Face hub


@pytest.fixture
def fineweb2(tmp_path: Path) -> Path:
    """A folder with the layout of FineWeb2: data/{subset}/{split}/*.parquet."""
    folder = tmp_path / "fineweb-2"
    for subset in ("swh_Latn", "vie_Latn"):
        for split in ("train", "test"):
            for number in range(2):
                rows = [
                    {"text": f"{subset} {split} {number} {n}", "id": f"{n}", "language": "und"}
                    for n in range(10)
                ]
                write(folder / f"data/{subset}/{split}/00{number}_00000.parquet", rows)
    (folder / "README.md").write_text("A data set.\n")
    return folder


def test_a_local_data_set_is_read_by_subset_and_split(tmp_path: Path, fineweb2: Path) -> None:
    documents = read(tmp_path / "out", fineweb2, format="huggingface", subset="swh_Latn")

    assert len(documents) == 20
    assert documents[0]["text"] == "swh_Latn train 0 0"
    assert documents[0]["language"] == "swh_Latn"
    assert documents[0]["source"] == "fineweb-2"
    assert documents[0]["origin_file"] == "data/swh_Latn/train/000_00000.parquet"


def test_a_local_data_set_can_be_read_in_part(tmp_path: Path, fineweb2: Path) -> None:
    settings: dict[str, Any] = {"format": "huggingface", "subset": "vie_Latn", "split": "test"}

    documents = read(tmp_path / "out", fineweb2, max_documents=13, **settings)

    assert [row["text"] for row in documents] == [
        f"vie_Latn test {n // 10} {n % 10}" for n in range(13)
    ]


def test_the_readme_of_a_data_set_says_which_files_a_subset_has(
    tmp_path: Path, fineweb2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (fineweb2 / "README.md").write_text(
        "---\nlicense: odc-by\nconfigs:\n- config_name: swahili\n  data_files:\n"
        "  - split: train\n    path: data/swh_Latn/*/000*.parquet\n---\n"
    )

    documents = read(tmp_path / "out", fineweb2, format="huggingface", subset="swahili")

    assert [row["origin_file"] for row in documents[::10]] == [
        "data/swh_Latn/test/000_00000.parquet",
        "data/swh_Latn/train/000_00000.parquet",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subset": "swa_Latn"}, "has no subset 'swa_Latn'; it has swh_Latn"),
        ({"subset": "swh_Latn", "split": "valid"}, "has no split 'valid'; it has train, test"),
        ({"subset": "swh_Latn", "revision": "main"}, "local folder, which has no revisions"),
    ],
)
def test_a_subset_or_split_that_is_not_there_lists_those_that_are(
    fineweb2: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        find_files([SourceConfig(path=str(fineweb2), format="huggingface", **settings)])


def test_a_folder_of_save_to_disk_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    train = datasets.Dataset.from_list(ROWS)
    train.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": train, "test": train.select(range(3))}).save_to_disk(
        str(tmp_path / "two")
    )

    one = read(tmp_path / "out1", tmp_path / "one", format="huggingface")
    two = read(tmp_path / "out2", tmp_path / "two", format="huggingface", split="test")

    assert [row["text"] for row in one] == [row["text"] for row in ROWS]
    assert [row["text"] for row in two] == [row["text"] for row in ROWS[:3]]
    with pytest.raises(FileNotFoundError, match="no split 'dev'; it has train, test"):
        read(tmp_path / "out3", tmp_path / "two", format="huggingface", split="dev")


def test_a_hub_id_is_read_as_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    calls = []

    def load_dataset(path: str, **settings: Any) -> Any:
        def rows() -> Iterator[dict[str, Any]]:
            yield from ROWS * 3

        calls.append((path, settings))
        return datasets.IterableDataset.from_generator(rows)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    documents = read(
        tmp_path / "out",
        "owner/name",
        format="huggingface",
        subset="swh_Latn",
        revision="abc",
        max_documents=600,
        columns=("url",),
    )

    assert calls == [
        (
            "owner/name",
            {"name": "swh_Latn", "split": "train", "revision": "abc", "streaming": True},
        )
    ]
    assert [row["text"] for row in documents] == [row["text"] for row in (ROWS * 3)[:600]]
    assert documents[599]["origin_offset"] == 599
    assert documents[599]["origin_file"] == "owner/name/swh_Latn/train"
    assert {row["language"] for row in documents} == {"swh_Latn"}
    assert documents[3]["url"] == "u3"


def test_a_hub_that_does_not_answer_is_an_error_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(path: str, **_: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)

    with pytest.raises(Exception, match=r"owner/name .*cannot be read.*no route.*download the"):
        read(tmp_path / "out", "owner/name", format="huggingface")


def test_what_is_neither_a_folder_nor_a_hub_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no data set folder and no hub id"):
        find_files([SourceConfig(path=str(tmp_path / "nowhere"), format="huggingface")])


@pytest.fixture(autouse=True)
def _see_warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
