"""Ids of our engine are those of `tokenizers`, for real tokenizers and real texts (../shared)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tokenizers

from gristmill.kernels.tokenizer.classes import load_classes, load_unicode
from gristmill.pipeline.engine import byte_level, probe_unicode

from .engine_oracle import (
    CONTEXTS,
    assert_same,
    corpus_texts,
    every_scalar,
    exhaustive,
    mixture,
    shared_tokenizer,
    vocabulary_strings,
)

BYTE_LEVEL = ("gpt2", "llama3", "qwen3", "gptoss", "deepseek_v3")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "deepseek_v3"])
def test_real_tokenizers_give_the_same_ids(name: str, shared: Path) -> None:
    tokenizer = shared_tokenizer(shared, name)
    assert tokenizer.engine == "gristmill"

    assert_same(tokenizer, mixture(2000, 1))
    for texts in corpus_texts(shared, 20_000):
        assert_same(tokenizer, [text[:20_000] for text in texts[:10]], special=True)


@pytest.mark.deep
@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_real_tokenizers_give_the_same_ids_for_the_whole_corpus(name: str, shared: Path) -> None:
    tokenizer = shared_tokenizer(shared, name)
    for texts in corpus_texts(shared, 1 << 40):
        assert_same(tokenizer, texts)


@pytest.mark.deep
@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_real_tokenizers_give_the_same_ids_for_every_code_point(name: str, shared: Path) -> None:
    assert_same(shared_tokenizer(shared, name), list(every_scalar(CONTEXTS)))


@pytest.mark.deep
@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_real_tokenizers_give_the_same_ids_for_all_short_strings(name: str, shared: Path) -> None:
    texts: list[str] = []
    tokenizer = shared_tokenizer(shared, name)
    for text in exhaustive(5):
        texts.append(text)
        if len(texts) == 200_000:
            assert_same(tokenizer, texts)
            texts.clear()
    assert_same(tokenizer, texts)


@pytest.mark.deep
@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_real_tokenizers_give_the_same_ids_for_words_of_their_vocabularies(
    name: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_level, "SHORT_LINES", 64)
    monkeypatch.setattr(byte_level, "LONG_LINES", 16)
    monkeypatch.setattr(byte_level, "ARENA", 5000)  # wiped all the time
    tokenizer = shared_tokenizer(shared, name)

    assert_same(tokenizer, vocabulary_strings(tokenizer._library, 100_000, 2))


def test_the_class_tables_are_those_of_the_installed_library() -> None:
    stage1, stage2 = load_classes()
    table = stage2.reshape(-1, 256)[stage1].reshape(-1)
    asked = np.unique(np.r_[0:0x3000, np.flatnonzero(np.diff(table.astype(int))), 0x10FFFF])
    asked = asked[(asked < 0xD800) | (asked > 0xDFFF)]

    probed = probe_unicode.probe_classes(asked)

    different = [f"U+{code:04X}" for code in asked[probed[asked] != table[asked]].tolist()]
    assert not different, (
        f"tokenizers {tokenizers.__version__} sees {len(different)} code points otherwise than "
        f"{load_unicode()['version']}, whose tables are shipped: {different[:20]}. Run "
        "python -m gristmill.pipeline.engine.probe_unicode"
    )


@pytest.mark.deep
def test_all_tables_are_those_of_the_installed_library() -> None:
    stage1, stage2 = load_classes()
    table = stage2.reshape(-1, 256)[stage1].reshape(-1)

    assert (probe_unicode.probe_classes() == table).all()
    for name, array in probe_unicode.probe_normalization().items():
        assert (array == load_unicode()[name]).all(), name
