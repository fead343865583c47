"""Whole tokenizers of the three families, real and trained, through the engine and the library.

A small cut runs always; all of `corpora/dev`, every Unicode scalar in eight contexts and all short
strings over representatives run in `make test-deep`.
"""

import io
import itertools
import json
import random

import numpy as np
import pytest
import tokenizers
import zstandard
from tokenizers import models, normalizers, pre_tokenizers, trainers

from gristmill.pipeline.engine import probe_bert, probe_graphemes, text_rules, wordpiece
from gristmill.pipeline.engine.charsmap_files import write_charsmap
from gristmill.pipeline.engine.compile import compile_engine

META = "\u2581"
CONTEXTS = ("{}", "a{}", "{}a", "a{}b", " {}", "{} ", "{0}{0}", "é{}\u0301")
REPRESENTATIVES = "aZ9 \u2581.\n\u0301é中ßİ\u200d\u0915\u094d\U0001f600\ufb01"
REAL = ("llama2", pytest.param("gemma3", marks=pytest.mark.slow), "bert_minilm")


def charsmap():
    """What SentencePiece's nmt_nfkc does to some characters, and a key of two."""
    table = {chr(c): " " for c in (9, 10, 13, 0xA0, 0x3000, 0x2581)}
    table |= {chr(c): "" for c in (1, 2, 0x7F, 0xAD)}
    table |= {chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}
    table |= {"\ufb01": "fi", "e\u0301": "é", "\u212b": "Å", "\u1100\u1161": "가", "İ": "I\u0307"}
    return write_charsmap(table)


def trained(kind, texts):
    if kind == "wordpiece":
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=3000, special_tokens=["[UNK]", "[CLS]"])
    elif kind == "sentencepiece":
        model = models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True)
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=3000, special_tokens=["<unk>", *byte_tokens], limit_alphabet=800
        )
    else:
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence(
            [
                normalizers.Precompiled(charsmap()),
                normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
            ]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=2000, special_tokens=["<unk>", "<s>"], unk_token="<unk>", n_sub_iterations=1
        )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


@pytest.fixture(scope="module", params=["sentencepiece", "wordpiece", "unigram"])
def small(request, sample_texts):
    return trained(request.param, [text[:600] for _, text in sample_texts])


@pytest.fixture(scope="module", params=REAL)
def real(request, shared):
    path = shared / "tokenizers" / f"{request.param}.json.zst"
    raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(path.read_bytes())).read()
    tokenizer = tokenizers.Tokenizer.from_str(raw.decode())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def compare(tokenizer, engine, texts):
    raw = [text.encode() for text in texts]
    offsets = np.zeros(len(raw) + 1, np.int64)
    offsets[1:] = np.cumsum([len(text) for text in raw])
    data = np.frombuffer(b"".join(raw), np.uint8)
    ids, bounds = engine.encode(data, offsets, np.dtype(np.int32))
    for start in range(0, len(texts), 512):
        expected = tokenizer.encode_batch_fast(texts[start : start + 512], add_special_tokens=False)
        for number, encoding in enumerate(expected, start):
            mine = ids[bounds[number] : bounds[number + 1]].tolist()
            assert mine == encoding.ids, (texts[number][:200], mine[:20], encoding.ids[:20])


def vocabulary_mixtures(tokenizer, count, seed=0):
    rng = random.Random(seed)
    strings = [s.replace(META, " ").removeprefix("##") for s in tokenizer.get_vocab(False)]
    strings.sort()
    return ["".join(rng.choices(strings, k=rng.randint(1, 12))) for _ in range(count)]


def short_strings(longest):
    return (
        "".join(letters)
        for length in range(longest + 1)
        for letters in itertools.product(REPRESENTATIVES, repeat=length)
    )


def in_contexts(code_points):
    return [context.format(chr(c)) for c in code_points for context in CONTEXTS]


