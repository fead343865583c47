"""New documents against an index of old ones: whose copy a new document is, and what is refused."""

import json
import random
import shutil

import pytest

from gristmill.pipeline import jaccard
from gristmill.pipeline.executors import UnitError

from .dedup_runs import Run, document_id, edit, make_text


@pytest.fixture
def old(tmp_path):
    rng = random.Random(1)
    texts = [make_text(rng, rng.randrange(60, 200)) for _ in range(12)]
    run = Run(tmp_path / "old")
    run.add("u", texts[:7]).add("v", [*texts[7:], texts[0], edit(rng, texts[1], 1)])
    run.dedup(write_index=True, keep=("first",))
    run.texts = texts
    return run


@pytest.fixture
def new(tmp_path):
    return Run(tmp_path / "new")


def test_new_documents_that_old_ones_have_are_dropped_and_name_them(old, new):
    rng = random.Random(2)
    fresh = make_text(rng, 100)
    near = edit(rng, old.texts[9], 1) + " and a much longer ending"
    new.add("a", [fresh, old.texts[3], near, old.texts[0], fresh])

    verdicts = new.dedup(against=(str(old.output),))

    assert [row["reason"] for row in verdicts] == [
        None, "exact_duplicate", "near_duplicate", "exact_duplicate", "exact_duplicate",
    ]  # fmt: skip
    assert verdicts[1]["duplicate_of"] == document_id(old.texts[3])
    assert verdicts[2]["duplicate_of"] == document_id(old.texts[9])
    assert verdicts[2]["jaccard"] == jaccard(near, old.texts[9]) >= 0.8
    assert verdicts[3]["cluster_id"] == document_id(old.texts[0])
    assert verdicts[4]["duplicate_of"] == document_id(fresh)


def test_an_old_document_stays_even_if_the_new_one_is_better_by_the_key(old, new):
    new.add("a", [old.texts[2]], score=["9"])

    assert new.reasons(against=(str(old.output),), keep=("longest", "score:highest")) == [
        "exact_duplicate"
    ]


def test_dedup_against_old_documents_only_leaves_new_copies_alone(old, new):
    rng = random.Random(3)
    fresh = make_text(rng, 100)
    new.add("a", [fresh, fresh, edit(rng, fresh, 1), old.texts[5], edit(rng, old.texts[5], 1)])

    assert new.reasons(against=(str(old.output),), among_new=False) == [
        None, None, None, "exact_duplicate", "near_duplicate",
    ]  # fmt: skip


def test_only_what_the_old_run_kept_is_in_its_index(old, new):
    index = json.loads((old.output / "index" / "index.json").read_bytes())

    assert [(unit["name"], unit["documents"]) for unit in index["units"]] == [("u", 7), ("v", 5)]


def test_incremental_dedup_in_two_steps_keeps_what_one_step_keeps(tmp_path):
    rng = random.Random(4)
    texts = [make_text(rng, rng.randrange(50, 150)) for _ in range(30)]
    texts += [edit(rng, rng.choice(texts), 1) for _ in range(30)] + texts[:10]
    rng.shuffle(texts)
    whole = Run(tmp_path / "whole").add("a", texts[:35]).add("b", texts[35:])
    first = Run(tmp_path / "first").add("a", texts[:35])
    second = Run(tmp_path / "second").add("b", texts[35:])

    expected = [row["kept"] for row in whole.dedup(keep=("first",))]
    kept = [row["kept"] for row in first.dedup(keep=("first",), write_index=True)]
    kept += [row["kept"] for row in second.dedup(keep=("first",), against=(str(first.output),))]

    assert kept == expected


def test_two_indices_and_one_written_against_another_work_together(old, new, tmp_path):
    rng = random.Random(5)
    fresh = make_text(rng, 100)
    new.add("a", [fresh, old.texts[1]])
    new.dedup(against=(str(old.output),), write_index=True)
    newer = Run(tmp_path / "newer").add("a", [edit(rng, fresh, 1), old.texts[1]])

    verdicts = newer.dedup(against=(str(old.output), str(new.output)))

    assert [row["duplicate_of"] for row in verdicts] == [
        document_id(fresh),
        document_id(old.texts[1]),
    ]


def test_drop_all_drops_new_copies_and_no_old_document(old, new):
    new.add("a", [old.texts[4], "something else"])

    assert new.reasons(against=(str(old.output),), copies="drop_all") == ["exact_duplicate", None]


def test_an_index_can_be_made_later_and_changes_no_verdict(tmp_path):
    rng = random.Random(6)
    run = Run(tmp_path / "run").add("a", [make_text(rng, 50) for _ in range(5)])
    run.dedup()
    before = run.verdict_bytes()
    assert not (run.output / "index").exists()

    run.dedup(write_index=True)

    assert run.verdict_bytes() == before
    assert (run.output / "index" / "index.json").exists()
    assert run.scratch() == []


def test_an_index_that_cannot_be_used_is_refused_with_a_remedy(old, new, tmp_path):
    new.add("a", ["some text"])
    folder = str(old.output)

    with pytest.raises(ValueError, match=r"has no index .*write-index"):
        new.dedup(against=(str(tmp_path),))
    with pytest.raises(ValueError, match="was made with seed = 0, and this run has seed = 1"):
        new.dedup(against=(folder,), seed=1)
    with pytest.raises(ValueError, match="made with num_bands = 20"):
        new.dedup(against=(folder,), num_bands=10)
    with pytest.raises(ValueError, match="the output folder itself"):
        new.dedup(against=(str(new.output),))
    shutil.move(old.output / "documents", old.output / "moved")
    with pytest.raises(ValueError, match=r"needs .*documents.*Put the file back"):
        new.dedup(against=(folder,))
    (old.output / "index" / "index.json").write_text("{}")
    with pytest.raises(ValueError, match="is no index"):
        new.dedup(against=(folder,))


def test_an_index_whose_documents_were_replaced_is_refused_when_they_are_read(old, new):
    rng = random.Random(7)
    old.add("v", [make_text(rng, 100) for _ in range(9)])
    new.add("a", [edit(rng, old.texts[9], 1)])

    with pytest.raises(UnitError, match=r"v.parquet was replaced .*delete .*index"):
        new.dedup(against=(str(old.output),))


def test_without_bands_an_index_serves_exact_dedup(old, new):
    new.add("a", [old.texts[6], old.texts[6] + " more"])

    assert new.reasons(against=(str(old.output),), near=False) == ["exact_duplicate", None]
