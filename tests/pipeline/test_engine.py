"""Ids of our engine are those of `tokenizers`, for small tokenizers that are trained here."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers, processors

from gristmill.pipeline.engine import byte_level, frame
from gristmill.pipeline.tokenizer import Tokenizer

from .engine_oracle import (
    CONTEXTS,
    FAMILIES,
    added,
    assert_same,
    documents,
    every_scalar,
    exhaustive,
    mixture,
    open_door,
    train,
    vocabulary_strings,
)


@pytest.fixture(scope="module")
def texts(sample_texts: list[tuple[str, str]]) -> list[str]:
    return [text for _, text in sample_texts]


@pytest.fixture(scope="module")
def ours(texts: list[str]) -> Library:
    return train("cl100k", texts)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_of_pre_tokenizers_gives_the_same_ids(
    family: str, texts: list[str], tmp_path: Path
) -> None:
    library = train(family, texts, nfc=family in ("qwen3", "deepseek"))
    tokenizer = open_door(library, tmp_path)

    assert_same(tokenizer, texts)
    assert_same(tokenizer, mixture(1500, 1))
    assert_same(tokenizer, vocabulary_strings(library, 500, 2))
    assert_same(tokenizer, list(every_scalar(CONTEXTS[:2], step=61)))
    assert_same(tokenizer, list(exhaustive(2)))
    assert tokenizer.decode(tokenizer.encode_batch([texts[0]])[0]) == texts[0]


def test_a_memo_that_is_wiped_and_overwritten_all_the_time_changes_no_id(
    ours: Library, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_level, "SHORT_LINES", 2)
    monkeypatch.setattr(byte_level, "LONG_LINES", 2)
    monkeypatch.setattr(byte_level, "ARENA", 700)
    tokenizer = open_door(ours, tmp_path)

    assert_same(tokenizer, texts + mixture(500, 3))
    state, _ = tokenizer._fast._workers[0]
    assert state.memo.counts[3] > 10


@pytest.mark.parametrize("threads", [1, 3])
def test_a_long_document_is_cut_and_its_ids_stay(
    threads: int, ours: Library, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours.add_special_tokens(["<s>"])
    ours.post_processor = processors.TemplateProcessing(
        single="<s> $A <s>", special_tokens=[("<s>", ours.token_to_id("<s>"))]
    )
    monkeypatch.setattr(frame, "CHUNK_BYTES", 300)
    tokenizer = open_door(ours, tmp_path, threads=threads)
    chance = random.Random(4)
    mixed = ["", "a", "", *mixture(200, 5), "\n".join(texts[:30]), "x" * 5000, ""]
    chance.shuffle(mixed)

    assert len(tokenizer._fast._chunks(*documents(mixed))) > 30
    assert_same(tokenizer, mixed)
    assert_same(tokenizer, mixed, special=True)


def test_a_megabyte_without_a_cut_takes_a_moment(ours: Library, tmp_path: Path) -> None:
    chance = random.Random(6)
    tokenizer = open_door(ours, tmp_path)
    long = "".join(chance.choices("abcdefgh", k=1_000_000))
    data, offsets = documents([long, "=" * 300_000])

    ids, bounds = tokenizer.encode(data, offsets)

    assert not tokenizer.too_long(data, offsets).any()
    assert tokenizer.decode(ids[: bounds[1]]) == long
    assert_same(tokenizer, [long[:20_000], "=" * 20_000])


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("nfc", [False, True])
def test_added_tokens_with_every_flag_give_the_same_ids(
    normalized: bool, nfc: bool, texts: list[str], tmp_path: Path
) -> None:
    library = train("gpt2", texts[:40], nfc=nfc)
    for number in range(16):
        single, left, right, special = (bool(number >> bit & 1) for bit in range(4))
        token = added(
            f"[t{number}]" if number % 3 else f"w{number}é",
            single_word=single,
            lstrip=left,
            rstrip=right,
            normalized=normalized,
            special=special,
        )
        (library.add_special_tokens if special else library.add_tokens)([token])
    library.add_tokens([added("[t"), added("[t1]x", normalized=normalized), added(" sp")])
    library.add_tokens([added("e\u0301t", normalized=True), added("\n\n", rstrip=True)])
    names = [t.content for t in library.get_added_tokens_decoder().values()]
    chance = random.Random(7)
    atoms = [*names, *names, " ", "  ", "\u00a0", "\n", "a", "_", "é", "e\u0301", ".", "中", "\u200d"]
    made = ["".join(chance.choices(atoms, k=chance.randint(1, 12))) for _ in range(3000)]

    assert_same(open_door(library, tmp_path / "tokens"), made)
    assert_same(open_door(library, tmp_path / "text", special_strings="as_text"), made)


def test_special_strings_in_a_text_are_tokens_or_text_and_are_counted(
    ours: Library, tmp_path: Path
) -> None:
    as_tokens = open_door(ours, tmp_path)
    as_text = open_door(ours, tmp_path, special_strings="as_text")
    eod = ours.token_to_id("<|endoftext|>")

    assert as_tokens.encode_batch(["a<|endoftext|>b"])[0].tolist().count(eod) == 1
    assert as_tokens.num_special_strings == 1
    assert eod not in as_text.encode_batch(["a<|endoftext|>b"])[0].tolist()
    assert as_text.num_special_strings == 0
    with pytest.raises(ValueError, match="special_strings is 'maybe'"):
        Tokenizer(str(tmp_path), special_strings="maybe")  # type: ignore[arg-type]


def test_a_space_before_each_text_and_missing_bytes_are_as_in_the_library(
    texts: list[str], tmp_path: Path
) -> None:
    library = train("gpt2", texts[:40])
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    assert_same(open_door(library, tmp_path / "space"), ["", " a", "a", "\n", *texts[:50]])

    vocabulary = {"a": 0, "b": 1, "Ġ": 2, "ä": 3, "¸": 4, "ab": 5, "ä¸": 6, "aa": 7}
    merges = [("a", "b"), ("ä", "¸"), ("a", "a")]
    missing = Library(models.BPE(vocabulary, merges))
    missing.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    assert_same(open_door(missing, tmp_path / "missing"), ["aXb", "a中b", "中", "aéa b", "zzz", ""])


def test_a_pair_listed_twice_keeps_its_last_rank_and_ignored_merges_find_whole_pieces(
    tmp_path: Path,
) -> None:
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5, "cab": 6}
    merges = [("a", "b"), ("b", "c"), ("a", "b")]
    for ignore in (False, True):
        library = Library(models.BPE(vocabulary, merges, ignore_merges=ignore))
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        tokenizer = open_door(library, tmp_path / str(ignore))
        assert_same(tokenizer, ["abc", "abcab", "cab", "aab bca", "abc\ncab", "cabcabcabcabcabcab"])


def test_what_the_engine_does_not_reproduce_goes_to_the_library_and_is_named(
    ours: Library, texts: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours.normalizer = normalizers.Lowercase()
    ours.save(str(tmp_path / "tokenizer.json"))

    with caplog.at_level(logging.WARNING):
        tokenizer = Tokenizer(str(tmp_path))

    assert tokenizer.engine == "tokenizers"
    assert "does not reproduce the normalizer Lowercase" in caplog.text
    assert_same(tokenizer, texts[:20])
    ours.normalizer = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("raw", "document", "place"),
    [
        ([b"good", b"ba\xffd"], 1, 2),
        ([b"\xe4\xb8", b"\xad"], 0, 0),
        ([b"a" * 200 + b"\xed\xa0\x80"], 0, 200),
        ([b"\xc0\xaf" + b"b" * 100], 0, 0),
        ([b"", b"ok", b"a" * 70 + b"\xf4\x90\x80\x80"], 2, 70),
    ],
)
def test_text_that_is_not_utf_8_is_refused_by_document_and_byte(
    raw: list[bytes], document: int, place: int, ours: Library, tmp_path: Path
) -> None:
    tokenizer = open_door(ours, tmp_path)
    offsets = np.cumsum([0, *map(len, raw)])

    with pytest.raises(ValueError, match=f"document {document} .* at its byte {place}:"):
        tokenizer.encode(np.frombuffer(b"".join(raw), np.uint8), offsets)
