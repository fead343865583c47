"""merge, split, verify and repair as a user types them, and takedowns by id."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.commands.arguments import MergeArguments, SplitArguments, VerifyArguments
from gristmill.commands.maintenance import merge, split, verify
from gristmill.config import ConfigError
from gristmill.indexed_dataset import DocumentNotFoundError, IndexedDataset, IndexedDatasetBuilder
from gristmill.pipeline.documents import VERDICT_SCHEMA


def gristmill(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gristmill.cli", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )


def write(prefix: Path, first: int, count: int) -> None:
    """Documents [number, number, 0] from row `number` of x.jsonl, of five bytes of text each."""
    row = {"documents": count, "tokens": 3 * count, "text_bytes": 5 * count}
    with IndexedDatasetBuilder(prefix, vocab_size=100) as builder:
        for number in range(first, first + count):
            builder.add_document([number, number, 0], origin=(0, number))
        builder.finalize(
            eod_id=0,
            text_bytes=5 * count,
            languages={"eng_Latn": row},
            sources={"web": row},
            origin_files=["x.jsonl"],
        )


def verdict(number: int, reason: str | None = None, duplicate_of: int | None = None):
    return {
        "id": bytes([number]) * 16,
        "input_id": f"http://site/{number}",
        "source": "web",
        "origin_file": "x.jsonl",
        "origin_offset": number,
        "language": "eng_Latn",
        "kept": reason is None,
        "reason": reason,
        "cluster_id": None,
        "cluster_size": 1,
        "duplicate_of": None if duplicate_of is None else bytes([duplicate_of]) * 16,
        "jaccard": None,
        "text_bytes": 5,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's output: documents 1 to 6 in two prefixes, 7 a copy of 2, 8 near 3, 9 too short."""
    write(tmp_path / "data" / "train" / "a", 1, 3)
    write(tmp_path / "data" / "train" / "b", 4, 3)
    rows = [verdict(number) for number in range(1, 7)]
    rows += [verdict(7, "exact_duplicate", 2), verdict(8, "near_duplicate", 3)]
    rows += [verdict(9, "too_short")]
    (tmp_path / "verdicts").mkdir()
    for name, part in (("1", rows[6:]), ("2", rows[:6])):
        table = pa.Table.from_pylist(part, schema=VERDICT_SCHEMA)
        pq.write_table(table, tmp_path / "verdicts" / f"{name}.parquet")
    return tmp_path


def first_ids(prefix: Path) -> list[int]:
    return [int(sequence[0]) for sequence in IndexedDataset(prefix)[:]]


def test_a_takedown_by_ids_of_every_kind(run: Path) -> None:
    names = ["05" * 16, "http://site/1", "x.jsonl\t4", "http://site/7", "http://site/8", "09" * 16]
    (run / "ids").write_text("\n".join(names) + "\n\n")

    done = gristmill(
        *("merge", "data/train/a", "data/train/b", "--output", "out", "--drop-ids", "ids"), cwd=run
    )

    assert done.returncode == 0, done.stderr
    assert first_ids(run / "out") == [3, 6]  # 2 went as the kept copy of 7
    assert "2 prefixes without 4 documents -> out: 2 documents, 6 tokens" in done.stdout
    assert "http://site/8 (near_duplicate)" in done.stdout
    assert f"{'09' * 16} (too_short)" in done.stdout
    manifest = IndexedDataset(run / "out").manifest
    assert manifest is not None
    assert manifest.languages["eng_Latn"] == {"documents": 2, "tokens": 6, "text_bytes": 10}


def test_an_id_that_no_verdict_knows_is_an_error_unless_allowed(run: Path) -> None:
    (run / "ids").write_text("http://site/1\nhttp://elsewhere\n")
    prefix = str(run / "data" / "train" / "a")
    arguments = {"inputs": (prefix,), "output": str(run / "out"), "drop_ids": str(run / "ids")}
    with pytest.raises(DocumentNotFoundError, match="http://elsewhere"):
        merge(MergeArguments(**arguments))
    assert not (run / "out.idx").exists()

    text = merge(MergeArguments(**arguments, allow_missing_ids=True))
    assert "not known: http://elsewhere" in text
    assert first_ids(run / "out") == [2, 3]


def test_without_verdicts_only_origins_can_be_named(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 3)
    arguments = {"inputs": (str(tmp_path / "a"),), "output": str(tmp_path / "out")}
    (tmp_path / "ids").write_text("http://site/1\n")
    with pytest.raises(DocumentNotFoundError, match="--verdicts"):
        merge(MergeArguments(**arguments, drop_ids=str(tmp_path / "ids")))
    (tmp_path / "ids").write_text("x.jsonl\t2\n")
    text = merge(MergeArguments(**arguments, drop_ids=str(tmp_path / "ids")))

    assert first_ids(tmp_path / "out") == [1, 3]
    assert "note: of a dropped document" in text


def test_split_and_verify_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 10)
    shares = ("train=8", "validation=2")
    text = split(
        SplitArguments(prefix=str(tmp_path / "a"), output=str(tmp_path / "new/x"), shares=shares)
    )
    assert f"{tmp_path}/new/x-train: 8 documents, 24 tokens" in text
    text, is_good = verify(VerifyArguments(paths=(str(tmp_path),), full=True))
    assert is_good
    assert "3 prefixes checked in full: 0 problems" in text
    with pytest.raises(ConfigError, match="train is not NAME=SHARE"):
        split(SplitArguments(prefix=str(tmp_path / "a"), output="x", shares=("train",)))
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match="no prefix in"):
        verify(VerifyArguments(paths=(str(tmp_path / "none"),)))


def test_verify_exits_with_1_and_repair_mends(tmp_path: Path) -> None:
    write(tmp_path / "a", 1, 3)
    write(tmp_path / "b-00000-of-00002", 1, 3)
    (tmp_path / "a.idx").unlink()
    done = gristmill("verify", ".", cwd=tmp_path)
    assert done.returncode == 1
    assert "WRONG  a: " in done.stdout
    assert "b-00001-of-00002 (1 in all) are missing" in done.stdout
    assert "2 prefixes checked without reading tokens: 2 problems" in done.stdout

    done = gristmill("repair", "a", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "a.idx written again: 3 documents\n")
    assert gristmill("verify", "a", "--full", cwd=tmp_path).returncode == 0
    assert gristmill("repair", "a", cwd=tmp_path).stdout == "a.idx was right already: 3 documents\n"
