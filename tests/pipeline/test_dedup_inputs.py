"""The command `gristmill dedup`: anyone's files in, the documents that stay and verdicts out."""

import gzip
import io
import json
import random
import time
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from rich.console import Console

from gristmill import cli
from gristmill.pipeline import dedup, dedup_files, dedup_near, dedup_run
from gristmill.pipeline.config import CleanConfig, DedupConfig
from gristmill.pipeline.executors import UnitError

from .dedup_runs import Run, edit, make_text


def texts_of(rng):
    texts = [make_text(rng, rng.randrange(20, 120)) for _ in range(60)]
    texts += [edit(rng, rng.choice(texts), 1) for _ in range(40)] + texts[:20]
    rng.shuffle(texts)
    return texts


@pytest.fixture
def files(tmp_path):
    """The same kind of documents in four formats."""
    texts = texts_of(random.Random(1))
    rows = [{"id": f"d{n}", "body": text, "url": f"u{n}"} for n, text in enumerate(texts)]
    lines = ["".join(json.dumps(row) + "\n" for row in rows[n::4]).encode() for n in range(4)]
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(lines[0])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(lines[1]))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(lines[2]))
    pq.write_table(pa.Table.from_pylist(rows[3::4]), folder / "d.parquet")
    return sorted(map(str, folder.iterdir()))


def dedup_quietly(inputs, output, **options):
    return dedup_files(
        inputs, output, text_key="body", columns=("url",), console=Console(file=io.StringIO()),
        clean=CleanConfig(unit_bytes=4000), **options,
    )  # fmt: skip


def output_bytes(output):
    return {
        str(path.relative_to(output)): path.read_bytes()
        for folder in ("kept", "verdicts")
        for path in sorted((output / folder).glob("*.parquet"))
    } | {"report.json": (output / "report.json").read_bytes()}


def read_all(folder):
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("*.parquet")))


def test_kept_documents_verdicts_and_counts_come_out_of_files_of_any_format(files, tmp_path):
    report = dedup_quietly(files, tmp_path / "out", workers=1)

    kept = read_all(tmp_path / "out" / "kept")
    verdicts = read_all(tmp_path / "out" / "verdicts").to_pylist()
    assert len(verdicts) == report.total.documents_in == 120
    assert kept.num_rows == report.total.kept < 80
    assert set(report.total.dropped) == {"exact_duplicate", "near_duplicate"}
    by_id = {row["input_id"]: row for row in verdicts}
    for row in kept.to_pylist():
        assert row["url"] == row["input_id"].replace("d", "u")
        assert by_id[row["input_id"]]["kept"]
        assert row["cluster_size"] == by_id[row["input_id"]]["cluster_size"]
    assert sum(kept["cluster_size"].to_pylist()) == 120


def test_workers_and_the_order_of_files_change_no_byte(files, tmp_path):
    dedup_quietly(files, tmp_path / "one", workers=1)
    dedup_quietly(files[::-1], tmp_path / "two", workers=2)

    assert output_bytes(tmp_path / "one") == output_bytes(tmp_path / "two")


STAGES = [
    "write_keys", "write_exact", "write_buckets", "write_components", "write_shingles",
    "write_boilerplate", "write_verified", "write_verdicts", "write_index_unit",
]  # fmt: skip


