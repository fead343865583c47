"""Documents that hold evaluation data: found in every script, named, dropped, cut or marked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.pipeline.check import check_config
from gristmill.pipeline.config import (
    CleanConfig,
    DedupConfig,
    PassagesConfig,
    PreprocessConfig,
    SourceConfig,
    TokenizerConfig,
)
from gristmill.pipeline.decontamination_config import DecontaminationConfig, EvaluationConfig
from gristmill.pipeline.documents import REASONS
from gristmill.pipeline.filter_config import FilterConfig
from gristmill.pipeline.recipe import preprocess

QUESTIONS = {
    "eng_Latn": (
        "Which harbour did the seven grey herons leave when the ferryman counted his coins twice?"
    ),
    "cmn_Hans": (
        "七只灰鹭站在安静的运河边，渡船夫把他的硬币数了两遍，然后慢慢地划向对岸的村庄"
        "，请问村庄叫什么名字？"
    ),
    "tha_Thai": (
        "นกกระสาสีเทาเจ็ดตัวยืนอยู่ริมคลองที่เงียบสงบขณะที่คนแจวเรือนับเหรียญของเขาสองครั้งก่อนจะพายเรือไปหมู่บ้านใด"
    ),
    "hin_Deva": (
        "सात धूसर बगुले शांत नहर के किनारे खड़े थे जबकि नाविक ने अपने सिक्के दो बार गिने थे, वह कहाँ गया?"
    ),
    "arb_Arab": (
        "وقفت سبعة طيور رمادية على طول القناة الهادئة بينما كان صاحب العبارة يعد نقود"
        "ه مرتين متتاليتين، فأين ذهب؟"
    ),
}
FILLER = {
    "eng_Latn": "A notebook was found in the attic, and nobody could say who had written in it.",
    "cmn_Hans": "阁楼里发现了一本笔记本，没有人能说出是谁写的，家里的老人也想不起来了。",
    "tha_Thai": "พบสมุดบันทึกเล่มหนึ่งในห้องใต้หลังคา และไม่มีใครบอกได้ว่าใครเป็นคนเขียน",
    "hin_Deva": "अटारी में एक नोटबुक मिली और कोई नहीं बता सका कि उसमें किसने लिखा था।",
    "arb_Arab": "عُثر على دفتر في العلية ولم يستطع أحد أن يقول من كتب فيه أو متى كان ذلك.",
}


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A document with the question, one with words put into it, and a clean one, of each."""
    rows = []
    for language, question in QUESTIONS.items():
        changed = " 123 ".join(question[n : n + 12] for n in range(0, len(question), 12))
        for text in (question, changed, FILLER[language]):
            around = f"{FILLER[language]}\n{text.upper()}\n{FILLER[language][::-1]}"
            rows.append({"text": around, "language": language})
    return write(tmp_path_factory.mktemp("corpus") / "in.jsonl", rows)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"id": f"q{n}", "question": text, "choices": {"text": ["A", "none of them"], "label": [0]}}
        for n, text in enumerate(QUESTIONS.values())
    ]
    return write(tmp_path_factory.mktemp("evaluations") / "herons.jsonl", rows)


def make_config(
    corpus: Path, *evaluations: Path, filters: FilterConfig | None = None, **options: object
) -> PreprocessConfig:
    sets = tuple(EvaluationConfig(path=str(path), name=path.stem) for path in evaluations)
    settings = DecontaminationConfig(evaluations=sets, **options)
    return PreprocessConfig(
        sources=(SourceConfig(path=str(corpus)),),
        filters=replace(filters or FilterConfig(), decontamination=settings),
        dedup=DedupConfig(near=False),
    )


def run(config: PreprocessConfig, output: Path, until: str = "dedup", workers: int = 1):
    return preprocess(config, output=output, workers=workers, until=until)


def reasons(output: Path) -> list[str | None]:
    table = pq.read_table(output / "verdicts").sort_by("origin_offset")
    return table["reason"].to_pylist()


def matches(output: Path) -> list[dict[str, object]]:
    return pq.read_table(output / "contamination").to_pylist()


def test_a_question_is_found_in_every_script_and_other_words_in_it_hide_it(
    corpus, evaluations, tmp_path
):
    report = run(make_config(corpus, evaluations), tmp_path)

    assert reasons(tmp_path) == ["contaminated", None, None] * 5
    assert report.total.dropped == {"contaminated": 5}
    assert set(report.total.dropped) <= set(REASONS)
    found = matches(tmp_path)
    assert [row["evaluation_row"] for row in found] == [0, 1, 2, 3, 4]
    assert {row["evaluation_file"] for row in found} == {"herons/herons.jsonl"}
    for row in found:
        assert row["share"] > 0.7  # the answers are not there
        assert row["covered_tokens"] == row["longest_run"]
        language = row["language"]
        assert QUESTIONS[language].upper().startswith(row["passage"][:20])


