"""Tokenize: kept documents become sorted runs; what is dropped is counted and named."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from gristmill.pipeline import Tokenizer, cuts
from gristmill.pipeline.config import PackConfig, PreprocessConfig, TokenizerConfig
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.kept_documents import read_kept
from gristmill.pipeline.placement import keyed_hash
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.token_runs import Run, read_tokens, run_files
from gristmill.pipeline.tokenize import run
from gristmill.pipeline.train_tokenizer import TokenizerResult


@pytest.fixture
def rows(make_row):
    rows = [
        make_row(
            f"document number {n}, {'é' * (n % 7)}",
            language=("eng_Latn", "fra_Latn")[n % 2],
            source=("web", "books")[n % 3 == 0],
            file=f"file{n // 25}.jsonl",
            offset=100 * (n % 25),
        )
        for n in range(60)
    ]
    rows[4] = make_row("a copy", file="file0.jsonl", offset=400, reason="exact_duplicate")
    rows[5] = make_row("", file="file0.jsonl", offset=500, reason="empty", by_clean=True)
    rows[58] = make_row("", file="file2.jsonl", offset=800, reason="rejected_json", by_clean=True)
    return rows


def tokenize(output: Path, markers, tokenizer: TokenizerResult, workers: int = 1, seed: int = 0):
    config = PreprocessConfig(pack=PackConfig(seed=seed))
    with LocalExecutor(workers) as executor:
        return run(config, output, markers, tokenizer, executor, Progress(quiet=True))


def documents_of(output: Path, unit: str, tokenizer: TokenizerResult) -> dict[tuple, list[int]]:
    """Return (source, file, offset) -> ids of every document of a run."""
    engine = Tokenizer(str(tokenizer.folder))
    path = output / "work" / "runs" / unit
    found = Run(path)
    with open(run_files(path)[0], "rb") as stream:
        tokens = read_tokens(stream.fileno(), found.rows, engine.dtype)
        assert stream.seek(0, 2) == tokens.nbytes
    result = {}
    for row in found.rows:
        own = tokens[row["start"] : row["start"] + row["num_tokens"]].tolist()
        result[(*found.names.files[row["file"]], int(row["offset"]))] = own
    return result


def test_every_kept_document_is_there_with_its_ids_and_eod(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    tokenize(tmp_path, write_units(tmp_path, {"u": rows}), tokenizer)

    engine = Tokenizer(str(tokenizer.folder))
    expected = {
        (row.source, row.file, row.offset): [*engine.encode_batch([row.text])[0].tolist(), 0]
        for row in rows
        if row.reason is None
    }
    assert documents_of(tmp_path, "u", tokenizer) == expected


def test_the_counts_add_up_per_source_and_language(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    markers = tokenize(tmp_path, write_units(tmp_path, {"u": rows}), tokenizer)

    kept = [row for row in rows if row.reason is None]
    table = markers["u"].counts["rows"]
    assert [row[:2] for row in table] == [
        ["books", "eng_Latn"],
        ["books", "fra_Latn"],
        ["web", "eng_Latn"],
        ["web", "fra_Latn"],
    ]
    assert sum(row[2] for row in table) == len(kept)
    assert sum(row[4] for row in table) == sum(len(row.text.encode()) for row in kept)
    in_run = documents_of(tmp_path, "u", tokenizer).values()
    assert sum(row[3] for row in table) == sum(map(len, in_run))
    assert markers["u"].counts["dropped"] == []


def test_a_run_is_sorted_and_its_slices_say_where_each_language_is(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    tokenize(tmp_path, write_units(tmp_path, {"u": rows}), tokenizer)

    found = Run(tmp_path / "work" / "runs" / "u")
    keys = [tuple(row[["language", "source", "placement"]]) for row in found.rows]
    assert keys == sorted(keys)
    covered = []
    for language, source, first, last in found.names.slices:
        own = found.rows[first:last]
        assert {found.names.languages[number] for number in own["language"]} == {language}
        assert {found.names.sources[number] for number in own["source"]} == {source}
        covered += range(first, last)
    assert covered == list(range(len(found.rows)))


def test_workers_change_no_byte_and_a_second_run_does_nothing(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    units = {"a": rows[:20], "b": rows[20:40], "c": rows[40:]}
    outputs = {}
    for workers in (1, 2):
        output = tmp_path / str(workers)
        tokenize(output, write_units(output, units), tokenizer, workers)
        work = output / "work"
        outputs[workers] = {
            str(path.relative_to(work)): path.read_bytes()
            for path in sorted(work.rglob("*"))
            if path.is_file()
        }
    assert outputs[1] == outputs[2]
    assert len(outputs[1]) == 12  # three files and a marker for each unit, nothing left over

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "1" / "work").rglob("*")}
    tokenize(tmp_path / "1", write_units(tmp_path / "1", units), tokenizer)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_document_too_long_for_the_tokenizer_is_dropped_counted_and_named(
    tmp_path: Path,
    make_row,
    write_units,
    tokenizer: TokenizerResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuts, "MAX_PIECE_BYTES", 1000)
    monkeypatch.setattr(cuts, "PIECE_BYTES", 100)
    monkeypatch.setattr(  # our engine needs no cuts
        "gristmill.pipeline.tokenize.open_cached",
        lambda path, eod, special: Tokenizer(path, eod=eod, delegate=True),
    )
    rows = [
        make_row("short", offset=1),
        make_row("x" * 1500, offset=2),
        make_row("many words " * 200, offset=3),
    ]

    markers = tokenize(tmp_path, write_units(tmp_path, {"u": rows}), tokenizer)

    assert markers["u"].counts["dropped"] == [["web", "eng_Latn", "too_long", 1, 1500]]
    assert markers["u"].counts["rows"][0][2] == 2
    assert sorted(key[2] for key in documents_of(tmp_path, "u", tokenizer)) == [1, 3]
    (line,) = (tmp_path / "rejected" / "u.tokenize.jsonl").read_text().splitlines()
    dropped = json.loads(line)
    assert (dropped["origin_file"], dropped["origin_offset"]) == ("a.jsonl", 2)
    assert dropped["reason"] == "too_long"
    assert "1,000 bytes without a place" in dropped["detail"]


def test_a_unit_without_kept_documents_gives_an_empty_run(
    tmp_path: Path, make_row, write_units, tokenizer: TokenizerResult
) -> None:
    units = {"none": [], "dropped": [make_row("copy", reason="exact_duplicate")]}

    markers = tokenize(tmp_path, write_units(tmp_path, units), tokenizer)

    for name in units:
        assert markers[name].counts == {"rows": [], "dropped": [], "cut": [], "special": {}}
        assert len(Run(tmp_path / "work" / "runs" / name).rows) == 0


def test_documents_of_one_cluster_have_one_validation_key(
    tmp_path: Path, make_row, write_units, tokenizer: TokenizerResult
) -> None:
    rows = [make_row(f"text {n}", offset=n, cluster=("one", "two", None)[n % 3]) for n in range(12)]

    tokenize(tmp_path, write_units(tmp_path, {"u": rows}), tokenizer)

    found = Run(tmp_path / "work" / "runs" / "u").rows
    keys: dict[int, set[int]] = {0: set(), 1: set(), 2: set()}
    for row in found:
        keys[int(row["offset"]) % 3].add(int(row["validation"]))
    assert [len(keys[n]) for n in range(3)] == [1, 1, 4]
    assert len(set(found["placement"].tolist())) == 12


def test_another_seed_places_documents_differently(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    orders = []
    for seed in (0, 1):
        output = tmp_path / str(seed)
        tokenize(output, write_units(output, {"u": rows}), tokenizer, seed=seed)
        orders.append(list(documents_of(output, "u", tokenizer)))

    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_verdicts_of_another_run_are_refused(tmp_path: Path, make_row, write_units) -> None:
    write_units(tmp_path / "a", {"u": [make_row("one", offset=1)]})
    write_units(tmp_path / "b", {"u": [make_row("two", offset=2)]})
    documents = tmp_path / "a" / "documents" / "u.parquet"
    verdicts = tmp_path / "b" / "verdicts" / "u.parquet"

    with pytest.raises(ValueError, match="from another run"):
        list(read_kept(documents, verdicts, ["text"]))


def test_keyed_hashes_are_uniform_and_differ_by_seed_and_purpose() -> None:
    words = np.frombuffer(
        b"".join(
            hashlib.blake2b(bytes([n % 256, n // 256]), digest_size=16).digest()
            for n in range(4000)
        ),
        np.uint64,
    ).reshape(-1, 2)
    hashes = {
        (seed, purpose): keyed_hash(words, seed, purpose)
        for seed in (0, 1, -1)
        for purpose in ("placement", "validation")
    }

    for one in hashes.values():
        assert abs(float((one / 2**64).mean()) - 0.5) < 0.03
        counts = np.bincount((one >> np.uint64(60)).astype(int), minlength=16)
        assert counts.min() > 180
    assert len({one.tobytes() for one in hashes.values()}) == 6


@pytest.mark.parametrize("mode", ["as_tokens", "as_text"])
def test_special_tokens_that_texts_spell_out_are_counted_or_encoded_as_text(
    tmp_path: Path, make_row, write_units, tokenizer: TokenizerResult, mode: str
) -> None:
    rows = [make_row("one <|endoftext|> two", offset=1), make_row("<|reserved_0|>", offset=2)]
    config = PreprocessConfig(tokenizer=TokenizerConfig(special_strings=mode))

    markers = run(
        config,
        tmp_path,
        write_units(tmp_path, {"u": rows}),
        tokenizer,
        LocalExecutor(1),
        Progress(quiet=True),
    )

    expected = {"<|endoftext|>": 1, "<|reserved_0|>": 1} if mode == "as_tokens" else {}
    assert markers["u"].counts["special"] == expected
    ends = 2 + (mode == "as_tokens")
    eod_id = Tokenizer(str(tokenizer.folder)).eod_id
    tokens = np.fromfile(tmp_path / "work" / "runs" / "u.bin", np.uint16)
    assert int((tokens == eod_id).sum()) == ends
