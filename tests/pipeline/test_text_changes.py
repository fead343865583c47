"""What cleaning changes or finds in texts: addresses, lines of C4, wrong code pages, languages."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gristmill.pipeline.c4_lines import keep_c4_lines
from gristmill.pipeline.config import CleanConfig, PreprocessConfig, SourceConfig
from gristmill.pipeline.filter_config import FilterConfig, GopherQualityConfig
from gristmill.pipeline.language_identification import LanguageIdentifier, script_of
from gristmill.pipeline.normalize import Normalizer, clean_text
from gristmill.pipeline.recipe import preprocess
from gristmill.pipeline.redaction import Redactor
from gristmill.pipeline.text_config import IdentificationConfig, RedactionConfig

BOTH = RedactionConfig(
    emails=True, ip_addresses=True, email_placeholder="<E>", ip_placeholder="<I>"
)


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("mail to jo.doe+x@mail.example.co.uk, please", "mail to <E>, please"),
        ("a@b, @name, x@y.z1 and 3@4", "a@b, @name, x@y.z1 and 3@4"),
        ("DNS is 8.8.8.8.", "DNS is <I>."),
        ("10.0.0.1 192.168.1.1 127.0.0.1 192.0.2.7", "10.0.0.1 192.168.1.1 127.0.0.1 192.0.2.7"),
        ("version 1.2.3.4.5 and 300.1.1.1", "version 1.2.3.4.5 and 300.1.1.1"),
        ("at 2001:4860:4860::8888 or fe80::1", "at <I> or fe80::1"),
        ("10:30:15 and a::b", "10:30:15 and a::b"),
    ],
)
def test_addresses_of_people_go_and_those_of_nobody_stay(text, redacted):
    assert Redactor(BOTH)(text.encode()).decode() == redacted


def test_candidates_for_redaction_are_never_too_few():
    texts = ["a@b.org", "none: here", "8.8.8.8", "2001:4860:4860::8888", "x"]
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    offsets = np.cumsum([0, *map(len, texts)])

    assert Redactor(BOTH).candidates(data, offsets).tolist() == [0, 2, 3]


def test_redaction_is_linear_in_texts_made_to_be_slow():
    redactor = Redactor(BOTH)
    started = time.thread_time()
    for text in (
        b"a" * 1_000_000 + b"@",
        b"a." * 500_000 + b"@b",
        b"1." * 500_000,
        b":" * 1_000_000,
    ):
        redactor(text)
    assert time.thread_time() - started < 20


def test_c4_keeps_sentences_and_cuts_citations():
    text = (
        "Menu\nThis line stays.[1]\nNo end here\nWe use cookies on this page.\nSo does “this one”."
    )
    assert keep_c4_lines(text) == "This line stays.\nSo does “this one”."
    assert keep_c4_lines("No end here", any_ending=True) == "No end here"


def test_mojibake_is_repaired_where_it_is_asked_for():
    pytest.importorskip("ftfy")
    broken = "plain\nschÃ¶n fÃ¼r dÃ©jÃ  vu"
    data = np.frombuffer(broken.encode(), np.uint8)
    config = CleanConfig(mojibake=True)

    assert clean_text(broken, CleanConfig()) == broken
    assert clean_text(broken, config).startswith("plain\nschön für déj")
    changed = Normalizer(config)(data, np.array([0, len(data)]))
    assert changed[0].decode() == clean_text(broken, config)


IDENTIFIED = {
    "eng_Latn": "The weather was fine and so we went for a long walk by the river in the evening.",
    "deu_Latn": "Das Wetter war schön, und so gingen wir am Abend lange am Fluss spazieren.",
    "rus_Cyrl": "Погода была хорошая, и вечером мы долго гуляли вдоль реки.",
    "tha_Thai": "อากาศดี เราจึงไปเดินเล่นริมแม่น้ำกันนานในตอนเย็น",
    "cmn_Hani": "天气很好，所以我们傍晚沿着河边散步了很久。",
    "jpn_Jpan": "天気が良かったので、夕方に川沿いを長い間散歩しました。",
}


@pytest.mark.parametrize(("language", "text"), IDENTIFIED.items())
def test_languages_are_identified_in_our_normal_form(language, text):
    found, score = LanguageIdentifier(IdentificationConfig(documents="all"))(text.encode())

    assert found == language
    assert 0.5 < score <= 1.0


def test_the_script_comes_from_the_text():
    assert script_of("Добар дан, како сте?") == "Cyrl"
    assert script_of("123 ...") == ""


def test_given_languages_stay_and_missing_ones_are_found(tmp_path):
    rows = [{"text": text} for text in IDENTIFIED.values()]
    rows += [{"text": IDENTIFIED["deu_Latn"], "language": "en"}, {"text": "123"}]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(documents: str) -> tuple[list[str], list[float | None], list[list[object]]]:
        config = PreprocessConfig(
            sources=(SourceConfig(path=str(path)),),
            clean=CleanConfig(language=IdentificationConfig(documents=documents)),
        )
        report = preprocess(config, output=tmp_path / documents, workers=1, until="clean")
        table = pq.read_table(tmp_path / documents / "documents")
        languages = table["language"].to_pylist()
        return languages, table["language_score"].to_pylist(), report.curation["mismatches"]

    languages, scores, mismatches = run("missing")
    assert languages == [*IDENTIFIED, "eng_Latn", "und_Zyyy"]
    assert scores[6] is None
    assert mismatches == []
    languages, scores, mismatches = run("all")
    assert languages[6] == "eng_Latn"
    assert mismatches == [["eng_Latn", "deu_Latn", 1]]


def test_a_model_that_is_not_there_is_said_before_anything_is_read(tmp_path):
    clean = CleanConfig(language=IdentificationConfig(documents="all", model="no/model.bin"))
    config = PreprocessConfig(sources=(SourceConfig(path=str(tmp_path)),), clean=clean)
    with pytest.raises(ValueError, match=r"no/model.bin does not exist"):
        preprocess(config, output=tmp_path / "out", workers=1)


def test_pathological_documents_pass_in_bounded_time(tmp_path: Path):
    """One character a million times, megabytes without a space, white space, lone surrogates."""
    rows = ["x" * 1_000_000, "ab@" * 3_300_000, " \n" * 500_000, "漢" * 1_000_000, "1." * 500_000]
    path = tmp_path / "in.jsonl"
    lines = [json.dumps({"text": text}) for text in rows] + ['{"text": "bad \\ud800 escape"}']
    lines += [json.dumps({"text": "the same text again and again"})] * 100_000
    path.write_text("\n".join(lines))
    config = PreprocessConfig(
        sources=(SourceConfig(path=str(path), language="en"),),
        clean=CleanConfig(redaction=BOTH, language=IdentificationConfig(documents="all")),
        filters=FilterConfig(gopher_quality=GopherQualityConfig(enabled=True)),
    )
    started = time.process_time()
    report = preprocess(config, output=tmp_path / "out", workers=1, until="filters")

    assert time.process_time() - started < 60
    assert report.total.documents_in == 100_006
    assert report.total.dropped == {"gopher_quality": 100_004, "empty": 1, "rejected_utf8": 1}
