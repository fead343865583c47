"""SentencePiece BPE, WordPiece, Unigram and their normalizers: kernel, twin and `tokenizers`."""

import base64
import itertools
import json
from functools import cache

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from gristmill import kernels
from gristmill.kernels import reference
from gristmill.pipeline.engine import sentencepiece, text_rules, unigram, wordpiece
from gristmill.pipeline.engine.charsmap_files import write_charsmap
from gristmill.pipeline.engine.frame import Segments
from gristmill.pipeline.engine.unsupported import UnsupportedError

META = "\u2581"
TEXT = st.text(
    st.sampled_from("aaabbbcceé \u2581\u2581  \n\t!?.中字ｶ\u0301\u0316\u0345\u302e\U0001d165")
    | st.sampled_from(
        "A\u0130\u212b\u2260\u200d\xa9\u0915\u094d\u1100\u1161\u11a8\U0001f600\u0600\r\x00\ufffd"
    )
    | st.sampled_from("\u200b\xad\u0f73\u0f71\u08d4\uac01\U0001f1e6\ufb01\u3000\x85"),
    max_size=24,
)
SEGMENTS = st.lists(st.tuples(TEXT, st.sampled_from([-1, -1, -1, 3]), st.booleans()), max_size=4)
STRIPS = {"type": "Strip", "strip_left": True, "strip_right": True}
SPACES = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
METASPACE = {"type": "Metaspace", "replacement": META, "prepend_scheme": "always", "split": True}
CHARSMAP = {
    "\n": " ", "\r": "", "A": "a", "a\u0301": "á", "ｶ": "カ", "\ufb01": "fi", "\u2581": " ",
    "\u0600": "x", "\u1100\u1161": "가", "\xa9": "(c)", "é": "e\u0301", "\u0915": "क",
}  # fmt: skip


def configuration(model, normalizer=None, pre_tokenizer=None):
    tokenizer = tokenizers.Tokenizer.from_str(
        json.dumps(
            {
                "version": "1.0",
                "truncation": None,
                "padding": None,
                "added_tokens": [],
                "normalizer": normalizer,
                "pre_tokenizer": pre_tokenizer,
                "post_processor": None,
                "decoder": None,
                "model": model,
            }
        )
    )
    return tokenizer, json.loads(tokenizer.to_str())


def bpe(byte_fallback, fuse_unk, normalizer=None, pre_tokenizer=None, **options):
    strings = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256) if byte_fallback)]
    strings += [META, *"abce!.中"]
    merges = [(META, "a"), ("a", "b"), (META + "a", "b"), ("c", "c"), ("cc", "cc"), (META, META),
              ("b", "b"), ("a", "a"), ("aa", "b"), ("e", META), ("bb", "c"),
              ("ab", "ab")]  # fmt: skip
    strings += [a + b for a, b in merges if a + b not in strings]
    model = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": fuse_unk, "byte_fallback": byte_fallback,
        "ignore_merges": False, "vocab": {s: i for i, s in enumerate(strings)}, "merges": merges,
    }  # fmt: skip
    return configuration(model | options, normalizer, pre_tokenizer)


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": META}
LLAMA = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": META}, REPLACE]}
SPLIT = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
BPES = [
    (True, True, LLAMA, None),
    (False, True, LLAMA, None),
    (False, False, REPLACE, SPLIT),
    (True, False, None, METASPACE),
    (False, True, None, METASPACE | {"prepend_scheme": "first"}),
    (True, True, None, METASPACE | {"prepend_scheme": "first", "split": False}),
    (False, True, None, METASPACE | {"prepend_scheme": "never", "split": False}),
]


def word_pieces(**options):
    strings = [
        "[UNK]",
        "a",
        "ab",
        "##b",
        "##c",
        "##ab",
        "##a",
        "中",
        "!",
        "e",
        "##e",
        "=",
        "##\u302e",
    ]
    strings += ["カ", "ᄀ", "##ᅡ", "##ᆨ", "i", "##\U0001d165", "\u08d4", "##\u08d4", "é", "####a"]
    model = {
        "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 9, "vocab": {s: i for i, s in enumerate(strings)},
    }  # fmt: skip
    normalizer = {
        "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
        "strip_accents": None, "lowercase": True,
    }  # fmt: skip
    return configuration(model, normalizer | options, {"type": "BertPreTokenizer"})


WORD_PIECES = [
    {}, {"strip_accents": False}, {"lowercase": False}, {"lowercase": False, "strip_accents": True},
    {"clean_text": False, "handle_chinese_chars": False},
]  # fmt: skip


