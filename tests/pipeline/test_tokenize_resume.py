"""`gristmill tokenize` killed, stopped, or run with other settings: the same bytes in the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from gristmill.indexed_dataset import IndexedDataset, PrefixBusyError, verify
from gristmill.pipeline import encode_inputs, lines, token_journal
from gristmill.pipeline.executors import UnitError
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.token_journal import EncodedKey, EncodedPart, TokenJournal
from gristmill.pipeline.tokenize_inputs import tokenize_files
from gristmill.pipeline.train_tokenizer import special_tokens, train_bpe

TEXTS = [f"text {n}: " + "some words and 12 more " * (n % 5) + "é中\n" for n in range(200)]
Write = Callable[[Path, list[dict[str, object]]], Path]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    content = train_bpe(TEXTS, vocab_size=350, special_tokens=special_tokens("<|endoftext|>"))
    (folder / "tokenizer.json").write_text(content)
    return str(folder)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files of a few kilobytes take many tasks and blocks."""
    monkeypatch.setattr(encode_inputs, "TASK_BYTES", 1000)
    monkeypatch.setattr(lines, "CHUNK_BYTES", 500)


@pytest.fixture
def inputs(tmp_path: Path, write_jsonl: Write) -> list[Path]:
    """Return a plain file, a compressed one with a bad line, and a small one."""
    rows: list[dict[str, object]] = [{"text": text, "more": text[:9]} for text in TEXTS]
    plain = write_jsonl(tmp_path / "a.jsonl", rows[:90])
    content = write_jsonl(tmp_path / "t", rows[90:190]).read_bytes().split(b"\n")
    packed = tmp_path / "b.jsonl.zst"
    packed.write_bytes(zstandard.compress(b"\n".join([*content[:30], b"{", *content[30:]])))
    return [plain, packed, write_jsonl(tmp_path / "c.jsonl", rows[190:])]


def tokenize(inputs: list[Path], prefix: Path, tokenizer: str, **options: object) -> list[Path]:
    options = {"workers": 1, "progress": Progress(quiet=True), "append_eod": True} | options
    options |= {"commit_seconds": 0.0, "piece_bytes": 2000}
    return tokenize_files([str(path) for path in inputs], prefix, tokenizer, **options)


def content(prefix: Path) -> dict[str, bytes]:
    return {
        path.name.removeprefix(prefix.name): path.read_bytes()
        for path in prefix.parent.glob(f"{prefix.name}[._]*")
        if path.is_file()
    }


class StoppedError(Exception):
    """What the tests stop a run with."""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.usefixtures("small_steps")
