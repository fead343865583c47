"""Special tokens that a text spells out are counted, and can be encoded as text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from gristmill.indexed_dataset import IndexedDataset
from gristmill.pipeline import Tokenizer
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.special_strings import SpecialStrings, describe_special
from gristmill.pipeline.tokenize_inputs import tokenize_files
from gristmill.pipeline.train_tokenizer import special_tokens, train_bpe

EOD = "<|endoftext|>"
Write = Callable[[Path, list[dict[str, object]]], Path]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    content = train_bpe(["some words"] * 9, vocab_size=300, special_tokens=special_tokens(EOD))
    (folder / "tokenizer.json").write_text(content)
    return str(folder)


class FakeTokenizer:
    """Has special tokens anywhere in its vocabulary."""

    def __init__(self, ids: list[int]) -> None:
        self.special_ids = {f"<{number}>": number for number in ids}


@pytest.mark.parametrize("ids", [[], [0, 1, 2], [97, 98, 99], [0, 1, 98], [40], [0, 50, 99]])
def test_counts_are_right_wherever_the_special_ids_lie(ids: list[int]) -> None:
    special = SpecialStrings(FakeTokenizer(ids))  # type: ignore[arg-type]
    random = np.random.default_rng(1)
    for width in (1, 5, 30, 100):
        for start in range(0, 101 - width, 7):
            tokens = random.integers(start, start + width, 20).astype(np.uint16)
            found = special.count(tokens, int(tokens.min()), int(tokens.max()), num_documents=1)
            expected = {f"<{n}>": int((tokens == n).sum()) for n in ids if (tokens == n).any()}
            assert dict(found) == expected
    assert not special.count(tokens[:0], 0, 0, num_documents=0)


@pytest.mark.parametrize("mode", ["as_tokens", "as_text"])
def test_the_user_is_told_and_chooses(
    tmp_path: Path, write_jsonl: Write, tokenizer: str, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    texts = [f"some {EOD} words {EOD}", "words", f"<|reserved_1|>{EOD}"]
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])

    tokenize_files(
        [str(path)], tmp_path / "out", tokenizer, special_strings=mode, append_eod=True, workers=1,
        progress=Progress(quiet=True),
    )  # fmt: skip

    engine = tokenizers.Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    engine.encode_special_tokens = mode == "as_text"
    dataset = IndexedDataset(tmp_path / "out")
    eod = engine.token_to_id(EOD)
    for number, text in enumerate(texts):
        expected = [*engine.encode(text, add_special_tokens=False).ids, eod]
        assert dataset.get_document(number).tolist() == expected
    told = "became those tokens: 3 x <|endoftext|>, 1 x <|reserved_1|>." in caplog.text
    assert told == (mode == "as_tokens")


def test_tokens_that_the_post_processor_adds_are_not_counted(
    tmp_path: Path, tokenizer: str
) -> None:
    library = tokenizers.Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{EOD} $A", special_tokens=[(EOD, library.token_to_id(EOD))]
    )
    library.save(str(tmp_path / "tokenizer.json"))
    engine = Tokenizer(tmp_path / "tokenizer.json")
    special = SpecialStrings(engine, add_special_tokens=True)
    texts = ["some", f"words {EOD}", ""]
    tokens = np.concatenate(engine.encode_batch(texts, add_special_tokens=True))

    found = special.count(tokens, int(tokens.min()), int(tokens.max()), num_documents=3)

    assert found == {EOD: 1}


def test_many_names_are_cut_short() -> None:
    counts = {f"<{n}>": n for n in range(1, 9)}
    assert describe_special(counts) == "8 x <8>, 7 x <7>, 6 x <6>, 5 x <5>, 4 x <4> and 3 others"
