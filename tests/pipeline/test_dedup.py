"""The stage from clean documents to verdicts: who is kept, who is not, and why."""

import random

import numpy as np
import pytest

from gristmill.pipeline import dedup, dedup_buckets, dedup_near, dedup_run, jaccard

from .dedup_runs import Run, document_id, edit, make_text


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "output")


def test_of_equal_texts_the_first_is_kept_and_the_others_name_it(run):
    rng = random.Random(1)
    same, other = make_text(rng, 50), make_text(rng, 50)
    run.add("a", [other, same]).add("b", [same, same])

    verdicts = run.dedup()

    assert [row["reason"] for row in verdicts] == [None, None, *["exact_duplicate"] * 2]
    assert [row["kept"] for row in verdicts] == [True, True, False, False]
    assert [row["duplicate_of"] for row in verdicts] == [None, None, *[document_id(same)] * 2]
    assert [row["cluster_size"] for row in verdicts] == [1, 3, 3, 3]
    assert [row["cluster_id"] for row in verdicts[1:]] == [document_id(same)] * 3
    assert verdicts[0]["cluster_id"] == document_id(other)
    assert [row["jaccard"] for row in verdicts] == [None, None, 1.0, 1.0]
    assert [row["text_bytes"] for row in verdicts] == [len(other), *[len(same)] * 3]
    assert [row["input_id"] for row in verdicts] == ["a-0", "a-1", "b-0", "b-1"]


@pytest.mark.parametrize(("keep", "kept"), [("longest", 1), ("first", 0)])
def test_a_near_copy_is_removed_with_its_similarity_as_evidence(run, keep, kept):
    rng = random.Random(2)
    text = make_text(rng, 200)
    texts = [text, edit(rng, text, 2) + " and a longer ending", make_text(rng, 200)]
    run.add("a", texts[:1]).add("b", texts[1:])

    verdicts = run.dedup(keep=(keep,))

    removed = 1 - kept
    assert verdicts[removed]["reason"] == "near_duplicate"
    assert verdicts[removed]["duplicate_of"] == document_id(texts[kept])
    assert verdicts[removed]["jaccard"] == jaccard(texts[0], texts[1]) > 0.8
    assert verdicts[kept]["reason"] is None
    assert {row["cluster_id"] for row in verdicts[:2]} == {document_id(texts[kept])}
    assert [row["cluster_size"] for row in verdicts] == [2, 2, 1]


def test_an_exact_copy_of_a_removed_near_copy_names_the_kept_document(run):
    rng = random.Random(3)
    long = make_text(rng, 200)
    short = " ".join(long.split()[:-10])
    run.add("a", [short, short, long])

    verdicts = run.dedup()

    assert [row["reason"] for row in verdicts] == ["near_duplicate", "exact_duplicate", None]
    assert {row["cluster_id"] for row in verdicts} == {document_id(long)}
    assert [row["duplicate_of"] for row in verdicts[:2]] == [document_id(long)] * 2
    assert verdicts[0]["jaccard"] == verdicts[1]["jaccard"] == jaccard(short, long)
    assert [row["cluster_size"] for row in verdicts] == [3, 3, 3]


def test_nothing_is_removed_by_transitivity_alone(run):
    """In a chain of near copies whatever no kept text covers is kept."""
    rng = random.Random(4)
    words = make_text(rng, 400).split()
    chain = [" ".join(words[shift : shift + 300]) for shift in range(0, 100, 20)]
    run.add("a", chain)

    verdicts = run.dedup(keep=("first",))

    kept = [text for text, row in zip(chain, verdicts, strict=True) if row["kept"]]
    by_id = {document_id(text): text for text in chain}
    assert 2 <= len(kept) < len(chain)
    for text, row in zip(chain, verdicts, strict=True):
        similarities = [jaccard(text, other) for other in kept if other is not text]
        if row["kept"]:
            assert max(similarities) < 0.8
        else:
            assert row["jaccard"] == jaccard(text, by_id[row["duplicate_of"]]) >= 0.8


def test_unique_texts_from_one_template_are_all_kept(run):
    rng = random.Random(5)
    header = make_text(rng, 100)
    texts = [f"{header} {make_text(rng, 30)}" for _ in range(60)]
    run.add("a", texts)

    verdicts = run.dedup()

    assert 0.5 < jaccard(texts[0], texts[1]) < 0.7
    assert all(row["kept"] for row in verdicts)


