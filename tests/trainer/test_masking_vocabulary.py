"""What of a vocabulary is special, where words begin, and which token is the mask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.trainer.vocabulary import masking_vocabulary, name_mask_token


def write(folder: Path, vocabulary: dict[str, int], *added: str, **others: Any) -> Path:
    tokens = [
        {"id": vocabulary.get(text, len(vocabulary) + number), "content": text, "special": True}
        for number, text in enumerate(added)
    ]
    values = {"model": {"vocab": vocabulary, **others.pop("model", {})}, **others}
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(values | {"added_tokens": tokens}), encoding="utf-8")
    return folder


def continuing(folder: Path, vocabulary: dict[str, int]) -> set[str]:
    found = masking_vocabulary(folder, len(vocabulary), None, whole_words=True)
    assert found.continues is not None
    return {text for text, number in vocabulary.items() if found.continues[number]}


def ids(*texts: str) -> dict[str, int]:
    return {text: number for number, text in enumerate(texts)}


def test_words_of_wordpiece_go_on_with_its_prefix(tmp_path: Path) -> None:
    vocabulary = ids("the", "mill", "##er", "##s", ",", "中")
    write(tmp_path, vocabulary, model={"type": "WordPiece", "continuing_subword_prefix": "##"})

    assert continuing(tmp_path, vocabulary) == {"##er", "##s"}


def test_words_of_byte_level_tokenizers_begin_at_spaces_punctuation_and_han(tmp_path: Path) -> None:
    letters = {"Ġmill", "er", "7", ",", "Ċ", "Ġ", "ĠÎ", "Î¼", "¼", "Î", "ä¸Ń", "ä¸", "à¤", "à¥į"}
    vocabulary = ids(*sorted(letters))
    write(tmp_path, vocabulary, model={"type": "BPE"}, pre_tokenizer={"type": "ByteLevel"})

    # Inner bytes, Greek letters, the vowel sign of Devanagari; not 中, nor its first bytes.
    assert continuing(tmp_path, vocabulary) == {"er", "7", "Î¼", "¼", "Î", "à¤", "à¥į"}


def test_words_of_sentencepiece_begin_at_its_space(tmp_path: Path) -> None:
    vocabulary = ids("▁the", "▁", "mill", ".", "<0x0A>", "<0xB8>", "中", "ไ", "й")
    write(tmp_path, vocabulary, model={"type": "BPE"}, decoder={"type": "Replace"})

    assert continuing(tmp_path, vocabulary) == {"mill", "<0xB8>", "й"}


def test_special_tokens_are_those_the_tokenizer_calls_so_the_mask_and_the_end(
    tmp_path: Path,
) -> None:
    vocabulary = ids("a", "b", "[CLS]", "[MASK]", "<end>")
    write(tmp_path, vocabulary, "[CLS]", "[MASK]")
    found = masking_vocabulary(tmp_path, 5, 4)

    assert found.special.tolist() == [False, False, True, True, True]
    assert (found.mask_id, found.continues) == (3, None)


def test_a_tokenizer_without_mask_token_gets_an_id_after_its_own(tmp_path: Path) -> None:
    vocabulary = ids("a", "b", "<end>")
    write(tmp_path, vocabulary, "<end>")
    found = masking_vocabulary(tmp_path, 3, 2)

    assert found.mask_id == len(found.special) == 3
    assert name_mask_token(tmp_path / "tokenizer.json", 3) == "[MASK]"
    assert name_mask_token(tmp_path / "tokenizer.json", 3) == "[MASK]"
    assert masking_vocabulary(tmp_path, 4, 2).mask_id == 3
    assert masking_vocabulary(tmp_path, 3, 2, mask_token="a").mask_id == 0


def test_the_last_reserved_token_becomes_the_mask_and_is_called_so_in_an_export(
    tmp_path: Path,
) -> None:
    reserved = "<|reserved_0|>", "<|reserved_1|>"
    vocabulary = ids("<end>", *reserved, "a")
    write(tmp_path, vocabulary, "<end>", *reserved)
    found = masking_vocabulary(tmp_path, 4, 0)

    assert found.mask_id == 2
    assert found.special.tolist() == [True, True, True, False]
    assert name_mask_token(tmp_path / "tokenizer.json", 2) == "[MASK]"
    values = json.loads((tmp_path / "tokenizer.json").read_bytes())
    assert values["model"]["vocab"] == ids("<end>", "<|reserved_0|>", "[MASK]", "a")
    assert [token["content"] for token in values["added_tokens"]] == [
        "<end>",
        "<|reserved_0|>",
        "[MASK]",
    ]


def test_a_mask_token_or_words_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"masking\.whole_words is set, but the data has no token"):
        masking_vocabulary(None, 3, 2, whole_words=True)
    write(tmp_path, ids("a"), "<end>")
    with pytest.raises(ValueError, match=r"mask_token = '<m>' is no token of"):
        masking_vocabulary(tmp_path, 3, 2, mask_token="<m>")
    assert masking_vocabulary(None, 3, 2).mask_id == 3
