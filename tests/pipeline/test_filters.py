"""Filters decide over columns: what they drop, mark, count, and what a change of them costs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.pipeline.check import check_config
from gristmill.pipeline.config import CleanConfig, DedupConfig, PreprocessConfig, SourceConfig
from gristmill.pipeline.documents import REASONS
from gristmill.pipeline.filter_config import (
    C4Config,
    FilterConfig,
    FineWebConfig,
    GopherQualityConfig,
    GopherRepetitionConfig,
    QuantileConfig,
)
from gristmill.pipeline.filter_rules import RULES
from gristmill.pipeline.filter_thresholds import Thresholds, bin_of, bin_value, quantile
from gristmill.pipeline.recipe import preprocess
from gristmill.pipeline.text_config import AnnotationConfig
from gristmill.pipeline.url_block_list import UrlBlockList

SENTENCES = [
    "The baker opened her shop before sunrise because the village expected warm bread.",
    "Children walking to school pressed their noses against the window and laughed.",
    "On market days farmers brought apples, pears and cheese from the surrounding hills.",
    "Nobody remembered when the old clock above the square had last shown the right time.",
    "A travelling musician played slow songs that everyone pretended not to know.",
    "Rain arrived around noon, so the stalls were covered with bright canvas sheets.",
    "By evening only two carts remained, and their owners shared stories over soup.",
    "Later the moon lit the empty street while the baker prepared tomorrow's dough.",
]
GOOD = "\n".join(SENTENCES)


def good(number: int) -> str:
    return f"{GOOD}\nThis happened {number} years ago, as far as anybody can say."


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_config(path: Path, filters: FilterConfig, **options: object) -> PreprocessConfig:
    source = SourceConfig(path=str(path), columns=("url",), language="en")
    near = DedupConfig(near=False)
    return PreprocessConfig(sources=(source,), filters=filters, dedup=near, **options)


def run(config: PreprocessConfig, output: Path, workers: int = 1, until: str = "dedup"):
    return preprocess(config, output=output, workers=workers, until=until)


def verdicts(output: Path) -> dict[int, str | None]:
    """Return the reason of each document by its place in the file."""
    table = pq.read_table(output / "verdicts")
    places = sorted(table["origin_offset"].to_pylist())
    found = zip(table["origin_offset"].to_pylist(), table["reason"].to_pylist(), strict=True)
    return {places.index(place): reason for place, reason in found}


ALL = FilterConfig(
    gopher_quality=GopherQualityConfig(enabled=True),
    gopher_repetition=GopherRepetitionConfig(enabled=True),
    c4=C4Config(enabled=True),
    fineweb=FineWebConfig(enabled=True),
)

BAD = {
    "gopher_quality": "too short to be of use",
    "gopher_repetition": GOOD + "\n" + (SENTENCES[0] + "\n") * 30,
    "c4": GOOD + "\nOne line shows function f() { return 1; } to confuse readers.",
    "fineweb": "\n".join([GOOD.replace("\n", " "), *(line[4:28] for line in SENTENCES)]),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": good(n), "url": f"https://a{n % 3}.example.org/{n}"} for n in range(12)]
    rows += [{"text": text, "url": None} for text in BAD.values()]
    rows += [{"text": good(0), "url": "https://copy.example.com/"}, {"text": " "}]
    return write(tmp_path_factory.mktemp("filters") / "in.jsonl", rows)


def test_documents_are_dropped_for_the_family_that_they_fail_first(corpus, tmp_path):
    report = run(make_config(corpus, ALL), tmp_path)

    reasons = verdicts(tmp_path)
    assert [reasons[n] for n in range(12, 16)] == list(BAD)
    assert all(reasons[n] is None for n in range(12))
    assert reasons[16] == "exact_duplicate"
    assert report.total.dropped == {**dict.fromkeys(BAD, 1), "exact_duplicate": 1, "empty": 1}
    assert report.total.documents_in == report.total.kept + sum(report.total.dropped.values()) == 18
    assert report.curation["failed"]["eng_Latn"]["gopher_quality.min_words"] == 1
    assert set(report.total.dropped) <= set(REASONS)


def test_a_dropped_document_is_no_kept_copy(tmp_path):
    """The first of two equal texts is blocked, so the second is kept."""
    rows = [{"text": GOOD, "url": "http://spam.org/a"}, {"text": GOOD, "url": "http://fine.org/a"}]
    (tmp_path / "list.txt").write_text("spam.org  # all of it\n")
    filters = FilterConfig(url_block_list=(str(tmp_path / "list.txt"),))

    run(make_config(write(tmp_path / "in.jsonl", rows), filters), tmp_path / "out")

    assert verdicts(tmp_path / "out") == {0: "url_blocked", 1: None}


def test_annotate_keeps_all_and_says_what_each_document_fails(corpus, tmp_path):
    report = run(make_config(corpus, replace(ALL, mode="annotate")), tmp_path)

    marks = pq.read_table(tmp_path / "filters")
    documents = pq.read_table(tmp_path / "documents")
    assert marks["id"].equals(documents["id"])
    assert marks["kept"].to_pylist() == [True] * 17
    failed = marks["failed"].to_pylist()
    assert failed[12][0] == "gopher_quality.min_words"
    assert failed[0] == []
    assert report.total.kept == 16


def test_other_thresholds_read_no_source_again(corpus, tmp_path):
    config = make_config(corpus, replace(ALL, mode="annotate"))
    run(config, tmp_path)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "documents").iterdir()}
    marker = next((tmp_path / "work" / "clean").glob("*.json")).stat().st_mtime_ns

    quality = GopherQualityConfig(enabled=True, min_words=1_000)
    run(make_config(corpus, replace(ALL, gopher_quality=quality)), tmp_path)

    assert before == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "documents").iterdir()}
    assert next((tmp_path / "work" / "clean").glob("*.json")).stat().st_mtime_ns == marker
    assert set(verdicts(tmp_path).values()) == {"gopher_quality", "empty"}


def test_filters_switched_off_leave_nothing_behind(corpus, tmp_path):
    config = make_config(corpus, ALL, clean=CleanConfig(annotate=AnnotationConfig(statistics=True)))
    run(config, tmp_path)
    report = run(replace(config, filters=FilterConfig()), tmp_path)

    assert report.total.dropped == {"exact_duplicate": 1, "empty": 1}
    assert not list((tmp_path / "filters").glob("*"))


def test_one_worker_and_two_write_the_same_bytes(corpus, tmp_path):
    quantiles = QuantileConfig(shares={"fineweb.max_short_lines": 0.1}, min_documents=5)
    clean = CleanConfig(unit_bytes=4_000)
    for name, workers in (("one", 1), ("two", 2)):
        run(
            make_config(corpus, replace(ALL, quantiles=quantiles), clean=clean),
            tmp_path / name,
            workers,
        )

    def content(name: str) -> dict[str, bytes]:
        folder = tmp_path / name
        paths = [
            p for part in ("documents", "filters", "verdicts") for p in (folder / part).iterdir()
        ]
        return {
            str(p.relative_to(folder)): p.read_bytes() for p in [*paths, folder / "report.json"]
        }

    assert content("one") == content("two")
    assert len(list((tmp_path / "one" / "filters").iterdir())) > 2


def test_thresholds_come_from_the_language_then_its_script_then_the_corpus_then_the_config():
    rule = next(one for one in RULES if one.name == "fineweb.max_short_lines")
    values = np.arange(1000) / 1000
    bins = dict(
        zip(*(x.tolist() for x in np.unique(bin_of(values), return_counts=True)), strict=True)
    )
    config = FilterConfig(
        fineweb=FineWebConfig(enabled=True),
        languages={
            "tha_Thai": {rule.name: 0.5},
            "Thai": {rule.name: 0.6},
            "khm_Khmr": {rule.name: -1},
        },
        quantiles=QuantileConfig(shares={rule.name: 0.1}, min_documents=1000),
    )
    find = Thresholds(
        config, {"fra_Latn": {rule.name: bins}, "deu_Latn": {rule.name: {0: 999}}}, ()
    )

    assert find(rule, "tha_Thai") == 0.5
    assert find(rule, "nod_Thai") == 0.6
    assert np.isnan(find(rule, "khm_Khmr"))
    assert find(rule, "fra_Latn") == pytest.approx(0.9, rel=1e-3)
    assert find(rule, "deu_Latn") == 0.67  # too few documents


def test_a_threshold_is_carried_over_at_the_quantile_of_the_reference_language():
    rule = next(one for one in RULES if one.name == "fineweb.max_newlines_per_word")
    english, thai = (
        {int(bin_of(np.array([n * s]))[0]): 1 for n in range(100)} for s in (0.01, 0.1)
    )
    quantiles = QuantileConfig(
        reference_language="eng_Latn", transfer=(rule.name,), min_documents=50
    )
    config = FilterConfig(fineweb=FineWebConfig(enabled=True), quantiles=quantiles)

    find = Thresholds(config, {"eng_Latn": {rule.name: english}, "tha_Thai": {rule.name: thai}}, ())

    assert find(rule, "eng_Latn") == 0.3
    assert find(rule, "tha_Thai") == pytest.approx(3.0, rel=0.05)


def test_quantiles_are_read_off_bins_of_equal_relative_width():
    assert bin_value(int(bin_of(np.array([3.0]))[0])) == 3.0
    assert quantile({int(bin_of(np.array([v]))[0]): 10 for v in (1.0, 2.0, 4.0)}, 0.5) == 2.0


def test_languages_without_stop_words_are_not_asked_for_them(tmp_path):
    rows = [{"text": "mot " * 60, "url": None}]
    quality = GopherQualityConfig(enabled=True)
    config = make_config(write(tmp_path / "in.jsonl", rows), FilterConfig(gopher_quality=quality))
    french = replace(config.sources[0], language="fr")

    english_report = run(config, tmp_path / "en")
    french_report = run(replace(config, sources=(french,)), tmp_path / "fr")

    assert english_report.total.dropped == {"gopher_quality": 1}
    assert french_report.total.kept == 1


def test_scores_of_a_users_function_are_columns_with_a_limit(tmp_path, monkeypatch):
    (tmp_path / "own_scores.py").write_text(
        "import pyarrow as pa\n"
        "def vowels(batch):\n"
        "    return {'vowels': pa.array([t.count('a') / 6 for t in batch['text'].to_pylist()])}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    annotate = AnnotationConfig(hook="own_scores:vowels", hook_columns=("vowels",))
    rows = [{"text": "banana"}, {"text": "rhythm"}]
    path = write(tmp_path / "in.jsonl", rows)
    config = make_config(
        path, FilterConfig(scores={"vowels": 0.1}), clean=CleanConfig(annotate=annotate)
    )

    run(config, tmp_path / "out")

    assert verdicts(tmp_path / "out") == {0: None, 1: "low_score"}
    assert pq.read_table(tmp_path / "out" / "documents")["vowels"].to_pylist() == [0.5, 0.0]


def test_a_hook_that_returns_other_columns_is_an_error_that_names_them(tmp_path, monkeypatch):
    (tmp_path / "wrong_hook.py").write_text("def f(batch):\n    return {'b': None}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    annotate = AnnotationConfig(hook="wrong_hook:f", hook_columns=("a",))
    config = make_config(
        write(tmp_path / "in.jsonl", [{"text": "x"}]),
        FilterConfig(),
        clean=CleanConfig(annotate=annotate),
    )
    with pytest.raises(Exception, match=r"returned the columns \['b'\].*says \['a'\]"):
        run(config, tmp_path / "out")


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (
            FilterConfig(languages={"Thai": {"c4.words": 1}}),
            "rule 'c4.words', which does not exist",
        ),
        (FilterConfig(languages={"Thai": {"c4.min_sentences": 1}}), "c4.enabled is false"),
        (FilterConfig(min_language_score=2), "min_language_score is 2"),
        (
            replace(ALL, quantiles=QuantileConfig(transfer=("c4.min_sentences",))),
            "reference_language",
        ),
        (
            replace(ALL, quantiles=QuantileConfig(shares={"c4.min_sentences": 1.5})),
            "at least 0 and",
        ),
    ],
)
def test_filters_that_cannot_be_meant_are_refused(filters, message):
    with pytest.raises(ValueError, match=message):
        check_config(PreprocessConfig(filters=filters))


def test_a_column_that_is_missing_is_named_with_the_way_to_get_it(corpus, tmp_path):
    with pytest.raises(Exception, match=r"no column 'language_score'.*clean.language.documents"):
        run(make_config(corpus, FilterConfig(min_language_score=0.5)), tmp_path)


@pytest.mark.parametrize(
    ("url", "blocked"),
    [
        ("https://www.Spam.org/a", True),
        ("http://user@deep.sub.spam.org:80?x", True),
        ("spam.org/page", True),
        ("https://notspam.org", False),
        ("https://fine.org/spam.org", False),
        ("https://fine.org/adult/1", True),
        (None, False),
    ],
)
def test_domains_block_their_subdomains_and_parts_block_anywhere(url, blocked):
    listed = UrlBlockList(["# comment", "spam.org", "/adult/", ""])

    assert listed.blocks(url) is blocked


def test_statistics_are_a_struct_of_counts(corpus, tmp_path):
    clean = CleanConfig(annotate=AnnotationConfig(statistics=True))
    run(make_config(corpus, FilterConfig(), clean=clean), tmp_path, until="clean")

    table = pq.read_table(tmp_path / "documents", columns=["statistics"])
    assert pa.types.is_struct(table["statistics"].type)
    assert table["statistics"].to_pylist()[12]["words"] == 6
