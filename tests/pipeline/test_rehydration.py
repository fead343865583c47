"""Rehydration: what is learned, which prefixes it makes, how often the blend draws from them."""

from __future__ import annotations

import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gristmill.indexed_dataset import (
    BlendedDataset,
    IndexedDataset,
    SampleDataset,
    find_prefixes,
    manifest_weight,
    verify,
)
from gristmill.pipeline import recipe
from gristmill.pipeline.check import check_config
from gristmill.pipeline.config import (
    DedupConfig,
    PackConfig,
    PreprocessConfig,
    RehydrationConfig,
    SourceConfig,
    TokenizerConfig,
)
from gristmill.pipeline.rehydration import (
    CountArguments,
    Schedule,
    count_clusters,
    learn_steps,
)

SETTINGS = RehydrationConfig(mode="filters", max_repeats=5, min_documents=1)


def test_sizes_that_filters_remove_little_of_are_drawn_more_often() -> None:
    # 50 % of all is removed; smoothing gives the sizes from 2 on (20 + 30 + 40) / 3 = 30 % each.
    counts = {1: (100, 60), 2: (20, 4), 3: (20, 6), 4: (20, 8), 1000: (1, 1)}

    assert learn_steps(counts, replace(SETTINGS, min_documents=20)) == ((1, 1), (2, 5))


def test_repetitions_follow_the_removal_rate_between_the_extremes() -> None:
    rates = {1: 60, 2: 20, 3: 20, 4: 20, 5: 20, 6: 20, 7: 40, 8: 40, 9: 40, 10: 40, 11: 90}
    counts = {size: (100, rate) for size, rate in rates.items()}

    steps = dict(learn_steps(counts, SETTINGS))

    assert steps[1] == 1
    assert steps[2] == max(steps.values()) == 5
    schedule = Schedule(languages={"eng_Latn": tuple(steps.items())})
    repeats = schedule.repeats("eng_Latn", np.array([1, 2, 4, 7, 9, 11, 500]))
    assert repeats[0] == 1
    assert repeats[1] == repeats[2] == 5
    assert 1 < repeats[3] <= 5
    assert repeats[-1] == 1
    assert schedule.repeats("deu_Latn", np.array([1, 7])).tolist() == [1, 1]


