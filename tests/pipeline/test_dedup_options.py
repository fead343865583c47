"""What a user can choose: which copy is kept, where copies are looked for, and what is a copy."""

import random

import pytest

from gristmill.pipeline import jaccard

from .dedup_runs import Run, document_id, edit, make_text


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "output")


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (("longest",), 3),
        (("shortest",), 1),
        (("first",), 0),
        (("score:highest",), 2),
        (("score:lowest",), 1),
        (("date:highest",), 3),
        (("date:lowest",), 1),
        (("site:lowest", "date:highest"), 3),
        (("site:highest", "first", "shortest"), 0),
        (("missing:highest", "shortest"), 1),
    ],
)
def test_the_kept_near_copy_is_chosen_by_the_users_keys(run, keep, kept):
    rng = random.Random(1)
    text = make_text(rng, 300)
    texts = [
        text,
        " ".join(text.split()[:-3]),
        edit(rng, text, 1),
        f"{edit(rng, text, 1)} with a longer ending than all of the others",
    ]
    run.add(
        "a",
        texts,
        score=["0.5", "-2", "10", None],
        date=["2024-02-01", "2023-12-31", "2024-01-31", "2024-02-01T10:00"],
        site=["b", "a", "b", "a"],
    )

    verdicts = run.dedup(keep=keep)

    assert [row["kept"] for row in verdicts] == [number == kept for number in range(4)]
    assert {row["cluster_id"] for row in verdicts} == {document_id(texts[kept])}
    for number, row in enumerate(verdicts):
        expected = jaccard(texts[number], texts[kept]) if number != kept else None
        assert row["jaccard"] == expected


def test_of_equal_texts_too_the_best_by_the_users_key_is_kept(run):
    run.add("a", ["one text of some words"] * 3 + ["another"], score=["1", "3", None, "9"])
    run.add("b", ["one text of some words"] * 2, score=["3", "2"])

    assert run.reasons(keep=("score:highest",)) == [
        "exact_duplicate",
        None,
        "exact_duplicate",
        None,
        "exact_duplicate",
        "exact_duplicate",
    ]
    assert run.reasons(keep=("score:lowest",)).index(None) == 0


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize(
    ("scope", "kept"),
    [
        ("global", [1, 0, 0, 0, 0, 0]),
        ("language", [1, 1, 0, 0, 0, 0]),
        ("source", [1, 0, 0, 1, 0, 0]),
    ],
)
def test_copies_are_looked_for_within_the_scope(run, scope, kept, near):
    text = make_text(random.Random(2), 100)
    texts = [text, text, text] if not near else [text, text + " a", text + " b"]
    for unit, source in (("a", "news"), ("b", "books")):
        run.add(unit, texts, source=source, languages=["eng_Latn", "deu_Latn", "eng_Latn"])

    verdicts = run.dedup(scope=scope, keep=("first",), near=near)

    assert [row["kept"] for row in verdicts] == [bool(k) for k in kept]


def pages(rng, template, num_pages, num_words=24):
    """Pages of one template, each with a passage of its own in the middle."""
    words = template.split()
    middle = len(words) // 2
    return [
        " ".join([*words[:middle], make_text(rng, num_words), *words[middle:]])
        for _ in range(num_pages)
    ]


def test_pages_that_share_a_template_but_not_their_payload_are_all_kept(run):
    rng = random.Random(3)
    texts = pages(rng, make_text(rng, 500), 40)
    assert all(jaccard(texts[0], other) > 0.85 for other in texts[1:])
    run.add("a", texts)

    assert run.reasons() == [None] * 40
    without = run.reasons(boilerplate_documents=0)
    assert without == [None] + ["near_duplicate"] * 39


def test_copies_of_one_page_among_others_of_its_template_are_removed(run):
    rng = random.Random(4)
    texts = pages(rng, make_text(rng, 500), 40)
    copies = [edit(rng, text, 2) for text in texts[:10]]
    run.add("a", texts + copies)

    verdicts = run.dedup(keep=("first",))

    assert [row["reason"] for row in verdicts] == [None] * 40 + ["near_duplicate"] * 10
    assert [row["duplicate_of"] for row in verdicts[40:]] == [
        document_id(text) for text in texts[:10]
    ]


def test_many_copies_that_differ_by_words_here_and_there_have_no_payload(run):
    rng = random.Random(5)
    text = make_text(rng, 400)
    run.add("a", [edit(rng, text, 4) for _ in range(60)])

    assert sum(reason is None for reason in run.reasons()) == 1


def test_boilerplate_is_counted_in_each_source_on_its_own(run):
    rng = random.Random(6)
    texts = pages(rng, make_text(rng, 500), 30)
    run.add("a", texts[:15], source="news").add("b", texts[15:], source="books")

    assert sum(reason is None for reason in run.reasons(boilerplate_documents=20)) == 1
    assert run.reasons(boilerplate_documents=15) == [None] * 30


def test_pages_of_every_script_keep_their_payload(run):
    rng = random.Random(7)
    alphabets = {
        "Hani": [chr(0x4E00 + n) for n in range(900)],
        "Kana": [chr(0x3042 + n) for n in range(80)],
        "Thai": [chr(0x0E01 + n) for n in range(44)],
    }
    texts = []
    for letters in alphabets.values():
        template = [rng.choice(letters) for _ in range(900)]
        for _ in range(25):
            own = [rng.choice(letters) for _ in range(45)]
            texts.append("".join([*template[:450], *own, *template[450:]]))
    assert jaccard(texts[0], texts[1]) > 0.8
    run.add("a", texts)

    assert run.reasons() == [None] * 75


def test_without_verification_sharing_a_band_is_enough(run):
    rng = random.Random(8)
    text = make_text(rng, 200)
    texts = [text, edit(rng, text, 12)]
    assert 0.4 < jaccard(*texts) < 0.8
    run.add("a", texts)

    verdicts = run.dedup(verify=False, num_bands=50, rows_per_band=2, keep=("first",))

    assert [row["reason"] for row in verdicts] == [None, "near_duplicate"]
    assert verdicts[1]["jaccard"] == jaccard(*texts)
    assert run.reasons(num_bands=50, rows_per_band=2) == [None, None]


def test_drop_all_keeps_no_document_that_has_a_copy(run):
    rng = random.Random(9)
    words = make_text(rng, 400).split()
    chain = [" ".join(words[shift : shift + 300]) for shift in (0, 20, 40)]
    alone = make_text(rng, 80)
    same = make_text(rng, 60)
    run.add("a", [*chain, alone, same, same])

    verdicts = run.dedup(copies="drop_all", keep=("first",))

    assert jaccard(chain[0], chain[2]) < 0.8 < jaccard(chain[1], chain[2])
    assert [row["reason"] for row in verdicts] == [
        "has_duplicates",
        "near_duplicate",
        "near_duplicate",
        None,
        "has_duplicates",
        "exact_duplicate",
    ]
    assert [row["kept"] for row in verdicts] == [False] * 3 + [True] + [False] * 2
    assert [row["cluster_size"] for row in verdicts] == [3, 3, 3, 1, 2, 2]
    assert verdicts[2]["duplicate_of"] == document_id(chain[1])
    assert verdicts[2]["jaccard"] == jaccard(chain[1], chain[2])
    assert {row["cluster_id"] for row in verdicts[:3]} == {document_id(chain[0])}
