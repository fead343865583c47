"""Sources in an object store: the same bytes as from local files, whatever the network does."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from gristmill.indexed_dataset import ObjectStoreError, object_store
from gristmill.pipeline import input_files
from gristmill.pipeline.config import PreprocessConfig, SourceConfig
from gristmill.pipeline.input_files import open_input
from gristmill.pipeline.sources import find_files
from gristmill.pipeline.stage import finished_units
from gristmill.pipeline.tokenize_inputs import tokenize_files
from gristmill.pipeline.train_tokenizer import TokenizerResult

from .small_runs import content, run, write_corpus

CONTENT = os.urandom(3_000)


def products(output: Path) -> dict[str, bytes]:
    """Everything a run wrote but its markers, which name the versions of the inputs."""
    return {name: data for name, data in content(output).items() if not name.startswith("work/")}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[PreprocessConfig, Path]:
    """A folder with files of every format, and its clean documents."""
    folder = tmp_path_factory.mktemp("texts") / "in"
    config = write_corpus(folder, num_files=3, documents=40)
    lines = b"".join((folder / f"{n}.jsonl").read_bytes() for n in range(3))
    rows = [
        json.loads(line) | {"text": f"row {n} of a table"}
        for n, line in enumerate(lines.splitlines())
    ]
    (folder / "sub").mkdir()
    (folder / "sub" / "lines.jsonl.gz").write_bytes(gzip.compress(lines.replace(b"word", b"gzip")))
    (folder / "frames.jsonl.zst").write_bytes(
        b"".join(
            zstandard.compress(part + b"\n")
            for part in lines.replace(b"word", b"zstd").split(b"\n")
        )
    )
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "table.parquet", row_group_size=20)
    with pa.ipc.new_stream(folder / "stream.arrow", table.schema) as stream:
        stream.write_table(table.set_column(0, "text", [[f"stream {n}" for n in range(len(rows))]]))
    with pa.ipc.new_file(folder / "file.arrow", table.schema) as file:
        file.write_table(table.set_column(0, "text", [[f"file {n}" for n in range(len(rows))]]))
    output = tmp_path_factory.mktemp("local")
    run(config, output, until="clean")
    return config, output


@pytest.fixture
def proxy(s3: Any, s3_address: str, object_servers: ModuleType) -> Iterator[Any]:
    proxy = object_servers.CuttingProxy(s3_address, object_servers.Breaks())
    yield proxy
    proxy.close()


def remote(config: PreprocessConfig, url: str) -> PreprocessConfig:
    return replace(config, sources=(SourceConfig(path=url),))


def test_a_run_from_an_object_store_over_a_network_that_breaks_writes_the_same_bytes(
    corpus: tuple[PreprocessConfig, Path], s3: Any, proxy: Any, tmp_path: Path
) -> None:
    config, local = corpus
    url = s3.put(Path(config.sources[0].path), "texts/in")
    proxy.breaks.after_bytes = (1, 40_000)
    s3.use(proxy.address)

    run(remote(config, url), tmp_path / "out", until="clean")

    assert products(tmp_path / "out") == products(local)
    assert proxy.breaks.broken > 3, "the network was quiet: nothing was tested"


def test_units_are_done_again_for_a_file_that_was_replaced_and_for_no_other(
    corpus: tuple[PreprocessConfig, Path], s3: Any, tmp_path: Path
) -> None:
    config = corpus[0]
    url = s3.put(Path(config.sources[0].path), "texts/in")
    run(remote(config, url), tmp_path, until="clean")
    before = {name: one.fingerprint for name, one in finished_units(tmp_path, "clean").items()}
    content = (Path(config.sources[0].path) / "0.jsonl").read_bytes()
    s3.direct.pipe_file(f"{url}/0.jsonl", content.replace(b"word", b"WORD"))

    run(remote(config, url), tmp_path, until="clean")

    after = {name: one.fingerprint for name, one in finished_units(tmp_path, "clean").items()}
    changed = {name for name in before if after[name] != before[name]}
    assert changed
    assert all("0.jsonl" in name for name in changed)


def test_tokenize_reads_from_an_object_store_what_it_reads_from_files(
    corpus: tuple[PreprocessConfig, Path], s3: Any, tokenizer: TokenizerResult, tmp_path: Path
) -> None:
    config = corpus[0]
    url = s3.put(Path(config.sources[0].path), "texts/in")

    for name, path in (("a", config.sources[0].path), ("b", url)):
        tokenize_files([path], tmp_path / name, str(tokenizer.folder), workers=2, append_eod=True)

    for suffix in (".bin", ".idx", ".json"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_patterns_languages_and_single_files_are_found_and_named_as_local_ones(
    s3: Any, tmp_path: Path
) -> None:
    for name in ("web/en/a.jsonl", "web/de/b.jsonl", "web/de/_SUCCESS", "web/notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}\n')
    url = s3.put(tmp_path / "web", "texts/web")

    for path in ("", "/{language}/*.jsonl", "/**/b.*", "/en/a.jsonl"):
        found = find_files([SourceConfig(path=url + path)])
        local = find_files([SourceConfig(path=str(tmp_path / "web") + path)])
        facts = [(f.source_name, f.origin_file, f.language, f.size_bytes) for f in found]
        assert facts == [(f.source_name, f.origin_file, f.language, f.size_bytes) for f in local]
        assert all(f.version for f in found)
    with pytest.raises(FileNotFoundError, match=r"no such file or folder; near it: .*/texts/web"):
        find_files([SourceConfig(path=url.replace("texts/web", "texts/wob"))])
    with pytest.raises(FileNotFoundError, match="no file matches"):
        find_files([SourceConfig(path=url + "/*.parquet")])


def test_a_server_that_resets_every_connection_is_a_named_error(s3: Any, proxy: Any) -> None:
    proxy.breaks.refuse = True
    s3.use(proxy.address)

    with pytest.raises(ObjectStoreError, match=r"s3://.*/a.jsonl: looking it up failed 7 times"):
        find_files([SourceConfig(path=f"{s3.url}/a.jsonl")])


def test_a_server_that_never_answers_is_a_named_error_and_no_hang(
    s3: Any, proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.direct.pipe_file(f"{s3.url}/a.jsonl", b'{"text": "a"}\n')
    (file,) = find_files([SourceConfig(path=f"{s3.url}/a.jsonl")])
    monkeypatch.setattr(object_store, "READ_SECONDS", 0.1)
    proxy.breaks.silent = True
    s3.use(proxy.address)

    with pytest.raises(ObjectStoreError, match="reading bytes 0 to 14 failed 7 times"):
        open_input(file.input).read(100)


def test_a_file_that_is_replaced_while_it_is_read_is_an_error(s3: Any) -> None:
    s3.direct.pipe_file(f"{s3.url}/a.txt", b"a" * 600_000)
    (file,) = find_files([SourceConfig(path=f"{s3.url}/a.txt")])
    opened = open_input(file.input)
    assert opened.read(10) == b"a" * 10
    s3.direct.pipe_file(f"{s3.url}/a.txt", b"b" * 600_000)

    with pytest.raises(ObjectStoreError, match="was replaced while it was being read"):
        opened.read()


def test_what_is_missing_or_not_installed_is_said_with_its_remedy(s3: Any) -> None:
    with pytest.raises(ObjectStoreError, match=r"cannot be opened.*pip install what fsspec needs"):
        find_files([SourceConfig(path="abfs://container/a.jsonl")])
    with pytest.raises(ObjectStoreError, match="nosuch"):
        find_files([SourceConfig(path="nosuch://bucket/a.jsonl")])
    with pytest.raises(ValueError, match="reads folders and the hub"):
        find_files([SourceConfig(path=s3.url, format="huggingface")])


@given(st.lists(st.tuples(st.integers(0, 3_200), st.integers(-1, 900)), max_size=20))
def test_a_remote_file_reads_and_seeks_as_its_bytes_do(steps: list[tuple[int, int]]) -> None:
    fsspec.filesystem("memory").pipe_file("/reads/a", CONTENT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(input_files, "FIRST_BYTES", 16)
        patch.setattr(input_files, "RANGE_BYTES", 200)
        with open_input(object_store.look_up("memory://reads/a")) as file:
            for place, size in steps:
                if place % 3:
                    file.seek(place)
                start = file.tell()
                expected = CONTENT[start:] if size < 0 else CONTENT[start : start + size]
                assert file.read(size) == expected