def uni(byte_fallback, normalizer, pre_tokenizer):
    pieces = [("<unk>", 0.0), ("a", -2.0), ("b", -2.5), ("ab", -4.5), ("ba", -4.0), ("aba", -6.5)]
    pieces += [
        (META, -1.5),
        (META + "a", -3.5),
        ("c", -3.0),
        ("cc", -6.0),
        ("中", -5.0),
        ("!", -4.0),
    ]
    pieces += [
        (META + META, -1.0),
        ("éc", -2.0),
        ("カ", -3.25),
        ("á", -3.0),
        (META + "ab!", -7.125),
    ]
    if byte_fallback:
        pieces += [(f"<0x{byte:02X}>", -9.0) for byte in range(256) if byte != 0xAD]
    model = {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": byte_fallback}
    return configuration(model, normalizer, pre_tokenizer)


def sequence(*steps):
    return {"type": "Sequence", "normalizers": list(steps)}


PRECOMPILED = {
    "type": "Precompiled",
    "precompiled_charsmap": base64.b64encode(write_charsmap(CHARSMAP)).decode(),
}
SPLIT_SPACES = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, METASPACE]}
UNIGRAMS = [
    (False, PRECOMPILED, METASPACE),
    (True, sequence(PRECOMPILED, SPACES), SPLIT_SPACES),
    (True, None, METASPACE | {"prepend_scheme": "first"}),
    (False, sequence({"type": "Nmt"}, {"type": "Lowercase"}, STRIPS, SPACES), METASPACE),
    (True, sequence(STRIPS | {"strip_left": False}, SPACES | {"content": META}),
     METASPACE | {"prepend_scheme": "never", "split": False}),
    (False, sequence({"type": "Replace", "pattern": {"String": "a!"}, "content": "cc"}),
     METASPACE | {"split": False}),
]  # fmt: skip


def arrays_of(segments):
    texts = [text.encode() for text, _, _ in segments]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    starts = ends - np.array([len(text) for text in texts], np.int64)
    data = kernels.jit.as_readonly(np.frombuffer(b"".join(texts) + bytes(64), np.uint8), np.uint8)
    tokens = np.array([token for _, token, _ in segments], np.int32)
    first = np.array([begins for _, _, begins in segments], np.uint8)
    return data, Segments(starts, ends, tokens, first)


def ids_of(encode, model, state, data, segments):
    num_bytes = int((segments.ends - segments.starts).sum())
    out = np.zeros(model.expansion * num_bytes + 16 * len(segments.starts) + 64, np.int32)
    bounds = np.zeros(len(segments.starts) + 1, np.int64)
    scratch = state.scratch(segments.starts, segments.ends)
    total = encode(data, *segments, model.tables, state.memo, state.batch, scratch, out, bounds)
    assert bounds[-1] == total
    return [out[a:b].tolist() for a, b in itertools.pairwise(bounds)]


def check(kernel, twin, model, state, tokenizer, segments):
    data, parts = arrays_of(segments)
    if model.normalizer is not None:
        data, parts = model.normalizer.normalize(data, parts)
    expected = [
        [token] if token >= 0 else tokenizer.encode(text).ids for text, token, _ in segments
    ]
    for _ in range(2):  # remembered the second time
        assert ids_of(kernel, model, state, data, parts) == expected
    assert ids_of(twin, model, state, data, parts) == expected


def begins_documents(segments, tokenizer):
    """The library sees each text as a document's begin: so must the kernel."""
    return [(text, token, True) for text, token, _ in segments]


@pytest.fixture(scope="module", params=range(len(BPES)))
def bpe_model(request):
    tokenizer, config = bpe(*BPES[request.param])
    model = sentencepiece.compile_model(config, tokenizer.get_vocab(False))
    return model, model.new_state(), tokenizer


@given(segments=SEGMENTS)
def test_sentencepiece_bpe(bpe_model, segments):
    model, state, tokenizer = bpe_model
    segments = begins_documents(segments, tokenizer)

    check(
        kernels.encode_sentencepiece,
        reference.encode_sentencepiece,
        model,
        state,
        tokenizer,
        segments,
    )


@pytest.fixture(scope="module", params=range(len(WORD_PIECES)))
def word_piece_model(request):
    tokenizer, config = word_pieces(**WORD_PIECES[request.param])
    model = wordpiece.compile_model(config, tokenizer.get_vocab(False))
    return model, model.new_state(), tokenizer


@given(segments=SEGMENTS)
def test_wordpiece(word_piece_model, segments):
    model, state, tokenizer = word_piece_model

    check(kernels.encode_wordpiece, reference.encode_wordpiece, model, state, tokenizer, segments)