def test_pairs_at_the_threshold_are_found_and_unique_texts_are_not_lost(run):
    rng = random.Random(6)
    originals = [make_text(rng, rng.randrange(100, 400)) for _ in range(150)]
    copies = [edit(rng, text, rng.randrange(1, 5)) for text in originals]
    unique = [make_text(rng, rng.randrange(1, 300)) for _ in range(100)]
    run.add("a", originals + unique).add("b", copies)

    verdicts = run.dedup(keep=("first",))

    similar = [jaccard(*pair) >= 0.8 for pair in zip(originals, copies, strict=True)]
    removed = [row["reason"] == "near_duplicate" for row in verdicts[-150:]]
    assert sum(similar) > 100
    assert not any(r and not s for r, s in zip(removed, similar, strict=True))
    found = sum(r and s for r, s in zip(removed, similar, strict=True))
    assert found / sum(similar) >= 0.97
    assert all(row["kept"] for row in verdicts[:250])


def test_every_document_in_has_one_verdict_and_rejected_ones_keep_their_reason(run):
    rejected = [
        {"id": None, "input_id": None, "source": "web", "origin_file": "a.jsonl",
         "origin_offset": 99, "language": "und_Zyyy", "reason": "rejected_json", "detail": "x"},
        {"id": "00" * 16, "input_id": "r1", "source": "web", "origin_file": "a.jsonl",
         "origin_offset": 120, "language": "eng_Latn", "reason": "empty", "detail": ""},
    ]  # fmt: skip
    run.add("a", ["one text", "one text"], rejected).add("b", [])

    verdicts = run.dedup()

    assert [row["reason"] for row in verdicts] == [
        None,
        "exact_duplicate",
        "rejected_json",
        "empty",
    ]
    assert [row["id"] for row in verdicts[2:]] == [None, bytes(16)]
    assert [row["origin_offset"] for row in verdicts] == [0, 1, 99, 120]
    assert not any(row["kept"] for row in verdicts[1:])
    assert run.verdict_markers["a"].counts["rows"] == [
        ["web", "eng_Latn", "empty", 1, 0],
        ["web", "eng_Latn", "exact_duplicate", 1, 8],
        ["web", "eng_Latn", "kept", 1, 8],
        ["web", "und_Zyyy", "rejected_json", 1, 0],
    ]
    assert run.verdict_markers["b"].counts["rows"] == []


def test_short_texts_are_equal_or_different_as_a_whole_and_empty_ones_never_alike(run):
    texts = ["Hello, World", "hello world!", "hello word", "...", "???", "", "國", "国"]
    run.add("a", texts)

    verdicts = run.dedup(keep=("first",))

    assert [row["reason"] for row in verdicts] == [None, "near_duplicate", *[None] * 6]


def test_with_dedup_off_every_clean_document_is_kept_and_nothing_is_computed(run):
    run.add("a", ["same", "same"])

    verdicts = run.dedup(exact=False, near=False)

    assert [row["kept"] for row in verdicts] == [True, True]
    assert [row["cluster_size"] for row in verdicts] == [1, 1]
    assert sorted(path.name for path in (run.output / "work").iterdir()) == ["verdicts"]


def test_exact_alone_leaves_near_copies_and_near_alone_removes_equal_texts_too(run):
    rng = random.Random(7)
    text = make_text(rng, 200)
    run.add("a", [text, text, edit(rng, text, 1)])

    exact = [row["reason"] for row in run.dedup(near=False)]
    near = [row["reason"] for row in run.dedup(exact=False, keep=("first",))]

    assert exact == [None, "exact_duplicate", None]
    assert near == [None, "near_duplicate", "near_duplicate"]


def test_one_giant_cluster_of_equal_texts_is_one_cluster(run):
    run.add("a", ["the same text over and over again"] * 3000, rows_per_group=1000)

    verdicts = run.dedup()

    assert sum(row["kept"] for row in verdicts) == 1
    assert {row["cluster_size"] for row in verdicts} == {3000}


def test_a_group_too_large_for_memory_is_compared_alike_in_a_mapped_file(run, monkeypatch):
    from gristmill.pipeline import dedup_verify

    rng = random.Random(8)
    text = make_text(rng, 300)
    run.add("a", [edit(rng, text, rng.randrange(1, 12)) for _ in range(80)])
    expected = run.dedup()

    monkeypatch.setattr(dedup_verify, "MEMORY_SHINGLES", 100)
    monkeypatch.setattr(dedup_verify, "BATCH_SHINGLES", 100)
    assert run.dedup(threshold=0.81) is not None  # other settings: verified anew
    assert run.dedup() == expected


