"""The tokenizer door: what goes in and out, which end-of-document token, what is refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import zstandard

from gristmill.pipeline import Tokenizer, cuts
from gristmill.pipeline.tokenizer_files import TokenizerError, content_fingerprint
from gristmill.pipeline.train_tokenizer import special_tokens, train_bpe

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's 12345!\n\nAnd again: the dog.\n",
    "हिन्दी में लिखा हुआ एक वाक्य। ภาษาไทย 中文字 🙂",
    "",
    "tab\tand  spaces   \r\n",
]


def arrays(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    raw = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, raw)])
    return np.frombuffer(b"".join(raw), np.uint8), offsets


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer trained on a few sentences."""
    folder = tmp_path_factory.mktemp("tokenizer")
    content = train_bpe(TEXTS * 5, vocab_size=400, special_tokens=special_tokens("<|endoftext|>"))
    (folder / "tokenizer.json").write_text(content)
    return folder


def altered(source: Path, target: Path, **changes: object) -> Path:
    """Copy a tokenizer.json with some top-level entries replaced."""
    target.mkdir(parents=True, exist_ok=True)
    content = json.loads((source / "tokenizer.json").read_text()) | changes
    (target / "tokenizer.json").write_text(json.dumps(content))
    return target


def test_arrays_of_documents_become_arrays_of_ids(trained: Path) -> None:
    tokenizer = Tokenizer(str(trained))
    oracle = tokenizers.Tokenizer.from_file(str(trained / "tokenizer.json"))
    data, offsets = arrays(TEXTS)

    ids, bounds = tokenizer.encode(data, offsets)

    assert ids.dtype == tokenizer.dtype == np.uint16
    assert bounds.dtype == np.int64
    for number, text in enumerate(TEXTS):
        own = ids[bounds[number] : bounds[number + 1]].tolist()
        assert own == oracle.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(own) == text


def test_the_middle_of_a_larger_buffer_can_be_encoded(trained: Path) -> None:
    tokenizer = Tokenizer(str(trained))
    data, offsets = arrays(TEXTS)

    ids, bounds = tokenizer.encode(data, offsets[1:3])

    assert bounds.tolist() == [0, len(ids)]
    assert tokenizer.decode(ids) == TEXTS[1]


def test_no_documents_give_no_ids(trained: Path) -> None:
    ids, bounds = Tokenizer(str(trained)).encode(np.empty(0, np.uint8), np.zeros(1, np.int64))

    assert (ids.size, bounds.tolist()) == (0, [0])


def test_special_tokens_are_added_once_a_document_even_when_it_is_cut(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|reserved_0|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {
            "<|reserved_0|>": {"id": "<|reserved_0|>", "ids": [1], "tokens": ["<|reserved_0|>"]},
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]},
        },
    }
    tokenizer = Tokenizer(str(altered(trained, tmp_path / "t", post_processor=template)))
    oracle = tokenizers.Tokenizer.from_file(str(tmp_path / "t" / "tokenizer.json"))
    monkeypatch.setattr(cuts, "PIECE_BYTES", 8)

    got = tokenizer.encode_batch(TEXTS, add_special_tokens=True)

    assert [ids.tolist() for ids in got] == [oracle.encode(text).ids for text in TEXTS]


def test_invalid_utf8_is_an_error_that_names_the_document_and_the_byte(trained: Path) -> None:
    data = np.frombuffer(b"fine" + b"ab\xff", np.uint8)

    with pytest.raises(
        ValueError, match="document 1 of the batch is not valid UTF-8 at its byte 2"
    ):
        Tokenizer(str(trained)).encode(data, np.array([0, 4, 7]))


def test_a_file_a_folder_and_a_compressed_file_are_the_same_tokenizer(
    trained: Path, tmp_path: Path
) -> None:
    packed = tmp_path / "t.json.zst"
    packed.write_bytes(zstandard.compress((trained / "tokenizer.json").read_bytes()))

    found = [Tokenizer(str(path)) for path in (trained, trained / "tokenizer.json", packed)]

    assert len({tokenizer.fingerprint for tokenizer in found}) == 1
    assert len({tuple(tokenizer.encode_batch(["some text"])[0]) for tokenizer in found}) == 1


def test_the_fingerprint_counts_meaning_and_not_layout(trained: Path) -> None:
    content = json.loads((trained / "tokenizer.json").read_text())
    turned = dict(reversed(content.items())) | {"truncation": {"max_length": 5}}
    fewer = content | {"model": content["model"] | {"merges": content["model"]["merges"][:-1]}}

    assert content_fingerprint(turned) == content_fingerprint(content)
    assert content_fingerprint(fewer) != content_fingerprint(content)