@pytest.fixture(scope="module", params=range(len(UNIGRAMS)))
def unigram_model(request):
    tokenizer, config = uni(*UNIGRAMS[request.param])
    model = unigram.compile_model(config, tokenizer.get_vocab(False))
    return model, model.new_state(), tokenizer


@given(segments=SEGMENTS)
def test_unigram(unigram_model, segments):
    model, state, tokenizer = unigram_model
    segments = begins_documents(segments, tokenizer)

    check(kernels.encode_unigram, reference.encode_unigram, model, state, tokenizer, segments)


@cache
def precompiled():
    """The charsmap as a step of ours and in the library; both take a while to make."""
    library = tokenizers.normalizers.Precompiled(write_charsmap(CHARSMAP))
    return text_rules.compile_normalizer(PRECOMPILED).steps[0], library


@given(segments=SEGMENTS)
def test_charsmap(segments):
    step, library = precompiled()
    data, parts = arrays_of(segments)
    results = []
    for normalize in (kernels.normalize_charsmap, reference.normalize_charsmap):
        out = np.zeros(step.growth * len(data) + 64, np.uint8)
        starts, ends = np.zeros_like(parts.starts), np.zeros_like(parts.ends)
        normalize(data, *parts[:3], step.tables, out, starts, ends)
        results.append([bytes(out[a:b]).decode() for a, b in zip(starts, ends, strict=True)])

    expected = ["" if token >= 0 else library.normalize_str(text) for text, token, _ in segments]
    assert results == [expected, expected]


@cache
def text_rule(step):
    """A rule as a step of ours and in the library."""
    name = {
        "Nmt": {"type": "Nmt"}, "Lowercase": {"type": "Lowercase"}, "Strip": STRIPS,
        "Spaces": SPACES,
        "String": {"type": "Replace", "pattern": {"String": "aa"}, "content": META},
    }[step]  # fmt: skip
    return text_rules.compile_normalizer(name).steps[0], uni(False, name, METASPACE)[0].normalizer


@given(segments=SEGMENTS, step=st.sampled_from(["Nmt", "Lowercase", "Strip", "Spaces", "String"]))
def test_text_rules(segments, step):
    rule, library = text_rule(step)
    data, parts = arrays_of(segments)
    results = []
    for apply in (kernels.apply_text_rule, reference.apply_text_rule):
        out = np.zeros(3 * len(data) + 64, np.uint8)
        starts, ends = np.zeros_like(parts.starts), np.zeros_like(parts.ends)
        apply(
            data, *parts[:3], rule.rule, *rule.table, rule.pattern, rule.content, out, starts, ends
        )
        source = data if step == "Strip" else out
        results.append([bytes(source[a:b]).decode() for a, b in zip(starts, ends, strict=True)])

    expected = ["" if token >= 0 else library.normalize_str(text) for text, token, _ in segments]
    assert results == [expected, expected]


def test_a_piece_in_the_middle_of_a_document_gets_no_first_prefix():
    tokenizer, config = bpe(*BPES[4])
    model = sentencepiece.compile_model(config, tokenizer.get_vocab(False))
    data, parts = arrays_of([("ab", -1, True), ("ab", -1, False)])

    begin, middle = ids_of(kernels.encode_sentencepiece, model, model.new_state(), data, parts)

    assert [tokenizer.id_to_token(i) for i in begin] == [META + "ab"]
    assert [tokenizer.id_to_token(i) for i in middle] == ["ab"]


@pytest.mark.parametrize(
    ("compile_model", "made", "message"),
    [
        (sentencepiece.compile_model, bpe(True, True, LLAMA, ignore_merges=True), "ignore_merges"),
        (sentencepiece.compile_model, bpe(True, True, REPLACE, end_of_word_suffix="a"), "suffix"),
        (sentencepiece.compile_model, bpe(False, True, LLAMA, unk_token=None), "neither"),
        (unigram.compile_model, uni(False, {"type": "NFKC"}, METASPACE), "the normalizer NFKC"),
        (unigram.compile_model, uni(False, None, None), "without Metaspace"),
        (
            unigram.compile_model,
            uni(False, PRECOMPILED, METASPACE | {"prepend_scheme": "first"}),
            "prepend_scheme",
        ),
    ],
)
def test_what_is_not_reproduced_is_named(compile_model, made, message):
    tokenizer, config = made

    with pytest.raises(UnsupportedError, match=message):
        compile_model(config, tokenizer.get_vocab(False))