def test_a_run_that_is_stopped_after_any_task_goes_on_to_the_same_bytes(
    tmp_path: Path, inputs: list[Path], tokenizer: str, monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:  # fmt: skip
    options = {"json_keys": ("text", "more"), "workers": workers}
    tokenize(inputs, tmp_path / "whole", tokenizer, **options)
    original = TokenJournal.add
    starts, calls = [], [0]

    def add(self: TokenJournal, *arguments: object, **named: object) -> None:
        if calls[0] == 0:
            starts.append((self.entry.piece, self.entry.blocks))
        calls[0] += 1
        original(self, *arguments, **named)  # type: ignore[arg-type]
        if calls[0] == 2:
            raise StoppedError  # what was added is committed: commit_seconds is 0

    monkeypatch.setattr(TokenJournal, "add", add)
    for _ in range(100):
        calls[0] = 0
        try:
            tokenize(inputs, tmp_path / "out", tokenizer, **options)
            break
        except StoppedError:
            assert not (tmp_path / "out_text.idx").exists()
    else:
        pytest.fail("the run never ended")

    assert len(starts) > 5
    assert starts == sorted(set(starts)), "a run began before the end of the one in front of it"
    assert any(blocks > 0 for _, blocks in starts), "no run began inside of a piece"
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert not (tmp_path / "out.work").exists()
    assert verify(tmp_path / "out_text", full=True).ok


@pytest.mark.usefixtures("small_steps")
def test_bytes_behind_the_last_entry_of_the_journal_are_cut_off(
    tmp_path: Path, inputs: list[Path], tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenize(inputs, tmp_path / "whole", tokenizer)
    original = TokenJournal.commit

    def commit(self: TokenJournal) -> None:
        original(self)
        if self.entry.documents > 60:
            for stream in self._files.values():
                stream.write(b"half a task")
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(TokenJournal, "commit", commit)
        with pytest.raises(StoppedError):
            tokenize(inputs, tmp_path / "out", tokenizer)

    tokenize(inputs, tmp_path / "out", tokenizer)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.usefixtures("small_steps")
def test_a_killed_process_leaves_what_the_next_one_finishes(
    tmp_path: Path, inputs: list[Path], tokenizer: str
) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=_tokenize_slowly, args=(inputs, tmp_path / "out", tokenizer)
    )
    process.start()
    journal = tmp_path / "out.work" / "journal.json"
    while process.is_alive() and not (journal.exists() and _documents(journal) > 20):
        time.sleep(0.001)
    os.kill(process.pid or 0, 9)
    process.join()
    assert not (tmp_path / "out.idx").exists(), "the run ended before it could be killed"
    assert _documents(journal) > 20
    seen = []

    class Watching(Progress):
        def stage(self, name, total_bytes, *, num_units, num_skipped):
            seen.append(num_skipped)
            return super().stage(name, total_bytes, num_units=num_units, num_skipped=num_skipped)

    tokenize(inputs, tmp_path / "out", tokenizer, progress=Watching(quiet=True))
    tokenize(inputs, tmp_path / "whole", tokenizer)
    assert seen[0] > 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def _tokenize_slowly(paths: list[Path], prefix: Path, tokenizer: str) -> None:
    original = TokenJournal.commit

    def commit(self: TokenJournal) -> None:
        original(self)
        time.sleep(0.2)

    TokenJournal.commit = commit  # type: ignore[method-assign]  # in the child alone
    tokenize(paths, prefix, tokenizer)


def _documents(journal: Path) -> int:
    return int(json.loads(journal.read_bytes())["documents"])


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("change", ["settings", "input", "damaged journal", "lost tokens"])
def test_nothing_of_another_run_is_taken_over(
    tmp_path: Path, inputs: list[Path], tokenizer: str, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    def fail(self: TokenJournal, *_: object, **__: object) -> None:
        original(self, *_, **__)  # type: ignore[arg-type]
        if self.entry.documents > 60:
            raise StoppedError

    original = TokenJournal.add
    with monkeypatch.context() as patch:
        patch.setattr(TokenJournal, "add", fail)
        with pytest.raises(StoppedError):
            tokenize(inputs, tmp_path / "out", tokenizer, append_eod=False)
    options = {"append_eod": False}
    if change == "settings":
        options = {"append_eod": True}
    elif change == "input":
        inputs[0].write_text(json.dumps({"text": "another text"}) + "\n")
    elif change == "damaged journal":
        (tmp_path / "out.work" / "journal.json").write_text('{"piece": 1')
    else:
        os.truncate(tmp_path / "out.work" / "0.bin", 10)

    tokenize(inputs, tmp_path / "out", tokenizer, **options)
    tokenize(inputs, tmp_path / "whole", tokenizer, **options)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_two_runs_of_one_prefix_do_not_write_into_each_other(
    tmp_path: Path, inputs: list[Path], tokenizer: str
) -> None:
    with (
        TokenJournal(tmp_path / "out.work", "x", 1, np.dtype("<u2")),
        pytest.raises(PrefixBusyError, match="another process"),
    ):
        tokenize(inputs, tmp_path / "out", tokenizer)

    tokenize(inputs, tmp_path / "out", tokenizer)
    assert IndexedDataset(tmp_path / "out").num_documents == 200


def test_the_journal_goes_on_with_checksums_in_the_middle_of_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_journal, "CHECKSUM_BLOCK_BYTES", 32)
    monkeypatch.setattr(token_journal.BlockHasher.__init__, "__defaults__", (32, ()))

    def add(journal: TokenJournal, number: int) -> None:
        tokens = np.arange(number, number + 5, dtype=np.uint16)
        key = EncodedKey(
            tokens=tokens, lengths=np.array([5], np.int32), text_bytes=9, max_token_id=number + 4
        )
        origin = np.array([[0, number]], np.int64)
        part = EncodedPart(keys=[key], origins=origin)
        journal.add([part], [], position=(number + 1, 0), input_bytes=1)

    with TokenJournal(tmp_path / "whole", "x", 1, np.dtype("<u2")) as journal:
        for number in range(12):
            add(journal, number)
        expected = journal.blocks(0)
    for number in range(12):
        with TokenJournal(tmp_path / "out", "x", 1, np.dtype("<u2"), 0.0) as journal:
            assert journal.entry.piece == number
            add(journal, number)
            found = journal.blocks(0)

    assert found == expected
    assert len(found) == 4


def test_a_fault_names_the_file(
    tmp_path: Path, inputs: list[Path], tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("something is wrong")

    monkeypatch.setattr(encode_inputs.JsonBlockReader, "read", fail)
    with pytest.raises(UnitError, match=r"a\.jsonl: ValueError: something is wrong"):
        tokenize(inputs, tmp_path / "out", tokenizer, workers=2)
