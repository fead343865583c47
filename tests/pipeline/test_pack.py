"""Pack: runs become prefixes; every document once, in its place, with its tokens and origin."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDataset, PrefixExistsError, find_prefixes, verify
from gristmill.pipeline import Tokenizer, pack, token_runs, train_tokenizer
from gristmill.pipeline import tokenize as tokenize_stage
from gristmill.pipeline.config import PackConfig, PreprocessConfig, SourceConfig, TokenizerConfig
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.train_tokenizer import TokenizerResult


@pytest.fixture(scope="module")
def rows(make_row):
    """Two large languages from two sources, and two small languages."""
    rows = [
        make_row(
            f"document number {n} of the web: " + "word " * (n % 13),
            language=("eng_Latn", "fra_Latn")[n % 2],
            source=("web", "books")[n % 3 == 0],
            file=f"{'web' if n % 3 else 'books'}/file{n % 4}.jsonl",
            offset=10 * n,
        )
        for n in range(300)
    ]
    rows += [make_row(f"petit {n}", "bre_Latn", offset=5000 + n) for n in range(4)]
    rows += [make_row(f"bychan {n}", "cym_Latn", offset=6000 + n) for n in range(5)]
    rows[11] = make_row("copy", offset=1, reason="near_duplicate")
    return rows


def write(
    output: Path,
    units,
    write_units,
    tokenizer: TokenizerResult,
    workers: int = 1,
    sources: tuple[SourceConfig, ...] = (),
    **options: object,
):
    """Run tokenize and pack; return the pack markers."""
    config = PreprocessConfig(
        sources=sources,
        tokenizer=TokenizerConfig(path=str(tokenizer.folder)),
        pack=PackConfig(**options),
    )
    markers = write_units(output, units)
    progress = Progress(quiet=True)
    with LocalExecutor(workers) as executor:
        tokenized = tokenize_stage.run(config, output, markers, tokenizer, executor, progress)
        return pack.run(config, output, tokenized, tokenizer, executor, progress, {"clean": 3})


def contents(output: Path) -> dict[str, bytes]:
    data = output / "data"
    return {
        str(path.relative_to(data)): path.read_bytes()
        for path in sorted(data.rglob("*"))
        if path.is_file()
    }


def documents_in(output: Path) -> dict[tuple[str, int], tuple[str, list[int]]]:
    """Return (file, offset) -> (prefix, ids) of every document of every prefix."""
    found = {}
    for split in ("train", "validation"):
        folder = output / "data" / split
        if not folder.is_dir():
            continue
        for prefix in (p for prefixes in find_prefixes(folder).values() for p in prefixes):
            dataset = IndexedDataset(prefix)
            names = json.loads(Path(f"{prefix}.json").read_text())["origin_files"]
            origins = np.fromfile(f"{prefix}.origin", "<i8").reshape(-1, 2).tolist()
            assert len(origins) == dataset.num_documents
            for number, (file, offset) in enumerate(origins):
                key = (names[file], offset)
                assert key not in found
                name = str(Path(prefix).relative_to(output / "data"))
                found[key] = (name, dataset.get_document(number).tolist())
    return found


def test_every_kept_document_is_packed_once_with_its_tokens_and_origin(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    write(
        tmp_path, {"a": rows[:100], "b": rows[100:]}, write_units, tokenizer, min_documents=8,
        validation_fraction=0.1,
    )  # fmt: skip

    engine = Tokenizer(str(tokenizer.folder))
    expected = {
        (row.file, row.offset): [*engine.encode_batch([row.text])[0].tolist(), 0]
        for row in rows
        if row.reason is None
    }
    found = documents_in(tmp_path)
    assert {key: ids for key, (_, ids) in found.items()} == expected
    assert {Path(name).name for name, _ in found.values()} == {"eng_Latn", "fra_Latn", "other"}
    for row in rows:
        if row.reason is None:
            name = Path(found[row.file, row.offset][0]).name
            assert name == ("other" if row.language in ("bre_Latn", "cym_Latn") else row.language)


def test_the_manifest_tells_counts_order_origin_and_no_path(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    markers = write(
        tmp_path, {"u": rows}, write_units, tokenizer, min_documents=8,
        sources=(SourceConfig(path=str(tmp_path / "input"), name="web"),),
    )  # fmt: skip

    for marker in markers.values():
        path = tmp_path / "data" / f"{marker.counts['prefix']}.json"
        manifest = json.loads(path.read_text())
        assert manifest["document_order"] == "shuffled"
        assert manifest["split"] == marker.counts["split"]
        assert manifest["group"] == marker.counts["group"]
        assert manifest["eod_id"] == 0
        assert manifest["vocab_size"] == Tokenizer(str(tokenizer.folder)).vocab_size
        assert manifest["tokenizer"]["fingerprint"] == tokenizer.fingerprint
        assert manifest["stages"] == {
            "clean": 3,
            "train_tokenizer": train_tokenizer.VERSION,
            "tokenize": tokenize_stage.VERSION,
            "pack": pack.VERSION,
        }
        assert manifest["config"]["sources"][0]["name"] == "web"
        assert str(tmp_path) not in path.read_text()
        for key in ("documents", "tokens"):
            total = marker.counts[key]
            assert manifest[f"num_{key}"] == total
            for table in (manifest["languages"], manifest["sources"]):
                assert sum(row[key] for row in table.values()) == total
        assert manifest["languages"] == marker.counts["languages"]
    other = json.loads((tmp_path / "data/train/other.json").read_text())
    assert set(other["languages"]) <= {"bre_Latn", "cym_Latn"}


def test_neither_workers_nor_units_nor_memory_change_a_byte(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"min_documents": 8, "validation_fraction": 0.1, "max_shard_tokens": 900}
    write(tmp_path / "one", {"u": rows}, write_units, tokenizer, **options)
    shuffled = [rows[n] for n in np.random.default_rng(0).permutation(len(rows))]
    units = {f"u{n}": shuffled[40 * n : 40 * n + 40] for n in range(8)}
    write(tmp_path / "two", units, write_units, tokenizer, workers=2, **options)
    monkeypatch.setattr(token_runs, "BLOCK_TOKENS", 50)
    monkeypatch.setattr(pack, "BLOCK_TOKENS", 50)
    write(tmp_path / "three", units, write_units, tokenizer, **options)

    one = contents(tmp_path / "one")
    assert len(one) > 12
    assert contents(tmp_path / "two") == one
    assert contents(tmp_path / "three") == one


def test_documents_are_in_random_order(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    orders = []
    for seed in (0, 1):
        output = tmp_path / str(seed)
        write(output, {"u": rows}, write_units, tokenizer, group_by=(), seed=seed)
        origins = np.fromfile(output / "data/train/all.origin", "<i8").reshape(-1, 2)
        orders.append(origins[:, 1].tolist())

    assert orders[0] != orders[1]
    for order in orders:
        assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3


def test_a_large_group_is_written_in_numbered_shards_of_similar_size(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    write(
        tmp_path, {"u": rows}, write_units, tokenizer, group_by=("source",), max_shard_tokens=1500,
        validation_fraction=0.0,
    )  # fmt: skip

    shards = find_prefixes(tmp_path / "data" / "train")["web"]
    sizes = [IndexedDataset(prefix).num_tokens for prefix in shards]
    assert len(shards) == -(-sum(sizes) // 1500) > 2
    assert max(sizes) < 2 * min(sizes)
    manifests = [json.loads(Path(f"{prefix}.json").read_text()) for prefix in shards]
    assert [m["shard"] for m in manifests] == list(range(len(shards)))
    assert {m["num_shards"] for m in manifests} == {len(shards)}
    assert not (tmp_path / "data" / "validation").exists()


@pytest.mark.parametrize(
    ("group_by", "names"),
    [
        ((), {"all"}),
        (("language",), {"eng_Latn", "fra_Latn", "other"}),
        (("source",), {"web", "books"}),
        (
            ("language", "source"),
            {"eng_Latn-web", "eng_Latn-books", "fra_Latn-web", "fra_Latn-books", "other"},
        ),
    ],
)
def test_documents_are_grouped_as_configured(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult, group_by, names: set[str]
) -> None:
    write(tmp_path, {"u": rows}, write_units, tokenizer, group_by=group_by, min_documents=8)

    assert set(find_prefixes(tmp_path / "data" / "train")) == names


def test_the_held_out_share_is_halved_until_it_fits_so_that_nothing_moves_to_it(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    held = []
    for limit in (10_000, 800, 300):
        output = tmp_path / str(limit)
        write(
            output, {"u": rows}, write_units, tokenizer, group_by=(), validation_fraction=0.5,
            validation_max_tokens=limit,
        )  # fmt: skip
        found = documents_in(output)
        held.append({key for key, (name, _) in found.items() if name.startswith("validation")})
        num_tokens = sum(len(ids) for name, ids in found.values() if name.startswith("validation"))
        assert 0 < num_tokens <= limit

    assert 110 < len(held[0]) < 200  # about half of 308
    assert held[0] > held[1] > held[2]


def test_a_duplicate_cluster_falls_on_one_side(
    tmp_path: Path, make_row, write_units, tokenizer: TokenizerResult
) -> None:
    rows = [make_row(f"text {n}", offset=n, cluster=f"cluster {n // 4}") for n in range(120)]

    write(
        tmp_path, {"u": rows}, write_units, tokenizer, validation_fraction=0.5,
    )  # fmt: skip

    sides: dict[int, set[str]] = {}
    for (_, offset), (name, _) in documents_in(tmp_path).items():
        sides.setdefault(offset // 4, set()).add(name)
    assert all(len(names) == 1 for names in sides.values())
    assert len(set().union(*sides.values())) == 2


def test_new_documents_leave_the_held_out_ones_where_they_are(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    held = []
    for name, part in (("some", rows[:150]), ("all", rows[:300])):
        output = tmp_path / name
        write(output, {"u": part}, write_units, tokenizer, validation_fraction=0.2, group_by=())
        found = documents_in(output)
        held.append({key for key, (prefix, _) in found.items() if prefix.startswith("validation")})

    assert held[0]
    assert held[0] < held[1]


def test_a_second_run_writes_nothing_and_another_grouping_replaces_the_first(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    write(tmp_path, {"u": rows}, write_units, tokenizer)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*") if p.is_file()}
    write(tmp_path, {"u": rows}, write_units, tokenizer)
    assert {path: path.stat().st_mtime_ns for path in times} == times

    write(tmp_path, {"u": rows}, write_units, tokenizer, group_by=("source",))

    assert set(find_prefixes(tmp_path / "data" / "train")) == {"web", "books"}


def test_a_prefix_that_is_not_ours_is_refused(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    foreign = tmp_path / "data" / "train" / "eng_Latn.idx"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"precious")

    with pytest.raises(PrefixExistsError, match="train/eng_Latn exists already and was not"):
        write(tmp_path, {"u": rows}, write_units, tokenizer)

    assert foreign.read_bytes() == b"precious"
    assert list(foreign.parent.iterdir()) == [foreign]


def test_a_prefix_written_just_before_a_kill_is_taken_as_ours(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    write(tmp_path, {"u": rows}, write_units, tokenizer)
    expected = contents(tmp_path)
    (tmp_path / "work" / "pack" / "train.eng_Latn.json").unlink()  # killed before the marker

    write(tmp_path, {"u": rows}, write_units, tokenizer)

    assert contents(tmp_path) == expected
    (tmp_path / "work" / "pack" / "train.eng_Latn.json").unlink()
    write(tmp_path, {"u": rows}, write_units, tokenizer, group_by=())
    assert set(find_prefixes(tmp_path / "data" / "train")) == {"all"}


def test_equal_ids_are_ordered_by_origin(
    tmp_path: Path, make_row, write_units, tokenizer: TokenizerResult
) -> None:
    rows = [make_row("the same text", offset=n, file=f"f{n % 3}") for n in range(30)]
    write(tmp_path / "a", {"u": rows}, write_units, tokenizer, validation_fraction=0)
    units = {"x": rows[::-2], "y": rows[-2::-2]}
    write(tmp_path / "b", units, write_units, tokenizer, validation_fraction=0)

    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    origins = np.fromfile(tmp_path / "a/data/train/eng_Latn.origin", "<i8").reshape(-1, 2).tolist()
    assert origins == sorted(origins)


def test_source_names_become_file_names_and_a_clash_is_an_error(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    renamed = [replace(row, source="my wiki/v1.0") for row in rows]
    write(tmp_path / "a", {"u": renamed}, write_units, tokenizer, group_by=("source",))
    assert set(find_prefixes(tmp_path / "a/data/train")) == {"my_wiki_v1_0"}

    renamed += [replace(row, source="my_wiki_v1_0") for row in rows]
    with pytest.raises(ValueError, match="would both be written to files named my_wiki_v1_0"):
        write(tmp_path / "b", {"u": renamed}, write_units, tokenizer, group_by=("source",))


def test_no_document_kept_gives_no_prefix(
    tmp_path: Path, make_row, write_units, tokenizer: TokenizerResult
) -> None:
    rows = [make_row("x", reason="too_short", by_clean=True)]

    assert write(tmp_path, {"u": rows}, write_units, tokenizer) == {}


def test_verify_finds_nothing_to_say_and_megatron_reads_every_token(
    tmp_path: Path, rows, write_units, tokenizer: TokenizerResult
) -> None:
    markers = write(tmp_path, {"u": rows}, write_units, tokenizer)
    for marker in markers.values():
        report = verify(tmp_path / "data" / marker.counts["prefix"])
        assert report.ok, report
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")

    for marker in markers.values():
        prefix = str(tmp_path / "data" / marker.counts["prefix"])
        ours, theirs = IndexedDataset(prefix), megatron.IndexedDataset(prefix)
        assert len(theirs) == ours.num_documents == marker.counts["documents"]
        for number in range(len(theirs)):
            np.testing.assert_array_equal(theirs[number], ours.get_document(number))