def test_the_report_says_how_much_of_each_evaluation_file_was_found(corpus, evaluations, tmp_path):
    report = run(make_config(corpus, evaluations), tmp_path)

    (herons,) = report.contamination["files"]
    assert herons == {
        "file": "herons/herons.jsonl",
        "rows": 5,
        "searched_rows": 5,
        "documents": 5,
        "rows_found": 5,
    }
    example = report.contamination["examples"][0]
    assert example["origin_file"] == "in.jsonl"
    assert example["evaluation_row"] in range(5)
    assert json.loads((tmp_path / "report.json").read_text())["contamination"]["files"]
    page = (tmp_path / "report.html").read_text()
    assert "herons/herons.jsonl" in page
    assert "herons/herons.jsonl" in (tmp_path / "DATACARD.md").read_text()


def test_annotate_marks_and_keeps(corpus, evaluations, tmp_path):
    report = run(make_config(corpus, evaluations, action="annotate"), tmp_path)

    assert report.total.kept == 15
    failed = pq.read_table(tmp_path / "filters")["failed"].to_pylist()
    assert [names == ["contaminated"] for names in failed] == [True, False, False] * 5


def test_cut_leaves_the_passage_out_of_the_token_files_alone(corpus, evaluations, tmp_path):
    config = make_config(corpus, evaluations, action="cut")
    config = replace(config, tokenizer=TokenizerConfig(vocab_size=300))
    report = run(config, tmp_path, until="pack")

    assert report.total.kept == 15
    assert report.total.cut_documents == 5
    cuts = pq.read_table(tmp_path / "cuts").to_pylist()
    texts = pq.read_table(tmp_path / "documents")["text"].to_pylist()
    assert {cut["kind"] for cut in cuts} == {"evaluation"}
    for cut in cuts:
        assert QUESTIONS["eng_Latn"].upper()[:10] in texts[0]
        text = texts[cut["row"]].encode()
        left = (text[: cut["start"]] + text[cut["end"] :]).decode()
        assert not any(question.upper()[5:25] in left for question in QUESTIONS.values())
    assert report.total.cut_bytes == sum(cut["end"] - cut["start"] for cut in cuts)


def test_kept_documents_are_written_without_what_is_cut(corpus, evaluations, tmp_path):
    passages = PassagesConfig(lines="drop", max_documents=1)
    config = replace(make_config(corpus, evaluations, action="cut"), passages=passages)

    preprocess(config, output=tmp_path, workers=1, until="dedup", write_kept=True)

    kept = pq.read_table(tmp_path / "kept")
    documents = pq.read_table(tmp_path / "documents")["text"].to_pylist()
    texts = kept["text"].to_pylist()
    assert 0 < len(texts) <= len(documents)
    assert all(texts)
    assert any(QUESTIONS["eng_Latn"].upper()[:20] in text for text in documents)
    assert not any(QUESTIONS["eng_Latn"].upper()[:20] in text for text in texts)
    assert kept["text_bytes"].to_pylist() == [len(text.encode()) for text in texts]
    with pytest.raises(ValueError, match="before it is known which documents are kept"):
        preprocess(config, output=tmp_path, workers=1, until="filters", write_kept=True)


def test_cuts_of_evaluation_data_join_those_of_repeated_lines(corpus, evaluations, tmp_path):
    config = make_config(corpus, evaluations, action="cut")
    passages = PassagesConfig(lines="drop", max_documents=1)
    config = replace(config, passages=passages, tokenizer=TokenizerConfig(vocab_size=300))
    report = run(config, tmp_path, until="tokenize")

    kinds = set(pq.read_table(tmp_path / "cuts")["kind"].to_pylist())
    assert kinds <= {"line", "evaluation"}
    assert report.total.documents_in == report.total.kept + sum(report.total.dropped.values())


def test_two_workers_small_units_and_another_order_of_sets_write_the_same_bytes(
    corpus, evaluations, tmp_path
):
    other = write(tmp_path / "second.jsonl", [{"text": text} for text in QUESTIONS.values()])
    clean = CleanConfig(unit_bytes=1_500)
    one = replace(make_config(corpus, evaluations, other), clean=clean)
    two = replace(make_config(corpus, other, evaluations), clean=clean)
    run(one, tmp_path / "one", workers=1)
    run(two, tmp_path / "two", workers=2)

    def content(name: str) -> dict[str, bytes]:
        parts = ("contamination", "filters", "verdicts")
        paths = [p for part in parts for p in (tmp_path / name / part).iterdir()]
        return {str(p.relative_to(tmp_path / name)): p.read_bytes() for p in paths}

    assert content("one") == content("two")
    assert len(content("one")) > 6