def test_pairs_that_are_not_compared_are_reported(run, caplog, monkeypatch):
    from gristmill import kernels
    from gristmill.pipeline import dedup_verify

    def narrow(*group):
        return kernels.verify_group(*group, max_comparisons=1, max_bucket=2)

    class Narrow:
        verify_group = staticmethod(narrow)
        shingle_sets = staticmethod(kernels.shingle_sets)

    monkeypatch.setattr(dedup_verify, "kernels", Narrow)
    rng = random.Random(9)
    header = make_text(rng, 200)
    run.add("a", [f"{header} {make_text(rng, 80)}" for _ in range(30)])

    assert all(row["kept"] for row in run.dedup())
    assert "candidate pairs were not compared" in caplog.text


def fill(run, seed=10):
    rng = random.Random(seed)
    texts = [make_text(rng, rng.randrange(5, 150)) for _ in range(40)]
    texts += [edit(rng, rng.choice(texts), 1) for _ in range(40)] + texts[:20]
    rng.shuffle(texts)
    for unit in range(4):
        run.add(f"{unit:05}", texts[unit * 25 : (unit + 1) * 25])
    return run


def test_one_and_two_workers_and_any_number_of_partitions_write_the_same_bytes(tmp_path):
    one, two, three = (fill(Run(tmp_path / name)) for name in ("one", "two", "three"))

    verdicts = one.dedup(workers=1)
    two.dedup(workers=2)
    three.dedup(workers=1, partitions=1)

    assert {row["reason"] for row in verdicts} == {None, "exact_duplicate", "near_duplicate"}
    assert one.verdict_bytes() == two.verdict_bytes() == three.verdict_bytes()


def test_scratch_goes_and_a_second_run_does_nothing_all_the_same(tmp_path, monkeypatch):
    run = fill(Run(tmp_path / "output"))
    run.dedup()
    before = run.verdict_bytes()

    for module in (dedup_run, dedup_near, dedup):
        for name in [name for name in vars(module) if name.startswith("write_")]:
            monkeypatch.setattr(module, name, _never)
    run.dedup()

    assert run.scratch() == []
    assert run.verdict_bytes() == before


def test_a_lost_verdict_is_made_again_alike_from_scratch_that_is_gone(tmp_path):
    run = fill(Run(tmp_path / "output"))
    run.dedup()
    before = run.verdict_bytes()
    (run.output / "verdicts" / "00002.parquet").unlink()

    run.dedup()

    assert run.verdict_bytes() == before
    assert run.scratch() == []


def test_scratch_that_was_kept_is_used_and_what_is_lost_of_it_made_again(tmp_path, monkeypatch):
    run = fill(Run(tmp_path / "output"))
    run.dedup(keep_scratch=True)
    before = run.verdict_bytes()
    (run.output / "verdicts" / "00002.parquet").unlink()
    (run.output / "work" / "verify" / "part-00001-of-00003.npy").unlink()

    monkeypatch.setattr(dedup_run, "write_keys", _never)
    monkeypatch.setattr(dedup_near, "write_buckets", _never)
    run.dedup(keep_scratch=True)

    assert run.verdict_bytes() == before
    assert run.scratch() != []


def test_buckets_do_not_depend_on_the_number_of_ranges_that_are_sorted(tmp_path, monkeypatch):
    one, many = fill(Run(tmp_path / "one")), fill(Run(tmp_path / "many"))
    one.dedup(keep_scratch=True)
    monkeypatch.setattr(dedup_buckets, "RANGE_KEYS", 7)
    many.dedup(keep_scratch=True)

    for band in range(20):
        name = f"work/buckets/band-{band:05}.npy"
        members = [np.load(run.output / name) for run in (one, many)]
        np.testing.assert_array_equal(*members)
    assert one.verdict_bytes() == many.verdict_bytes()
    assert not list((many.output / "work" / "buckets").glob("*.ranges"))


def _never(*_):
    raise AssertionError("this stage was done")


def test_no_input_at_all_gives_no_verdict(run):
    assert run.dedup() == []
