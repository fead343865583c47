"""`gristmill tokenize`: files straight to prefixes, in input order, with Megatron's bytes."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import zstandard

from gristmill.indexed_dataset import DatasetManifest, IndexedDataset, PrefixExistsError
from gristmill.pipeline import Tokenizer, cuts, encode_inputs, tokenize_inputs
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.tokenize_inputs import tokenize_files
from gristmill.pipeline.tokenizer_files import TokenizerError
from gristmill.pipeline.train_tokenizer import special_tokens, train_bpe

EOD = "<|endoftext|>"
TEXTS = [f"text {n}: " + "some words and 12 more " * (n % 5) + "é中\n" for n in range(200)]
Write = Callable[[Path, list[dict[str, object]]], Path]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tokenizer")
    content = train_bpe(TEXTS, vocab_size=350, special_tokens=special_tokens(EOD))
    (folder / "tokenizer.json").write_text(content)
    return str(folder)


@pytest.fixture
def lines(tmp_path: Path, write_jsonl: Write) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", [{"text": text, "id": 7} for text in TEXTS])


def tokenize(inputs: list[Path], prefix: Path, tokenizer: str, **options: object) -> list[Path]:
    options = {"workers": 1, "progress": Progress(quiet=True)} | options
    return tokenize_files([str(path) for path in inputs], prefix, tokenizer, **options)


def texts_of(prefix: Path, tokenizer: str) -> list[str]:
    engine = tokenizers.Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    dataset = IndexedDataset(prefix)
    documents = [dataset.get_document(n).tolist() for n in range(dataset.num_documents)]
    return [engine.decode(ids, skip_special_tokens=False) for ids in documents]


def test_documents_stand_in_input_order_without_eod(
    tmp_path: Path, lines: Path, tokenizer: str
) -> None:
    (prefix,) = tokenize([lines], tmp_path / "out", tokenizer)

    assert prefix == tmp_path / "out"
    assert texts_of(prefix, tokenizer) == TEXTS
    manifest = DatasetManifest.load(tmp_path / "out.json")
    assert manifest is not None
    assert (manifest.document_order, manifest.eod_id) == ("input", None)
    assert manifest.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.jsonl",
        "out.bin",
        "out.idx",
        "out.json",
        "out.origin",
    ]


@pytest.mark.parametrize("append_eod", [False, True])
def test_the_bytes_are_those_of_megatron(
    tmp_path: Path, write_jsonl: Write, tokenizer: str, append_eod: bool
) -> None:
    megatron = pytest.importorskip("megatron.core.datasets.indexed_dataset")
    texts = [*TEXTS[:50], "", *TEXTS[50:]]
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    engine = tokenizers.Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    builder = megatron.IndexedDatasetBuilder(
        str(tmp_path / "megatron.bin"),
        dtype=megatron.DType.optimal_dtype(engine.get_vocab_size()),
    )
    for text in texts:  # as tools/preprocess_data.py does
        ids = engine.encode(text, add_special_tokens=False).ids
        if ids and append_eod:
            ids.append(engine.token_to_id(EOD))
        builder.add_document(ids, [len(ids)] if ids else [])
    builder.finalize(str(tmp_path / "megatron.idx"))

    tokenize([path], tmp_path / "ours", tokenizer, append_eod=append_eod)

    for end in (".bin", ".idx"):
        ours, theirs = (tmp_path / f"{name}{end}" for name in ("ours", "megatron"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_neither_workers_nor_units_change_a_byte(
    tmp_path: Path, lines: Path, tokenizer: str
) -> None:
    for name, options in {
        "one": {},
        "many": {"piece_bytes": 500},
        "two": {"piece_bytes": 2000, "workers": 2},
    }.items():
        tokenize([lines], tmp_path / name, tokenizer, append_eod=True, **options)

    for end in (".bin", ".idx", ".json", ".origin"):
        assert len({(tmp_path / f"{n}{end}").read_bytes() for n in ("one", "many", "two")}) == 1


def test_inputs_of_several_kinds_are_read_in_the_order_given(
    tmp_path: Path, write_jsonl: Write, tokenizer: str
) -> None:
    rows = [{"text": text} for text in TEXTS]
    plain = write_jsonl(tmp_path / "z.jsonl", rows[:10])
    packed = tmp_path / "y.jsonl.gz"
    packed.write_bytes(gzip.compress(write_jsonl(tmp_path / "t", rows[10:20]).read_bytes()))
    (tmp_path / "sub").mkdir()
    for name, part in (("b", rows[30:40]), ("a", rows[20:30])):
        content = write_jsonl(tmp_path / "t", part).read_bytes()
        (tmp_path / "sub" / f"{name}.jsonl.zst").write_bytes(zstandard.compress(content))
    table = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": TEXTS[40:50]}), table, row_group_size=3)
    text = tmp_path / "last.txt"
    text.write_text(TEXTS[50].strip())

    inputs = [plain, packed, tmp_path / "sub", table, text]
    tokenize(inputs, tmp_path / "out", tokenizer, piece_bytes=300)

    assert texts_of(tmp_path / "out", tokenizer) == [*TEXTS[:50], TEXTS[50].strip()]


def test_each_of_several_keys_has_its_own_prefix_and_they_stay_aligned(
    tmp_path: Path, write_jsonl: Write, tokenizer: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows: list[dict[str, object]] = [
        {"question": f"q{n}", "text": f"t{n}", "id": "x"} for n in range(5)
    ]
    del rows[1]["text"]
    rows[3]["question"] = None
    path = write_jsonl(tmp_path / "in.jsonl", rows)

    prefixes = tokenize([path], tmp_path / "qa", tokenizer, json_keys=("question", "text"))

    assert prefixes == [tmp_path / "qa_question", tmp_path / "qa_text"]
    assert texts_of(prefixes[0], tokenizer) == ["q0", "q2", "q4"]
    assert texts_of(prefixes[1], tokenizer) == ["t0", "t2", "t4"]
    rejected = [json.loads(line) for line in (tmp_path / "qa.rejected.jsonl").open()]
    assert [row["reason"] for row in rejected] == ["missing_text", "missing_text"]
    assert "2 documents were rejected" in caplog.text


def test_bad_lines_are_named_with_file_and_offset_and_the_rest_is_kept(
    tmp_path: Path, tokenizer: str
) -> None:
    good = [json.dumps({"text": f"good {n}"}).encode() for n in range(3)]
    bad = [b'{"text": "cut', b'{"text": "\xff"}', b'{"body": "no text"}']
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join([good[0], bad[0], good[1], bad[1], bad[2], good[2]]) + b"\n")

    tokenize([path], tmp_path / "out", tokenizer)

    assert texts_of(tmp_path / "out", tokenizer) == ["good 0", "good 1", "good 2"]
    rows = [json.loads(line) for line in (tmp_path / "out.rejected.jsonl").open()]
    content = path.read_bytes()
    assert [(r["origin_file"], r["reason"]) for r in rows] == [
        ("in.jsonl", "rejected_json"),
        ("in.jsonl", "rejected_utf8"),
        ("in.jsonl", "missing_text"),
    ]
    for row, line in zip(rows, bad, strict=True):
        assert content[row["origin_offset"] :].startswith(line)


def test_a_wrong_key_writes_no_empty_dataset(tmp_path: Path, lines: Path, tokenizer: str) -> None:
    with pytest.raises(ValueError, match=r"no document has the key body.*--json-keys"):
        tokenize([lines], tmp_path / "out", tokenizer, json_keys=("body",))

    assert not (tmp_path / "out.idx").exists()
    assert not (tmp_path / "out.work").exists()
    assert "missing_text" in (tmp_path / "out.rejected.jsonl").read_text()


def test_origins_lead_back_to_the_lines(tmp_path: Path, lines: Path, tokenizer: str) -> None:
    tokenize([lines], tmp_path / "out", tokenizer, piece_bytes=700)

    manifest = DatasetManifest.load(tmp_path / "out.json")
    assert manifest is not None
    assert manifest.origin_files == ("in.jsonl",)
    content = lines.read_bytes()
    for text, (file, offset) in zip(
        TEXTS, np.fromfile(tmp_path / "out.origin", "<i8").reshape(-1, 2).tolist(), strict=True
    ):
        assert file == 0
        assert json.loads(content[offset:].split(b"\n", 1)[0])["text"] == text


def test_files_of_the_same_name_are_told_apart(
    tmp_path: Path, write_jsonl: Write, tokenizer: str
) -> None:
    paths = [write_jsonl(tmp_path / name / "in.jsonl", [{"text": name}]) for name in ("two", "one")]

    tokenize(paths, tmp_path / "out", tokenizer)

    assert texts_of(tmp_path / "out", tokenizer) == ["two", "one"]
    manifest = DatasetManifest.load(tmp_path / "out.json")
    assert manifest is not None
    assert manifest.origin_files == ("two/in.jsonl", "one/in.jsonl")


def test_an_existing_prefix_is_refused_and_replaced_only_on_request(
    tmp_path: Path, lines: Path, write_jsonl: Write, tokenizer: str
) -> None:
    tokenize([lines], tmp_path / "out", tokenizer)
    other = write_jsonl(tmp_path / "other.jsonl", [{"text": "new"}])

    with pytest.raises(PrefixExistsError, match="out exists already, and nothing was done"):
        tokenize([other], tmp_path / "out", tokenizer)
    assert texts_of(tmp_path / "out", tokenizer) == TEXTS

    tokenize([other], tmp_path / "out", tokenizer, overwrite=True)
    assert texts_of(tmp_path / "out", tokenizer) == ["new"]


def test_a_document_too_long_for_the_tokenizer_is_rejected_by_name(
    tmp_path: Path, write_jsonl: Write, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuts, "MAX_PIECE_BYTES", 1000)
    monkeypatch.setattr(cuts, "PIECE_BYTES", 100)
    delegating = functools.partial(Tokenizer, delegate=True)  # our engine needs no cuts
    monkeypatch.setattr(tokenize_inputs, "Tokenizer", delegating)
    path = write_jsonl(
        tmp_path / "in.jsonl", [{"text": "a b"}, {"text": "x" * 1500}, {"text": "c d " * 500}]
    )

    tokenize([path], tmp_path / "out", tokenizer)

    assert texts_of(tmp_path / "out", tokenizer) == ["a b", "c d " * 500]
    (row,) = [json.loads(line) for line in (tmp_path / "out.rejected.jsonl").open()]
    assert row["reason"] == "too_long"


def test_an_unknown_eod_or_input_is_an_error_before_any_work(
    tmp_path: Path, lines: Path, tokenizer: str
) -> None:
    with pytest.raises(TokenizerError, match=r"which .* does not have"):
        tokenize([lines], tmp_path / "out", tokenizer, append_eod=True, eod="<none>")
    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        tokenize([tmp_path / "missing.jsonl"], tmp_path / "out", tokenizer)

    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def ids_of(prefix: Path) -> list[list[int]]:
    dataset = IndexedDataset(prefix)
    return [dataset.get_document(n).tolist() for n in range(dataset.num_documents)]


def test_a_token_can_begin_each_document_that_has_any(
    tmp_path: Path, write_jsonl: Write, tokenizer: str
) -> None:
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": "some"}, {"text": ""}, {"text": "words"}])
    engine = tokenizers.Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    bos, eod = engine.token_to_id("<|reserved_0|>"), engine.token_to_id(EOD)

    tokenize(
        [path], tmp_path / "out", tokenizer, prepend_bos=True, bos="<|reserved_0|>", append_eod=True
    )

    some, words = (engine.encode(text).ids for text in ("some", "words"))
    assert ids_of(tmp_path / "out") == [[bos, *some, eod], [], [bos, *words, eod]]


def test_a_tokenizer_that_names_no_beginning_asks_for_one(
    tmp_path: Path, lines: Path, tokenizer: str
) -> None:
    with pytest.raises(TokenizerError, match=r"which token begins a text. Set bos to one of"):
        tokenize([lines], tmp_path / "out", tokenizer, prepend_bos=True)
    with pytest.raises(TokenizerError, match=r"has no token '<none>'"):
        tokenize([lines], tmp_path / "out", tokenizer, prepend_bos=True, bos="<none>")
    with pytest.raises(ValueError, match="would begin with two"):
        tokenize([lines], tmp_path / "out", tokenizer, prepend_bos=True, add_special_tokens=True)


def test_the_post_processor_of_the_tokenizer_is_used_on_request(
    tmp_path: Path, lines: Path, tokenizer: str
) -> None:
    engine = tokenizers.Tokenizer.from_file(f"{tokenizer}/tokenizer.json")
    engine.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{EOD} $A", special_tokens=[(EOD, engine.token_to_id(EOD))]
    )
    engine.save(str(tmp_path / "tokenizer.json"))

    tokenize([lines], tmp_path / "out", str(tmp_path / "tokenizer.json"), add_special_tokens=True)

    assert ids_of(tmp_path / "out") == [engine.encode(text).ids for text in TEXTS]


def test_one_document_may_be_larger_than_a_task(
    tmp_path: Path, write_jsonl: Write, tokenizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_inputs, "TASK_BYTES", 1000)
    texts = ["a b", "some words and 12 more " * 1000, "c"]
    path = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts])

    tokenize([path], tmp_path / "out", tokenizer, workers=3)

    assert texts_of(tmp_path / "out", tokenizer) == texts