@given(
    st.dictionaries(
        st.integers(1, 3_000),
        st.tuples(st.integers(1, 500), st.integers(0, 500)).map(lambda two: (two[0], min(two))),
        min_size=1,
    ),
    st.integers(1, 10),
    st.integers(1, 300),
)
def test_any_counts_give_a_schedule_from_size_1_on_within_its_bounds(
    counts: dict[int, tuple[int, int]], max_repeats: int, min_documents: int
) -> None:
    settings = replace(SETTINGS, max_repeats=max_repeats, min_documents=min_documents)

    steps = learn_steps(counts, settings)

    sizes = [size for size, _ in steps]
    assert sizes[0] == 1
    assert sizes == sorted(set(sizes))
    assert all(1 <= repeats <= max_repeats for _, repeats in steps)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"schedule": ((2, 2),)}, "must begin with 1 and ascend"),
        ({"schedule": ((1, 1), (5, 2), (3, 2))}, "must begin with 1 and ascend"),
        ({"schedule": ((1, 0),)}, "a repetition in rehydration.schedule is 0"),
        ({"max_repeats": 0}, "rehydration.max_repeats is 0"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(PreprocessConfig(rehydration=RehydrationConfig(**setting)))  # type: ignore[arg-type]


def write_corpus(path: Path) -> PreprocessConfig:
    """Write 60 documents once, 60 twice, 60 four times, 5 six times, and 3 of another language."""
    with path.open("w") as file:
        for number in range(185):
            copies = (1, 2, 4)[number // 60] if number < 180 else 6
            text = " ".join(f"c{copies}n{number}w{k}" for k in range(60))
            for _ in range(copies):
                file.write(json.dumps({"text": text, "lang": "en", "mark": "y" * (copies == 1)}))
                file.write("\n")
        for number in range(3):
            for _ in range(2):
                file.write(json.dumps({"text": f"seltene Sprache {number} " * 5, "lang": "de"}))
                file.write("\n")
    return PreprocessConfig(
        sources=(SourceConfig(path=str(path), columns=("mark",)),),
        dedup=DedupConfig(near=False),
        rehydration=RehydrationConfig(mode="schedule", schedule=((1, 1), (2, 2), (4, 3), (6, 7))),
        tokenizer=TokenizerConfig(vocab_size=500, train_bytes=30_000),
        pack=PackConfig(min_documents=20, validation_fraction=0.1),
    )


def run(config: PreprocessConfig, output: Path) -> Path:
    recipe.preprocess(config, output=output, workers=1, console=Console(file=io.StringIO()))
    return output


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rehydrated")
    return run(write_corpus(folder / "in.jsonl"), folder / "out")


def test_documents_that_are_drawn_equally_often_share_a_group(output: Path) -> None:
    groups = find_prefixes(output / "data/train")

    # Of the five documents with six copies there are too few for a group: they join the next.
    assert set(groups) == {"eng_Latn", "eng_Latn-x2", "eng_Latn-x3", "other"}
    assert set(find_prefixes(output / "data/validation")) <= {"eng_Latn", "other"}
    asked = {}
    for name, prefixes in groups.items():
        dataset = IndexedDataset(prefixes[0])
        assert dataset.manifest is not None
        asked[name] = dataset.manifest.config.get("blend")
        assert not verify(prefixes[0], full=True).problems
    assert asked == {
        "eng_Latn": {"repeat": 1}, "eng_Latn-x2": {"repeat": 2}, "eng_Latn-x3": {"repeat": 3},
        "other": None,
    }  # fmt: skip
    report = json.loads((output / "report.json").read_text())
    assert report["rehydration"] == {"*": [[1, 1], [2, 2], [4, 3], [6, 7]]}
    kept = sum(row["documents"] for row in report["repeats"])
    assert kept == report["total"]["kept"] - report["total"]["validation_documents"]
    assert "4: 3×" in (output / "report.html").read_text()


def test_the_blend_draws_documents_as_often_as_the_schedule_says(output: Path) -> None:
    groups = find_prefixes(output / "data/train")
    datasets = [SampleDataset(prefixes, sequence_length=32) for prefixes in groups.values()]
    repeats = {"eng_Latn": 1, "eng_Latn-x2": 2, "eng_Latn-x3": 3, "other": 1}
    asked = sum(d.num_tokens * repeats[n] for n, d in zip(groups, datasets, strict=True)) // 32
    blend = BlendedDataset(datasets, num_samples=asked)

    drawn = Counter(int(blend[n]["dataset_id"]) for n in range(len(blend)))

    for number, (name, dataset) in enumerate(zip(groups, datasets, strict=True)):
        epochs = drawn[number] * 32 / dataset.num_tokens
        assert epochs == pytest.approx(repeats[name], abs=64 / dataset.num_tokens), name
    twice = datasets[list(groups).index("eng_Latn-x2")]
    assert manifest_weight("eng_Latn-x2", twice.split.manifests) == 2 * twice.num_tokens


def test_the_trainers_blend_counts_tokens_as_often_as_the_manifests_ask(output: Path) -> None:
    trainer_blend = pytest.importorskip("gristmill.trainer.blend")
    from gristmill.indexed_dataset import open_groups
    from gristmill.trainer.config import PretrainConfig

    config = PretrainConfig()
    data = replace(config.data, alpha=1.0, sequence_length=32)
    train = open_groups(output / "data/train")
    blend = trainer_blend.build_blend(replace(config, data=data), train, None)

    tokens = {name: sum(shard.num_tokens for shard in shards) for name, shards in train.items()}
    weights = dict(zip(train, blend.phases[0].blend.tree.weights, strict=True))
    ratio = weights["eng_Latn-x3"] / weights["eng_Latn"]
    assert ratio == pytest.approx(3 * tokens["eng_Latn-x3"] / tokens["eng_Latn"], rel=1e-6)


def test_without_rehydration_the_groups_are_as_always(tmp_path: Path) -> None:
    config = replace(write_corpus(tmp_path / "in.jsonl"), rehydration=RehydrationConfig())

    run(config, tmp_path / "out")

    assert set(find_prefixes(tmp_path / "out/data/train")) == {"eng_Latn", "other"}


def test_filters_marks_teach_which_cluster_sizes_are_good(tmp_path: Path) -> None:
    config = write_corpus(tmp_path / "in.jsonl")
    learned = RehydrationConfig(
        mode="filters", filter_column="mark", max_repeats=4, min_documents=3
    )
    run(replace(config, rehydration=learned), tmp_path / "out")

    report = json.loads((tmp_path / "out/report.json").read_text())
    # Every English document without a copy is marked, no other is; no German one is.
    assert report["rehydration"] == {"deu_Latn": [[1, 1]], "eng_Latn": [[1, 1], [2, 4]]}

    empty = replace(learned, filter_column="")
    with pytest.raises(ValueError, match="or was dropped after dedup, so there is"):
        run(replace(config, rehydration=empty), tmp_path / "other")


def test_documents_that_filters_drop_after_dedup_are_counted_by_their_cluster(
    tmp_path: Path, write_units, make_row
) -> None:  # type: ignore[no-untyped-def]
    rows = [
        make_row("kept", cluster="kept"),
        make_row("bad", cluster="bad", reason="quality"),
        make_row("copy", cluster="kept", reason="exact_duplicate"),
        make_row("", reason="empty", by_clean=True),
    ]
    write_units(tmp_path, {"unit": [replace(row, offset=n) for n, row in enumerate(rows)]})
    path = tmp_path / "verdicts/unit.parquet"
    table = pq.read_table(path)
    sizes = pa.array([2, 5, 2, 1], pa.int64())
    place = table.schema.get_field_index("cluster_size")
    pq.write_table(table.set_column(place, table.schema.field(place), sizes), path)

    result = count_clusters(
        CountArguments(
            documents=tmp_path / "documents/unit.parquet", verdicts=path, filter_column=""
        )
    )

    assert result.counts["rows"] == [["eng_Latn", 2, 1, 0], ["eng_Latn", 5, 1, 1]]


def test_documents_that_annotating_filters_mark_are_counted_as_removed(
    tmp_path: Path, write_units, make_row
) -> None:  # type: ignore[no-untyped-def]
    rows = [make_row(text, cluster=text, offset=n) for n, text in enumerate("abcd")]
    write_units(tmp_path, {"unit": [rows[0], rows[2], rows[3]]})
    write_units(tmp_path / "all", {"unit": rows})
    documents = tmp_path / "documents/unit.parquet"
    documents.write_bytes((tmp_path / "all/documents/unit.parquet").read_bytes())
    (tmp_path / "filters").mkdir()
    decisions = {"kept": [True, False, True, True], "failed": [[], ["x"], ["y"], []]}
    pq.write_table(pa.table(decisions), tmp_path / "filters/unit.parquet")

    result = count_clusters(
        CountArguments(
            documents=documents, verdicts=tmp_path / "verdicts/unit.parquet", filter_column=""
        )
    )

    assert result.counts["rows"] == [["eng_Latn", 1, 3, 1]]


def test_a_missing_filter_column_is_named(tmp_path: Path, write_units, make_row) -> None:  # type: ignore[no-untyped-def]
    write_units(tmp_path, {"unit": [make_row("a")]})
    arguments = CountArguments(
        documents=tmp_path / "documents/unit.parquet",
        verdicts=tmp_path / "verdicts/unit.parquet",
        filter_column="quality",
    )

    with pytest.raises(ValueError, match=r"has no column 'quality' \(rehydration.filter_column\)"):
        count_clusters(arguments)
