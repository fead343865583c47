"""The whole way: a folder of text becomes token files, a trained model, and a continuation."""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.indexed_dataset import IndexedDataset, find_prefixes

Rows = list[dict[str, object]]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "gristmill.cli", *words]


def run(*words: str) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def bytes_of(output: Path) -> dict[str, str]:
    """Return path -> digest of every product and intermediate file of a run."""
    digests = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        # lock, log and the resolved config (its folder) are about the run, not about the data
        if path.is_file() and not name.startswith(("work/lock", "work/log/", "config.toml")):
            digests[name] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return digests


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, sample_texts: list[tuple[str, str]]) -> Path:
    """A folder of JSONL in six languages: pieces shuffled into new documents, some repeated."""
    folder = tmp_path_factory.mktemp("corpus")
    chance = random.Random(1)
    languages = ["eng_Latn", "rus_Cyrl", "hin_Deva", "tha_Thai", "arb_Arab", "cmn_Hans"]
    have = {language for language, _ in sample_texts}
    chosen = [language for language in languages if language in have]
    assert len(chosen) >= 4, sorted(have)
    for language in chosen:
        words = [word for name, text in sample_texts if name == language for word in text.split()]
        rows: Rows = []
        for number in range(60):
            text = " ".join(chance.choices(words, k=80))
            rows.append({"id": f"{language}-{number}", "text": text, "lang": language})
        rows.append(dict(rows[0], id="copy"))
        near = str(rows[1]["text"]) + " end"
        rows.append({"id": "near", "text": near, "lang": language})
        rows.append({"id": "blank", "text": "  ", "lang": language})
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        lines.insert(5, "{broken")
        (folder / f"{language}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


SMALL = (
    "--clean.unit-bytes",
    "20000",
    "--tokenizer.vocab-size",
    "600",
    "--pack.validation-fraction",
    "0.1",
)


@pytest.fixture(scope="module")
def preprocessed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("output") / "run"
    run("preprocess", str(corpus), "--output", str(output), "--workers", "1", *SMALL)
    return output


def test_every_document_is_accounted_for(corpus: Path, preprocessed: Path) -> None:
    report = json.loads((preprocessed / "report.json").read_text())
    num_languages = len(list(corpus.glob("*.jsonl")))

    total = report["total"]

    assert total["documents_in"] == 64 * num_languages
    assert total["dropped"] == {
        "empty": num_languages,
        "exact_duplicate": num_languages,
        "near_duplicate": num_languages,
        "rejected_json": num_languages,
    }
    assert total["kept"] == 60 * num_languages
    num_tokens = 0
    for split in ("train", "validation"):
        for prefixes in find_prefixes(preprocessed / "data" / split).values():
            num_tokens += sum(IndexedDataset(prefix).num_tokens for prefix in prefixes)
    assert num_tokens == total["tokens"]


@pytest.mark.slow
def test_two_workers_and_another_order_of_files_give_the_same_bytes(
    corpus: Path, preprocessed: Path, tmp_path: Path
) -> None:
    files = sorted(map(str, corpus.glob("*.jsonl")), reverse=True)

    run("preprocess", *files, "--output", str(tmp_path / "run"), "--workers", "2", *SMALL)

    assert bytes_of(tmp_path / "run" / "data") == bytes_of(preprocessed / "data")
    assert bytes_of(tmp_path / "run" / "verdicts") == bytes_of(preprocessed / "verdicts")
    assert bytes_of(tmp_path / "run" / "documents") == bytes_of(preprocessed / "documents")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["clean", "keys", "tokenize"])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    corpus: Path, preprocessed: Path, tmp_path: Path, stage: str
) -> None:
    output = tmp_path / "run"
    words = ["preprocess", str(corpus), "--output", str(output), "--workers", "2", *SMALL]
    process = subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while process.poll() is None and not list((output / "work" / stage).glob("*.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (output / "report.json").exists(), "the run ended before it could be killed"

    run(*words)

    assert bytes_of(output) == bytes_of(preprocessed)


def test_a_second_run_redoes_nothing(corpus: Path, preprocessed: Path) -> None:
    def times() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for path in preprocessed.rglob("*")
            if path.is_file()
            and path.name not in {"lock", "config.toml", "report.json"}
            and path.parent.name != "log"
        }

    before = times()

    run("preprocess", str(corpus), "--output", str(preprocessed), "--workers", "1", *SMALL)

    assert times() == before


@pytest.mark.slow
def test_sigterm_ends_a_run_with_a_word_and_its_status(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    words = ("preprocess", str(corpus), "--output", str(output), "--workers", "2", *SMALL)
    process = subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list((output / "work" / "clean").glob("*.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 143
    assert "run the same command again to go on" in said
    assert not list(output.rglob("*.tmp-*"))


def test_two_runs_in_one_folder_are_refused(corpus: Path, tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "run" / "work").mkdir(parents=True)
    with (tmp_path / "run" / "work" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            command("preprocess", str(corpus), "--output", str(tmp_path / "run")),
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 1
    assert "another run" in done.stderr


@pytest.mark.slow
def test_a_model_is_trained_on_it_and_continues_a_text(preprocessed: Path) -> None:
    words = (
        "pretrain", "--output", str(preprocessed),
        "--model.hidden-size", "64", "--model.num-layers", "2", "--model.num-heads", "4",
        "--model.num-kv-heads", "2", "--data.sequence-length", "64",
        "--training.global-batch-size", "8", "--training.micro-batch-size", "4",
        "--training.num-steps", "12", "--parallel.tensor-parallel-size", "2",
        "--checkpoint.every-steps", "6",
    )  # fmt: skip

    said = run(*words)
    again = run(*words)
    continued = run("generate", str(preprocessed), "--prompt", "The", "--max-tokens", "8")

    report = json.loads((preprocessed / "pretrain_report.json").read_text())
    assert "bits/byte" in said
    assert "already" in again
    assert report["total"]["bits_per_byte"] > 0
    assert len(report["languages"]) >= 4
    assert continued.startswith("The")


@pytest.mark.slow
def test_inspect_knows_everything_that_a_run_writes(
    corpus: Path, preprocessed: Path, write_jsonl: Callable[[Path, Rows], Path]
) -> None:
    documents = next((preprocessed / "documents").glob("*.parquet"))
    for path, expected in {
        preprocessed: "Documents",
        preprocessed / "data": "eng_Latn",
        preprocessed / "data" / "train" / "eng_Latn": "tokens",
        preprocessed / "data" / "train" / "eng_Latn.bin": "tokens",
        preprocessed / "data" / "tokenizer" / "tokenizer.json": "vocabulary",
        documents: "origin_file",
        preprocessed / "documents": "origin_file",
        preprocessed / "rejected": "rejected_json",
        next((preprocessed / "verdicts").glob("*.parquet")): "duplicate_of",
        next(corpus.glob("*.jsonl")): "text",
        preprocessed / "config.toml": "[preprocess",
    }.items():
        assert expected in run("inspect", str(path)), path
    sample = run("inspect", str(preprocessed), "--sample", "0")
    assert re.search(r"of document \d+ in .*train/\w+, from \w+\.jsonl:\d+\n    '", sample), sample
