"""Our engine beside `tokenizers`: helpers of the identity tests."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library

from gristmill.pipeline import cuts
from gristmill.pipeline.engine.pretokenizers import EXPRESSIONS
from gristmill.pipeline.tokenizer import Tokenizer

EXPRESSION_NAMES = ("cl100k", "qwen3", "qwen3.5", "ours", "o200k", "tekken", "gpt2-split")
FAMILIES = (*EXPRESSION_NAMES, "gpt2", "starcoder", "digits", "deepseek", "inverted", "whole")

REPRESENTATIVES = (*"a's/ B1\n\t!", "é", "中", "か", "ก", "\u0301", "ſ", "\u00a0", "٣", "ʕ", "😀")
CONTEXTS = ("{0}", "a{0}", "{0}a", " {0}", "{0} ", "!{0}", "1{0}1", "{0}\n{0}")


def pre_tokenizer(family: str) -> pre_tokenizers.PreTokenizer:
    """Return the pre-tokenizer of a family, ByteLevel at its end."""
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    regex = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if family in EXPRESSION_NAMES or family == "inverted":
        name = "o200k" if family == "inverted" else family
        expression = Regex(list(EXPRESSIONS)[EXPRESSION_NAMES.index(name)])
        kept = {"behavior": "removed", "invert": True} if family == "inverted" else {}
        split = pre_tokenizers.Split(expression, **({"behavior": "isolated"} | kept))
        return pre_tokenizers.Sequence([split, plain])
    if family == "deepseek":
        splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in cuts.DEEPSEEK_PATTERNS]
        return pre_tokenizers.Sequence([*splits, plain])
    if family in ("starcoder", "digits"):
        digits = pre_tokenizers.Digits(individual_digits=family == "starcoder")
        return pre_tokenizers.Sequence([digits, regex])
    return plain if family == "whole" else regex


def train(family: str, texts: Iterable[str], *, nfc: bool = False, size: int = 1500) -> Library:
    """Return a small byte-level BPE of a family, trained on texts."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizer("gpt2" if family == "whole" else family)
    if nfc:
        library.normalizer = normalizers.NFC()
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    library.train_from_iterator(texts, trainer)
    library.pre_tokenizer = pre_tokenizer(family)
    return library


def open_door(library: Library, folder: Path, **options: object) -> Tokenizer:
    """Return our tokenizer of a library's, which must be one that the engine reproduces."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(library.to_str(), encoding="utf-8")
    tokenizer = Tokenizer(str(folder), **options)
    assert tokenizer.engine == "gristmill"
    return tokenizer


def assert_same(tokenizer: Tokenizer, texts: list[str], *, special: bool = False) -> None:
    """Assert that our ids are the library's, for each text."""
    library = tokenizer._library
    for start in range(0, len(texts), 20_000):
        part = texts[start : start + 20_000]
        ours = tokenizer.encode_batch(part, add_special_tokens=special)
        theirs = library.encode_batch_fast(part, add_special_tokens=special)
        for text, mine, encoding in zip(part, ours, theirs, strict=True):
            if mine.tolist() != encoding.ids:
                raise AssertionError(f"{text!r}\n ours   {mine.tolist()}\n theirs {encoding.ids}")


def exhaustive(length: int) -> Iterator[str]:
    """Yield all strings over `REPRESENTATIVES` up to a length."""
    for size in range(1, length + 1):
        for characters in itertools.product(REPRESENTATIVES, repeat=size):
            yield "".join(characters)


def every_scalar(contexts: Iterable[str], step: int = 1) -> Iterator[str]:
    """Yield every (or every step-th) Unicode scalar in each context, several to a text."""
    scalars = [c for c in range(0, 0x110000, step) if not 0xD800 <= c < 0xE000]
    for context in contexts:
        for start in range(0, len(scalars), 64):
            # A word between two keeps them apart: a space, a letter, a digit, a line.
            yield " x1\n".join(context.format(chr(c)) for c in scalars[start : start + 64])


def vocabulary_strings(library: Library, count: int, seed: int) -> list[str]:
    """Return random concatenations of the texts of vocabulary entries."""
    chance = random.Random(seed)
    entries = [library.decode([i]) for i in range(0, library.get_vocab_size(), 1)]
    entries = [entry for entry in entries if entry]
    return ["".join(chance.choices(entries, k=chance.randint(1, 12))) for _ in range(count)]


def mixture(count: int, seed: int) -> list[str]:
    """Return random texts over the representatives and longer words."""
    chance = random.Random(seed)
    atoms = [*REPRESENTATIVES, "  ", "\r\n", "\u3000", "'re", "'LL", " word", "HTTPServer", "12345"]
    atoms += ["日本語", "สวัสดี", "नमस्ते", "مرحبا", "\u200d", "\x01", "ß", "・", "<|endoftext|>", "="]
    return ["".join(chance.choices(atoms, k=chance.randint(1, 90))) for _ in range(count)]


def shared_tokenizer(shared: Path, name: str) -> Tokenizer:
    """Return one of the tokenizers beside the checkout."""
    return Tokenizer(str(shared / "tokenizers" / f"{name}.json.zst"))


def corpus_texts(shared: Path, limit: int) -> Iterator[list[str]]:
    """Yield the texts of each file of corpora/dev, `limit` bytes of each."""
    import zstandard

    for path in sorted((shared / "corpora" / "dev").glob("*.jsonl.zst")):
        texts, size = [], 0
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
            rest = b""
            while size < limit and (block := stream.read(1 << 20)):
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    texts.append(json.loads(line)["text"])
                    size += len(texts[-1].encode())
        yield texts


def documents(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return texts as the door takes them."""
    raw = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
    return np.frombuffer(b"".join(raw), np.uint8), offsets


def added(content: str, **flags: bool) -> AddedToken:
    """Return an added token that is not normalized unless it says so."""
    return AddedToken(content, **({"normalized": False} | flags))