WITH_ONE_UNIT = ["write_exact", "write_components", "write_boilerplate"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_run_that_stopped_in_any_stage_goes_on_to_the_same_bytes(
    files, tmp_path, monkeypatch, stage
):
    settings = DedupConfig(partitions=3, write_index=True, boilerplate_documents=2)
    dedup_quietly(files, tmp_path / "whole", workers=1, dedup=settings)
    module = next(one for one in (dedup_run, dedup_near, dedup) if hasattr(one, stage))
    function, calls = getattr(module, stage), []

    def stop(arguments):
        calls.append(arguments)
        if len(calls) >= (1 if stage in WITH_ONE_UNIT else 2):  # at every try
            raise RuntimeError("the machine went away")
        return function(arguments)

    monkeypatch.setattr(module, stage, stop)
    with pytest.raises(UnitError, match="the machine went away"):
        dedup_quietly(files, tmp_path / "cut", workers=1, dedup=settings)
    monkeypatch.undo()
    dedup_quietly(files, tmp_path / "cut", workers=1, dedup=settings)

    assert output_bytes(tmp_path / "cut") == output_bytes(tmp_path / "whole")
    for stage in ("keys", "bands", "buckets", "shingles", "boilerplate", "verify"):
        assert not list((tmp_path / "cut" / "work" / stage).glob("*.npy")), stage


def test_another_threshold_is_verified_anew_and_the_first_one_comes_back_alike(files, tmp_path):
    first = dedup_quietly(files, tmp_path / "out", workers=1)
    before = output_bytes(tmp_path / "out")
    other = dedup_quietly(files, tmp_path / "out", workers=1, dedup=DedupConfig(threshold=0.99))
    assert other.total.kept > first.total.kept
    dedup_quietly(files, tmp_path / "out", workers=1)

    assert output_bytes(tmp_path / "out") == before


def test_the_command_takes_options_and_says_where_things_are(files, tmp_path, capsys):
    output = str(tmp_path / "out")
    cli.main(["dedup", *files, "--output", output, "--text-key", "body", "--workers", "1",
              "--keep", "shortest", "--threshold", "0.9", "--write-index"])  # fmt: skip

    said = capsys.readouterr().out
    assert f"{output}/kept: documents that were kept" in said
    assert "near_duplicate" in said
    assert f"{output}/index: index for `--against`" in said


def test_the_second_command_names_what_the_first_one_kept(files, tmp_path):
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    common = ["--text-key", "body", "--workers", "1"]
    cli.main(["dedup", *files[:2], "--output", first, *common, "--write-index"])
    cli.main(["dedup", *files[2:], "--output", second, *common, "--against", first])

    old = set(read_all(tmp_path / "first" / "kept")["id"].to_pylist())
    rows = read_all(tmp_path / "second" / "verdicts").to_pylist()
    assert any(row["duplicate_of"] in old for row in rows)
    new = {row["id"] for row in rows if row["kept"]}
    assert all(row["kept"] or row["duplicate_of"] in old | new for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to dedup: name files, before the options"),
        (["no-such.jsonl"], "no-such.jsonl"),
        (["FILE", "--keep", "score:highest"], "add it to the source's `columns`"),
        (["FILE", "--keep", "best"], "'best', which says of no two copies"),
        (["FILE", "--against", "nowhere"], "has no index"),
        (["FILE", "--threshold", "80"], "above 0 and at most 1"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_remedy(files, tmp_path, capsys, words, message):
    words = [files[0] if word == "FILE" else word for word in words]
    with pytest.raises(SystemExit):
        cli.main(["dedup", *words, "--text-key", "body", "--output", str(tmp_path / "out"),
                  "--workers", "1"])  # fmt: skip

    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("exact", [True, False])
def test_a_hundred_thousand_identical_documents_take_seconds_and_little_memory(tmp_path, exact):
    run = Run(tmp_path / "out").add("a", ["boiler plate of some words"] * 100_000, (), 100_000)
    run.run(exact=exact)  # compiles
    tracemalloc.start()
    started = time.thread_time()
    run.run(exact=exact, seed=1)
    seconds = time.thread_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    verdicts = pq.read_table(tmp_path / "out" / "verdicts" / "a.parquet")
    assert sum(verdicts["kept"].to_pylist()) == 1
    assert verdicts["cluster_size"][0].as_py() == 100_000
    assert peak < 150_000_000
    assert seconds < 30


def test_thousands_of_pages_of_one_template_are_compared_a_bounded_number_of_times(tmp_path):
    rng = random.Random(2)
    words = make_text(rng, 300).split()
    texts = [" ".join([*words, make_text(rng, 20)]) for _ in range(3000)]
    run = Run(tmp_path / "out").add("a", texts, (), 3000)

    assert all(row["kept"] for row in run.dedup())
    counts = [
        json.loads(path.read_bytes())["counts"]
        for path in (tmp_path / "out" / "work" / "verify").glob("*.json")
    ]
    assert sum(count["pairs_compared"] for count in counts) <= 128 * len(texts)
