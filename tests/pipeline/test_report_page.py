"""The report page: complete, self-contained, harmless, and the same bytes every time."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.pipeline import make_pages, recipe
from gristmill.pipeline.config import CleanConfig, DedupConfig, PreprocessConfig, SourceConfig
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.report_page import OPEN_ROWS
from gristmill.pipeline.report_samples import NUM_PAIRS, SAMPLES_PER_REASON

MARKUP = '<script>alert("1")</script></div><img src=x onerror=alert(1)> {{ 7 * 7 }} &amp;'
EVIL = MARKUP + " \x07\x1b[31m"
ARABIC = "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق وقد وهبوا عقلا وضميرا"


def write_corpus(folder: Path) -> PreprocessConfig:
    """Write two sources with documents of every fate in many languages."""
    folder.mkdir()
    with (folder / "web.jsonl").open("w") as file:
        for number in range(400):
            language = ["en", "de", "ar", "th", "hi"][number % 5]
            words = " ".join(f"w{(number - number % 2) * 7919 % 50021 + k * k}" for k in range(40))
            text = f"{words} {'more ' * (number % 2)}\n{ARABIC if language == 'ar' else ''}"
            if number % 10 == 0:
                text = f"{EVIL} {number // 100}" + " the same" * 5
            row = {"text": text, "language": language, "id": f'"><b>{number}', "licence": "CC0"}
            file.write(json.dumps(row) + "\n")
        for number in range(60):
            file.write(json.dumps({"text": "", "language": f"x{number}"}) + "\n")
            file.write(json.dumps({"text": "short", "language": "fr"}) + "\n")
            file.write("{broken\n")
    with (folder / "books.jsonl").open("w") as file:
        for number, code in enumerate(("fr", "es", "it", "pt", "nl", "sv", "da", "fi", "ru", "el")):
            for part in range(5):
                text = " ".join(f"{code}{number * 31 + part * 1009 + k * k}" for k in range(50))
                file.write(json.dumps({"text": text, "lang": code}) + "\n")
    return PreprocessConfig(
        sources=(
            SourceConfig(path=str(folder / "web.jsonl"), name="<i>web</i>", columns=("licence",)),
            SourceConfig(path=str(folder / "books.jsonl"), name="books", licence="CC BY 4.0"),
        ),
        clean=CleanConfig(min_characters=20, control_characters="keep"),
        dedup=DedupConfig(partitions=2),
    )


def run(config: PreprocessConfig, output: Path, until: recipe.UntilStage = "dedup") -> str:
    shown = io.StringIO()
    recipe.preprocess(
        config, output=output, workers=1, until=until, console=Console(file=shown, width=300)
    )
    return shown.getvalue()


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PreprocessConfig:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "texts")


@pytest.fixture(scope="module")
def output(config: PreprocessConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "output"
    said = run(config, folder)
    assert f"{folder / 'report.html'}: the report as a page" in said
    return folder


class Page(HTMLParser):
    """What a browser would see: elements, attributes, and the text outside of styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def test_the_page_loads_and_runs_nothing(output: Path) -> None:
    page = Page(output / "report.html")
    source = (output / "report.html").read_text()

    assert page.open == []
    forbidden = {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "image",
        "use",
    }
    assert not page.tags & forbidden
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        assert name not in {"src", "srcset", "action", "data", "style", "xlink:href"}, (tag, name)
        if name == "href":
            assert value.startswith("#"), value
    assert "url(" not in source
    assert "@import" not in source
    policy = next(v for t, n, v in page.attributes if n == "content" and "default-src" in v)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_links_lead_to_places_of_the_page(output: Path) -> None:
    page = Page(output / "report.html")
    places = [value for _, name, value in page.attributes if name == "id"]

    assert len(set(places)) == len(places)
    assert {value[1:] for _, name, value in page.attributes if name == "href"} <= set(places)


def test_every_reason_source_and_language_of_the_report_is_on_the_page(output: Path) -> None:
    report = json.loads((output / "report.json").read_text())
    text = Page(output / "report.html").text

    expected = {"empty", "too_short", "rejected_json", "exact_duplicate", "near_duplicate"}
    assert set(report["total"]["dropped"]) == expected
    assert len(report["languages"]) >= 14
    for name in (*report["total"]["dropped"], *report["sources"], *report["languages"]):
        assert name in text, name
    for tally in (report["total"], *report["sources"].values(), *report["languages"].values()):
        assert f"{tally['documents_in']:,}" in text
        assert f"{tally['kept']:,}" in text
    for heading in ("Length of documents", "Cluster size", "Similarity of near duplicates"):
        assert heading in text


def test_what_a_document_holds_is_shown_and_not_obeyed(output: Path) -> None:
    text = Page(output / "report.html").text

    assert MARKUP in text
    assert "␇␛[31m" in text
    assert '"><b>' in text
    assert "<i>web</i>" in text