def test_other_evaluation_data_searches_again_and_other_thresholds_do_not(
    corpus, evaluations, tmp_path
):
    copy = write(tmp_path / "herons.jsonl", [{"question": QUESTIONS["eng_Latn"]}])
    run(make_config(corpus, copy), tmp_path / "out")
    assert reasons(tmp_path / "out").count("contaminated") == 1
    marker = next((tmp_path / "out" / "work" / "contamination").glob("*.json"))
    before = marker.stat().st_mtime_ns

    run(make_config(corpus, copy, action="annotate"), tmp_path / "out")
    assert marker.stat().st_mtime_ns == before

    copy.write_bytes(evaluations.read_bytes())
    run(make_config(corpus, copy), tmp_path / "out")
    assert reasons(tmp_path / "out").count("contaminated") == 5

    run(replace(make_config(corpus, copy), filters=FilterConfig()), tmp_path / "out")
    assert reasons(tmp_path / "out").count("contaminated") == 0
    assert not list((tmp_path / "out" / "contamination").iterdir())


def test_a_share_of_the_row_can_be_asked_for(corpus, tmp_path):
    long = QUESTIONS["eng_Latn"] + " " + " ".join(f"word{n}" for n in range(100))
    evaluation = write(tmp_path / "long.jsonl", [{"question": long}])

    run(make_config(corpus, evaluation), tmp_path / "any")
    run(make_config(corpus, evaluation, min_share=0.5), tmp_path / "half")

    assert reasons(tmp_path / "any").count("contaminated") == 1
    assert reasons(tmp_path / "half").count("contaminated") == 0


def test_fields_tables_texts_and_arrays_are_read_and_others_left_out(corpus, tmp_path):
    question = QUESTIONS["eng_Latn"]
    table = pa.table({"question": [question], "source": [FILLER["eng_Latn"] + question]})
    pq.write_table(table, tmp_path / "table.parquet")
    (tmp_path / "plain.txt").write_text(f"\n{question}\n")
    (tmp_path / "array.json").write_text(json.dumps([{"x": "short"}, {"x": [question]}], indent=1))
    files = [tmp_path / name for name in ("table.parquet", "plain.txt", "array.json")]

    run(make_config(corpus, *files), tmp_path / "out")

    found = {(row["evaluation_file"], row["evaluation_row"]) for row in matches(tmp_path / "out")}
    assert found == {("table/table.parquet", 0), ("plain/plain.txt", 1), ("array/array.json", 1)}
    one = EvaluationConfig(path=str(files[0]), fields=("missing",))
    settings = DecontaminationConfig(evaluations=(one,))
    config = replace(make_config(corpus), filters=FilterConfig(decontamination=settings))
    with pytest.raises(Exception, match=r"no row has the field 'missing'.*question, source"):
        run(config, tmp_path / "missing")


def test_a_broken_row_of_evaluation_data_is_an_error_that_says_where(corpus, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"a": "b"}\n{"a": \n')
    with pytest.raises(Exception, match=r"broken.jsonl, row 1: .*is not looked for"):
        run(make_config(corpus, broken), tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"words": 0}, "words is 0"),
        ({"short_words": 0}, "short_words is 0"),
        ({"min_share": 1.5}, "min_share is 1.5"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        check_config(make_config(Path("x"), **options))


def test_nothing_of_real_documents_is_taken_for_sentences_of_other_ones(shared, tmp_path):
    """Sentences of held-out documents are evaluation data; the rest of the corpus has none."""
    import zstandard

    rows = []
    for name in ("en", "zh", "th", "hi", "ar"):
        path = shared / "corpora" / "dev" / f"{name}.jsonl.zst"
        if not path.is_file():
            continue
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            rows += [json.loads(next(file)) for _ in range(12)]
    held = [row["text"][500:3_000] for row in rows[::2]]
    kept = write(tmp_path / "in.jsonl", [{"text": row["text"][:200_000]} for row in rows[1::2]])
    evaluation = write(tmp_path / "held.jsonl", [{"text": text} for text in held])

    run(make_config(kept, evaluation), tmp_path / "out")

    for row in matches(tmp_path / "out"):  # what is found stands in both, to the letter
        text = held[row["evaluation_row"]]
        assert row["passage"].split()[0].lower() in text.lower()
    assert reasons(tmp_path / "out").count("contaminated") <= 1