def test_truncation_padding_and_dropout_in_a_file_are_reset_with_a_notice(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads((trained / "tokenizer.json").read_text())
    folder = altered(
        trained,
        tmp_path / "t",
        truncation={
            "max_length": 3,
            "strategy": "LongestFirst",
            "stride": 0,
            "direction": "Right",
        },
        padding={
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
        model=content["model"] | {"dropout": 0.5},
    )

    with caplog.at_level(logging.WARNING):
        tokenizer = Tokenizer(str(folder))

    plain = Tokenizer(str(trained))
    assert [a.tolist() for a in tokenizer.encode_batch(TEXTS)] == [
        a.tolist() for a in plain.encode_batch(TEXTS)
    ]
    for word in ("truncation", "padding", "dropout"):
        assert word in caplog.text


def test_eod_comes_from_the_argument_then_the_settings_then_a_known_name(
    trained: Path, tmp_path: Path
) -> None:
    folder = altered(trained, tmp_path / "t")
    known = Tokenizer(str(folder))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": {"content": "<|reserved_3|>"}})
    )
    configured = Tokenizer(str(folder))
    given = Tokenizer(str(folder), eod="<|reserved_5|>")

    assert [(t.eod, t.eod_id) for t in (known, configured, given)] == [
        ("<|endoftext|>", 0),
        ("<|reserved_3|>", 4),
        ("<|reserved_5|>", 6),
    ]


def test_an_unknown_eod_is_an_error_that_lists_candidates(trained: Path, tmp_path: Path) -> None:
    content = train_bpe(TEXTS, vocab_size=300, special_tokens=["<stop>", "<go>"])
    (tmp_path / "tokenizer.json").write_text(content)
    tokenizer = Tokenizer(str(tmp_path))

    with pytest.raises(
        TokenizerError, match=r"tokenizer\.eod to one of its special tokens: <stop>"
    ):
        _ = tokenizer.eod_id
    with pytest.raises(TokenizerError, match=r"'<none>', which .* does not have"):
        Tokenizer(str(trained), eod="<none>")


def test_a_special_token_is_preferred_to_a_plain_one_with_a_known_name(tmp_path: Path) -> None:
    content = json.loads(train_bpe(TEXTS, vocab_size=300, special_tokens=["</s>", "<eos>"]))
    content["added_tokens"][0]["special"] = False  # an HTML tag, as in Gemma's vocabulary
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))

    assert Tokenizer(str(tmp_path)).eod == "<eos>"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.json", None, "there is no tokenizer at"),
        ("broken.json", "{", "is not readable as JSON"),
        ("other.json", "{}", 'has no "model"'),
        ("strange.json", '{"model": {"type": "Magic"}}', "is not a tokenizer.json that tokenizers"),
        ("damaged.json.zst", "no frame", "is not readable as zstandard"),
    ],
)
def test_what_is_no_tokenizer_is_refused_with_its_name(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)

    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer(str(path))

    assert name in str(caught.value)


def test_a_hub_id_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*_: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)

    with pytest.raises(TokenizerError, match="Without a network, give the path"):
        Tokenizer("someone/something")


def test_the_bytes_of_a_text_are_the_sum_over_its_tokens(trained: Path) -> None:
    tokenizer = Tokenizer(str(trained))
    token_bytes = tokenizer.token_bytes()

    assert token_bytes.dtype == np.int32
    assert token_bytes.shape == (tokenizer.vocab_size,)
    assert token_bytes[tokenizer.eod_id] == 0
    for text, ids in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
        assert token_bytes[ids].sum() == len(text.encode())


def test_byte_fallback_tokens_stand_for_one_byte(tmp_path: Path) -> None:
    vocabulary = {"<unk>": 0, "▁": 1, "a": 2, "é": 3} | {
        f"<0x{byte:02X}>": 4 + byte for byte in range(256)
    }
    engine = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)
    )
    engine.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    (tmp_path / "tokenizer.json").write_text(engine.to_str())
    tokenizer = Tokenizer(str(tmp_path))
    text = "aé 中 a"

    (ids,) = tokenizer.encode_batch([text])

    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())


FAMILIES = ["bert_minilm", "deepseek_v3", "gemma3", "gpt2", "gptoss", "llama2", "llama3", "qwen3"]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, shared: Path) -> tuple[str, Tokenizer]:
    path = shared / "tokenizers" / f"{request.param}.json.zst"
    if not path.is_file():
        pytest.skip(f"needs {path}, which is not here")
    return request.param, Tokenizer(str(path))


@pytest.mark.slow
def test_known_tokenizers_encode_as_the_library_does(
    family: tuple[str, Tokenizer], sample_texts: list[tuple[str, str]]
) -> None:
    _, tokenizer = family
    oracle = tokenizers.Tokenizer.from_str(tokenizer.file.content.decode())
    oracle.no_truncation()
    oracle.no_padding()
    texts = [text for _, text in sample_texts[::5]] + TEXTS

    for special in (False, True):
        got = tokenizer.encode_batch(texts, add_special_tokens=special)
        expected = [oracle.encode(text, add_special_tokens=special).ids for text in texts]
        assert [ids.tolist() for ids in got] == expected


@pytest.mark.slow
def test_known_tokenizers_have_their_eod_and_their_bytes(family: tuple[str, Tokenizer]) -> None:
    name, tokenizer = family
    eods = {
        "bert_minilm": None,
        "deepseek_v3": "<｜end▁of▁sentence｜>",
        "gemma3": "<eos>",
        "llama2": "</s>",
        "llama3": "<|end_of_text|>",
    }
    assert tokenizer.eod == eods.get(name, "<|endoftext|>")
    if name not in ("bert_minilm", "llama2"):  # these lower the case, or add a space
        text = TEXTS[1] + TEXTS[0]
        (ids,) = tokenizer.encode_batch([text])
        assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
