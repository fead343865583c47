"""Long documents: cut where the tokenizer surely cuts, or refused by name."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

from gristmill.pipeline import Tokenizer, cuts
from gristmill.pipeline.tokenizer import DocumentTooLongError

# What rules and normalizers treat differently, and what could join over a cut.
ATOMS = [
    *(" ", "  ", "\n", "\n\n", " \n", "\n ", "\r\n", "\r", "\t", "\u3000", "\xa0", "\u0085"),
    *("\u2028", "\u1680", "\u2003", "\u180e", "\u200b", "\ufeff", "\x1c", "\x00"),
    *("a", "word", "It's", "'S", "'ſ", "'", "'ll", "A", "AB", "zZ", "AB中", "ǅ", "ʰ", "Å"),
    *("1", "12", "1234", "½", "٣", "!", "//", "/", "!\n/", "。", ";", "☃", "🙂", "-", "_", "$"),
    *("中文字", "かな", "カナ", "ภาษา", "กำ", "हिन्दी", "क़", "é", "\u0301", "\u0327\u0301", "ẛ̣"),
    *("한국", "\u1112", "\u1161", "\u11ab", "\u200d", "\u0958", "\ue000", "<|endoftext|>", "<t>"),
]


def gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def split(*patterns: str) -> pre_tokenizers.PreTokenizer:
    steps = [pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*steps, last])


SPLITTINGS = {
    "gpt2": gpt2(),
    "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()]),
    "deepseek": split(*cuts.DEEPSEEK_PATTERNS),
    **{f"lines{number}": split(p) for number, p in enumerate(sorted(cuts._LINE_PATTERNS))},
}


def build(splitting: pre_tokenizers.PreTokenizer, nfc: bool) -> tokenizers.Tokenizer:
    """A byte-level tokenizer whose merges join everything, so that each piece shows in the ids.

    Merges of all pairs of frequent bytes: a cut at a wrong place changes what merges with what.
    """
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = splitting
    engine.decoder = decoders.ByteLevel()
    if nfc:
        engine.normalizer = normalizers.NFC()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=3000,
        min_frequency=1,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    chance = random.Random(0)
    texts = ["".join(chance.choices(ATOMS, k=40)) for _ in range(200)]
    engine.train_from_iterator(texts, trainer)
    engine.add_tokens(["<t>"])
    return engine


@pytest.fixture(scope="module", params=[(name, nfc) for name in SPLITTINGS for nfc in (0, 1)])
def engine(request: pytest.FixtureRequest) -> tokenizers.Tokenizer:
    name, nfc = request.param
    return build(SPLITTINGS[name], bool(nfc))


def cut_everywhere(text: bytes, rule: str) -> list[bytes]:
    """Cut at every place that the rule allows."""
    places = [match.start() for match in cuts.RULES[rule].finditer(text)]
    bounds = [0, *places, len(text)]
    return [text[a:b] for a, b in itertools.pairwise(bounds)]


def test_every_allowed_cut_leaves_the_ids_as_they_were(engine: tokenizers.Tokenizer) -> None:
    rule = cuts.find_rule(json.loads(engine.to_str()))
    assert rule is not None
    chance = random.Random(1)
    num_cuts = 0
    for _ in range(400):
        text = "".join(chance.choices(ATOMS, k=chance.randrange(2, 30)))
        pieces = cut_everywhere(text.encode(), rule)
        num_cuts += len(pieces) - 1
        parts = [engine.encode(piece.decode(), add_special_tokens=False).ids for piece in pieces]
        whole = engine.encode(text, add_special_tokens=False).ids
        assert [i for ids in parts for i in ids] == whole, pieces
    assert num_cuts > 300


def test_these_texts_tell_a_wrong_cut_from_a_right_one() -> None:
    engine = build(SPLITTINGS["gpt2"], nfc=False)
    chance = random.Random(1)
    differences = 0
    for _ in range(400):
        text = "".join(chance.choices(ATOMS, k=30))
        pieces = cut_everywhere(text.encode(), "lines")  # the rule of the other families
        parts = [engine.encode(piece.decode(), add_special_tokens=False).ids for piece in pieces]
        whole = engine.encode(text, add_special_tokens=False).ids
        differences += [i for ids in parts for i in ids] != whole

    assert differences > 10


@given(st.lists(st.sampled_from(ATOMS), max_size=20), st.sampled_from(sorted(cuts.RULES)))
def test_cuts_are_between_code_points_and_where_the_rule_says(atoms: list[str], rule: str) -> None:
    text = "".join(atoms)
    spaces = set("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000")
    spaces |= {chr(code) for code in range(0x2000, 0x200B)}
    expected = set()
    for place in range(1, len(text)):
        x, y = text[place - 1], text[place]
        first = x not in spaces and y in (" \n" if rule == "words" else " ")
        second = rule == "lines" and x == "\n" and y not in spaces and y != "/"
        if first or second:
            expected.add(len(text[:place].encode()))

    found = {match.start() for match in cuts.RULES[rule].finditer(text.encode())}

    assert found == expected


def ours(nfc: bool = False) -> tokenizers.Tokenizer:
    return build(split(cuts.OURS), nfc)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("ours")
    (folder / "tokenizer.json").write_text(ours().to_str())
    return Tokenizer(str(folder), delegate=True)


def test_a_long_document_is_encoded_in_pieces_with_the_ids_of_the_whole(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(2)
    text = "".join(chance.choices(ATOMS, k=3000))
    expected = tokenizer.encode_batch([text])[0]
    monkeypatch.setattr(cuts, "PIECE_BYTES", 50)
    monkeypatch.setattr(cuts, "MAX_PIECE_BYTES", 1000)

    assert len(cuts.cut(text.encode(), "lines")) > 20
    np.testing.assert_array_equal(tokenizer.encode_batch([text])[0], expected)


def test_a_document_without_a_safe_cut_is_refused_by_name(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "PIECE_BYTES", 50)
    monkeypatch.setattr(cuts, "MAX_PIECE_BYTES", 1000)
    texts = ["short", "x" * 1001, "word " * 1000, "word " * 20 + "y" * 2000]
    data = np.frombuffer("".join(texts).encode(), np.uint8)
    offsets = np.cumsum([0, *map(len, texts)])

    assert tokenizer.too_long(data, offsets).tolist() == [False, True, False, True]
    with pytest.raises(DocumentTooLongError, match="1,000 bytes without a place") as caught:
        tokenizer.encode(data, offsets)
    assert caught.value.document == 1


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {
                        "type": "Split",
                        "pattern": {"Regex": r"\s+"},
                        "behavior": "Isolated",
                        "invert": False,
                    },
                    {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
                ],
            }
        },
        {"added_tokens": [{"content": "a b", "lstrip": False, "rstrip": False}]},
        {"added_tokens": [{"content": "<m>", "lstrip": True, "rstrip": False}]},
        {"added_tokens": [{"content": "<m>", "lstrip": False, "rstrip": True}]},
        {"model": {"type": "Unigram"}},
    ],
)
def test_no_cut_is_known_for_a_tokenizer_outside_the_proof(change: dict[str, object]) -> None:
    content = json.loads(ours().to_str())
    assert cuts.find_rule(content) == "lines"

    assert cuts.find_rule(content | change) is None


def test_without_a_rule_only_short_documents_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(ours().to_str()) | {"normalizer": {"type": "Lowercase"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer(str(tmp_path))
    monkeypatch.setattr(cuts, "MAX_PIECE_BYTES", 1000)
    data = np.frombuffer(b"word " * 201, np.uint8)

    assert tokenizer.too_long(data, np.array([0, 1000])).tolist() == [False]
    assert tokenizer.too_long(data, np.array([0, 1005])).tolist() == [True]
    assert "has no known place to cut" in tokenizer.too_long_detail()
    assert len(tokenizer.encode_batch(["word " * 200])) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deepseek_v3", "gpt2", "gptoss", "llama3", "qwen3"])
def test_known_tokenizers_give_the_same_ids_cut_and_uncut(
    name: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shared / "tokenizers" / f"{name}.json.zst"
    if not path.is_file():
        pytest.skip(f"needs {path}, which is not here")
    tokenizer = Tokenizer(str(path), delegate=True)
    chance = random.Random(3)
    texts = ["".join(chance.choices(ATOMS, k=200)) for _ in range(100)]
    uncut = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    monkeypatch.setattr(cuts, "PIECE_BYTES", 5)

    assert sum(len(cuts.cut(text.encode(), tokenizer._rule)) - 2 for text in texts) > 1000
    assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == uncut