def test_samples_can_be_read_in_their_own_direction_and_language(output: Path) -> None:
    page = Page(output / "report.html")
    texts = [
        value for tag, name, value in page.attributes if tag == "div" and name in {"dir", "lang"}
    ]

    assert texts.count("auto") == sum(value != "auto" for value in texts)
    assert "ar" in texts
    assert ARABIC in page.text


def test_near_duplicates_stand_side_by_side_with_differences_marked(output: Path) -> None:
    page = (output / "report.html").read_text()
    pairs = [part.split("</section>")[0] for part in page.split('<section class="pair">')[1:]]

    assert len(pairs) == NUM_PAIRS
    assert all(pair.count("<article>") == 2 for pair in pairs)
    assert all("<mark>" in pair and "more" in pair for pair in pairs)


def test_a_reason_shows_so_many_samples_however_many_there_are(output: Path) -> None:
    page = (output / "report.html").read_text()
    group = page.split('<h3 id="rejected_json">')[1].split("<h3")[0]

    assert group.count("<article>") == SAMPLES_PER_REASON == 12
    assert '<div class="text" dir="auto" lang="">{broken' in group
    assert "60 documents" in group
    short = page.split('<h3 id="too_short">')[1].split("<h3")[0]
    assert ">short</div>" in short


def test_rows_beyond_the_first_are_folded_away(tmp_path: Path) -> None:
    pairs = "endefresitptnlsvdafiruelukbgcssklphurohrsletlvlttrarhefahibntatemlthlomykmkahyzhjakovi"
    codes = [pairs[place : place + 2] for place in range(0, len(pairs), 2)]
    with (tmp_path / "in.jsonl").open("w") as file:
        for code in codes:
            file.write(json.dumps({"text": f"text {code} " * 9, "lang": code}) + "\n")
    run(PreprocessConfig(sources=(SourceConfig(path=str(tmp_path)),)), tmp_path / "out", "clean")

    page = (tmp_path / "out/report.html").read_text()

    assert f"{len(codes) - OPEN_ROWS} more languages" in page
    assert "The run stopped after the stage <code>clean</code>" in page


@pytest.mark.slow
def test_the_pages_do_not_depend_on_units_or_on_what_lies_in_work(
    config: PreprocessConfig, output: Path, tmp_path: Path
) -> None:
    small = replace(config, clean=replace(config.clean, unit_bytes=9_000))
    run(small, tmp_path / "other")
    units = list((tmp_path / "other/verdicts").iterdir())
    assert len(units) > len(list((output / "verdicts").iterdir()))
    for name in ("report.html", "DATACARD.md"):
        assert (tmp_path / "other" / name).read_bytes() == (output / name).read_bytes(), name

    shutil.rmtree(tmp_path / "other/work")
    (tmp_path / "other/report.html").unlink()
    pages = make_pages(tmp_path / "other", workers=1, progress=Progress(quiet=True))

    assert [page.name for page in pages] == ["report.html", "DATACARD.md"]
    assert pages[0].read_bytes() == (output / "report.html").read_bytes()


def test_columns_that_stages_add_are_shown_as_plots_and_medians(
    output: Path, tmp_path: Path
) -> None:
    shutil.copytree(output, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy/work")
    for path in (tmp_path / "copy/documents").iterdir():
        table = pq.read_table(path)
        numbers = pa.array([n % 10 / 10 for n in range(table.num_rows)])
        for name in ("language_score", *(f"statistic_{n}" for n in range(5))):
            table = table.append_column(name, numbers)
        pq.write_table(table, path)

    make_pages(tmp_path / "copy", workers=1, progress=Progress(quiet=True))

    page = (tmp_path / "copy/report.html").read_text()
    assert "median language_score" in page
    shown = [f"statistic_{n}" in page.split("more columns")[0] for n in range(5)]
    assert shown == [True, True, False, False, False]
    assert page.count("clean documents by this column of documents/</figcaption>") == 6


def test_verdicts_of_an_earlier_run_are_not_shown(config: PreprocessConfig, tmp_path: Path) -> None:
    run(config, tmp_path / "out")
    run(config, tmp_path / "out", until="clean")

    assert "Near duplicates" not in (tmp_path / "out/report.html").read_text()


def test_a_folder_without_a_report_is_told_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no report.json, .* run `gristmill preprocess"):
        make_pages(tmp_path, workers=1)

    (tmp_path / "report.json").write_text('{"total": 1}')
    with pytest.raises(ValueError, match=r"report.json is not a report of this version"):
        make_pages(tmp_path, workers=1)


def test_the_data_card_has_sources_licences_reasons_and_the_policy(output: Path) -> None:
    card = (output / "DATACARD.md").read_text()

    assert "| \\<i\\>web\\</i\\> | CC0 (" in card
    assert "| books | CC BY 4.0 |" in card
    assert "| exact_duplicate |" in card
    assert "Nothing was redacted" in card
    assert "- `threshold`: 0.8" in card
    assert "<script>" not in card
    table = [line.count(" | ") for line in card.splitlines() if line.startswith("| books")]
    assert table == [4, 5]