def test_trained_tokenizers_give_the_ids_of_the_library(small, sample_texts):
    engine = compile_engine(small)

    compare(small, engine, [text for _, text in sample_texts])
    compare(small, engine, vocabulary_mixtures(small, 500))
    compare(small, engine, list(short_strings(2)))
    compare(small, engine, in_contexts([*range(0x250), *range(0x300, 0xD800, 97), 0xFFFD, 0x1F600]))
    compare(small, engine, ["", " ", "", "\n\n", "a" * 3000, " " * 3000, "字" * 2000 + "!"])


def test_a_memo_that_is_wiped_changes_no_ids(small, sample_texts, monkeypatch):
    from gristmill.kernels.tokenizer import memo
    from gristmill.pipeline.engine import word_state

    made = []

    def smallest_memo(zeros):
        made.append(memo.new_memo(32))
        return made[-1]

    monkeypatch.setattr(word_state, "new_memo", smallest_memo)
    engine = compile_engine(small)

    compare(small, engine, [text for _, text in sample_texts][:60])
    assert max(memo.used[3] for memo in made) > 3


def test_real_tokenizers_give_the_ids_of_the_library(real, sample_texts):
    engine = compile_engine(real)

    compare(real, engine, [text for _, text in sample_texts])
    compare(real, engine, vocabulary_mixtures(real, 300))
    compare(real, engine, list(short_strings(2)))
    compare(
        real, engine, ["<s>a</s> b<unk>", "[CLS] a [MASK]b", "<bos>x <start_of_turn>", "a<eos>"]
    )


@pytest.mark.deep
def test_every_scalar_in_eight_contexts(real):
    engine = compile_engine(real)
    scalars = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    for start in range(0, len(scalars), 20_000):
        compare(real, engine, in_contexts(scalars[start : start + 20_000]))


@pytest.mark.deep
def test_every_scalar_in_eight_contexts_of_trained_tokenizers(small):
    engine = compile_engine(small)
    scalars = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
    for start in range(0, len(scalars), 20_000):
        compare(small, engine, in_contexts(scalars[start : start + 20_000]))


@pytest.mark.deep
def test_all_short_strings_over_representatives(real):
    engine = compile_engine(real)
    strings = short_strings(5)
    while part := list(itertools.islice(strings, 50_000)):
        compare(real, engine, part)


@pytest.mark.deep
def test_all_of_the_development_corpus(real, shared):
    engine = compile_engine(real)
    for path in sorted((shared / "corpora" / "dev").glob("*.jsonl.zst")):
        with zstandard.open(path, "rt", encoding="utf-8", newline="\n") as lines:
            texts = (json.loads(line)["text"] for line in lines)
            while part := list(itertools.islice(texts, 200)):
                compare(real, engine, part)
    compare(real, engine, vocabulary_mixtures(real, 100_000, seed=1))


ASKED = np.array(
    [*range(0x700), *range(0x0F00, 0x1000), *range(0x10F0, 0x1200), *range(0x1E00, 0x2100)]
)


@pytest.mark.parametrize("deep", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_the_tables_of_bert_are_what_the_installed_library_does(deep):
    kept = wordpiece.load_bert()
    if str(kept["version"]) != tokenizers.__version__:
        pytest.skip(f"the tables are of tokenizers {kept['version']}")
    found = probe_bert.probe_bert(None if deep else ASKED)

    for name, rows in found.items():
        first = kept[name] if kept[name].ndim == 1 else kept[name][:, 0]
        if name == "cleaned":
            gone = {c for low, high, _ in kept[name].tolist() for c in range(low, high + 1)}
            asked = {c for low, high, _ in rows.tolist() for c in range(low, high + 1)}
            assert asked == (gone if deep else gone & set(ASKED.tolist()))
            continue
        chosen = np.ones(len(first), bool) if deep else np.isin(first, ASKED)
        np.testing.assert_array_equal(rows, kept[name][chosen])


@pytest.mark.parametrize("deep", [False, pytest.param(True, marks=pytest.mark.deep)])
def test_the_table_of_grapheme_clusters_is_what_the_installed_library_does(deep):
    asked = probe_graphemes.scalars() if deep else ASKED

    found = probe_graphemes.probe_graphemes(asked)

    np.testing.assert_array_equal(found[asked], text_rules.load_joins()[asked])
