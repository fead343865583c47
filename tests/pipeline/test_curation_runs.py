"""Filters, identification, redaction, decontamination and passages together, as a config has them.

The complete example in configs/ is run on small texts: after kills, by more workers, in another
order of files, and on documents that are made to be slow.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from gristmill.indexed_dataset import find_prefixes

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "multilingual.toml"
QUESTION = (
    "Which of the seven bridges did the clockmaker cross before the lamps were lit that night?"
)
STAGES = (
    pytest.param("evaluations", marks=pytest.mark.deep),
    "contamination",
    pytest.param("quantiles", marks=pytest.mark.deep),
    "filters",
)

Rows = list[dict[str, object]]


def write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, sample_texts: list[tuple[str, str]]) -> Path:
    """A folder with texts/, evaluations/ and the example config, made small."""
    folder = tmp_path_factory.mktemp("multilingual")
    chance = random.Random(2)
    languages = ("eng_Latn", "deu_Latn", "cmn_Hans", "tha_Thai", "arb_Arab", "hin_Deva")
    for language in languages:
        texts = [text for name, text in sample_texts if name == language]
        rows: Rows = []
        for number in range(24 if texts else 0):
            lines = chance.choices(texts, k=4)
            lines.insert(chance.randrange(4), "Mail me@example.org, or use 8.8.8.8 for names.")
            if number % 8 == 0:
                lines.insert(2, QUESTION)
            row = {"text": "\n".join(lines), "url": f"https://{language}.org/{number}"}
            rows.append(row if number % 2 else {**row, "language": language})
        write(folder / "texts" / f"{language}.jsonl", rows)
    write(folder / "evaluations" / "bridges.jsonl", [{"question": QUESTION, "context": "a"}])
    config = CONFIG.read_text()
    for name, value in {
        'output = "runs/multilingual"': f'output = "{folder}/run"',
        '"texts/*.jsonl.zst"': f'"{folder}/texts/*.jsonl"',
        '"evaluations/*.jsonl"': f'"{folder}/evaluations/*.jsonl"',
        "vocab_size = 64_000": "vocab_size = 600",
        "validation_fraction = 0.01": "validation_fraction = 0.1",
        "[preprocess.clean]\n": "[preprocess.clean]\nunit_bytes = 60_000\n",
    }.items():
        assert name in config, name
        config = config.replace(name, value)
    (folder / "small.toml").write_text(config)
    return folder


def command(folder: Path, output: Path, *words: str) -> list[str]:
    config = str(folder / "small.toml")
    main = [sys.executable, "-m", "gristmill.cli", "preprocess", config, "--output"]
    return [*main, str(output), *words]


def run(folder: Path, output: Path, *words: str) -> str:
    done = subprocess.run(command(folder, output, *words), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """The output of one run that was left alone."""
    run(folder, folder / "run", "--workers", "1")
    return folder / "run"


def content(output: Path) -> dict[str, bytes]:
    skipped = ("work/lock", "work/log/", "config.toml")  # about the run, not about the data
    files = {str(path.relative_to(output)): path for path in output.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes()
        for name, path in sorted(files.items())
        if not name.startswith(skipped)
    }


@pytest.mark.slow
def test_the_example_runs_to_token_files_and_accounts_for_every_document(whole: Path) -> None:
    report = json.loads((whole / "report.json").read_text())

    total = report["total"]
    assert total["documents_in"] == total["kept"] + sum(total["dropped"].values())
    assert total["dropped"]["contaminated"] > 0
    assert report["contamination"]["files"][0]["rows_found"] == 1
    assert report["redacted"]["emails"] > 0
    assert report["curation"]["thresholds"]["eng_Latn"]["gopher_quality.min_words"] == 50
    assert find_prefixes(whole / "data" / "train")
    texts = pq.read_table(whole / "documents")["text"].to_pylist()
    assert not any("me@example.org" in text for text in texts)
    card = (whole / "DATACARD.md").read_text()
    assert "benchmarks/bridges.jsonl" in card


@pytest.mark.slow
def test_two_workers_and_another_order_of_files_write_the_same_bytes(
    folder: Path, whole: Path, tmp_path: Path
) -> None:
    files = sorted((str(path) for path in (folder / "texts").iterdir()), reverse=True)
    text = (folder / "small.toml").read_text()
    pattern = f'path = "{folder}/texts/*.jsonl"'
    assert pattern in text
    other = tmp_path / "other"
    other.mkdir()
    (other / "small.toml").write_text(text.replace(pattern, f"path = {json.dumps(files)}"))

    run(other, tmp_path / "out", "--workers", "2")

    assert content(tmp_path / "out") == content(whole)


@pytest.fixture(scope="module")
def filtered(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that was left alone and ended after the filters."""
    output = tmp_path_factory.mktemp("filtered") / "run"
    run(folder, output, "--workers", "1", "--until", "filters")
    return output


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_killed_anywhere_in_the_filters_ends_with_the_same_bytes(
    folder: Path, filtered: Path, tmp_path: Path, stage: str
) -> None:
    chance = random.Random(stage)
    output = tmp_path / "out"
    words = ("--workers", "2", "--until", "filters")
    process = subprocess.Popen(
        command(folder, output, *words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list((output / "work" / stage).glob("*")):
        time.sleep(0.002)
    time.sleep(chance.random() * 0.03)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "report.json").exists(), "it ended before it was killed"

    run(folder, output, *words)

    assert content(output) == content(filtered)


def bounded(process_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (process_bytes, process_bytes))


@pytest.mark.slow
def test_documents_made_to_be_slow_pass_all_filters_in_bounded_time_and_memory(
    folder: Path, tmp_path: Path
) -> None:
    """One character a million times, 10 MB without a space, white space, lone surrogates, copies.

    The evaluation data is as bad: it holds what the documents are made of.
    """
    texts = ["x" * 1_000_000, "ab@" * 3_300_000, " \n" * 500_000, "漢" * 1_000_000, "1. " * 500_000]
    lines = [json.dumps({"text": text}) for text in texts] + ['{"text": "bad \\ud800 escape"}']
    lines += [json.dumps({"text": f"{QUESTION} And so the same text again."})] * 100_000
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "in.jsonl").write_text("\n".join(lines))
    evaluation = [
        {"question": QUESTION, "context": ""},
        {"question": "漢" * 10_000},
        {"question": "1. " * 10_000},
    ]
    write(tmp_path / "evaluations" / "bad.jsonl", [*evaluation, {"question": "x" * 1_000_000}])
    config = (folder / "small.toml").read_text().replace(str(folder), str(tmp_path))
    config = config.replace("unit_bytes = 60_000\n", "").replace(
        "words = 13\n", "words = 13\nmin_share = 0.5\n"
    )
    (tmp_path / "small.toml").write_text(config)
    words = command(tmp_path, tmp_path / "out", "--workers", "1", "--until", "dedup")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        words, capture_output=True, text=True, preexec_fn=lambda: bounded(3_000_000_000)
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    assert done.returncode == 0, done.stdout + done.stderr
    assert after.ru_utime - before.ru_utime < 120
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    total = report["total"]
    assert total["documents_in"] == 100_006
    assert total["documents_in"] == total["kept"] + sum(total["dropped"].values())
    assert total["dropped"]["rejected_utf8"] == 1
    assert total["dropped"]["empty"] == 1
    (bad,) = report["contamination"]["files"]
    assert bad["documents"] > 100_000
    assert bad["rows_found"] == 4
