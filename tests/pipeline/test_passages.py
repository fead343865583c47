"""Repeated passages: what is found and cut, what stays, and that every byte is accounted for."""

from __future__ import annotations

import io
import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gristmill.indexed_dataset import IndexedDataset, find_prefixes
from gristmill.pipeline import Tokenizer, recipe
from gristmill.pipeline.check import check_config
from gristmill.pipeline.config import (
    DedupConfig,
    PackConfig,
    PassagesConfig,
    PreprocessConfig,
    SourceConfig,
    TokenizerConfig,
)
from gristmill.pipeline.passage_cuts import Cuts, apply_cuts
from gristmill.pipeline.passage_places import split


def as_arrays(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    documents = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    return np.frombuffer(b"".join(documents), np.uint8), offsets


@given(st.lists(st.text("ab\n", max_size=12), max_size=5), st.booleans())
def test_passages_are_what_line_ends_and_empty_lines_separate(
    texts: list[str], by_paragraph: bool
) -> None:
    data, offsets = as_arrays(texts)

    found = split(data, offsets, by_paragraph)

    got = [
        (int(document), data[start:end].tobytes().decode(), data[start:cut].tobytes().decode())
        for document, start, end, cut in zip(
            found.documents, found.starts, found.ends, found.cut_ends, strict=True
        )
    ]
    expected = []
    for number, text in enumerate(texts):
        rest = text.lstrip("\n")
        pieces = rest.split("\n\n") if by_paragraph else rest.split("\n")
        for piece in pieces:
            if piece.strip("\n"):
                expected.append((number, piece.strip("\n")))
    assert [(document, passage) for document, passage, _ in got] == expected
    for number, text in enumerate(texts):
        assert "".join(cut for document, _, cut in got if document == number) == text.lstrip("\n")


def write(path: Path, texts: list[str], language: str = "en") -> SourceConfig:
    with path.open("w") as file:
        for text in texts:
            file.write(json.dumps({"text": text, "lang": language}) + "\n")
    return SourceConfig(path=str(path), name=path.stem)


def unique(seed: int, words: int = 40) -> str:
    random_words = random.Random(seed)
    return " ".join(f"{random_words.randrange(10**6):x}" for _ in range(words))


def settings(*sources: SourceConfig, **passages: object) -> PreprocessConfig:
    return PreprocessConfig(
        sources=sources,
        dedup=DedupConfig(near=False),
        passages=PassagesConfig(**passages),  # type: ignore[arg-type]
        tokenizer=TokenizerConfig(vocab_size=400, train_bytes=20_000),
        pack=PackConfig(validation_fraction=0, min_documents=1),
    )


def texts_of(output: Path) -> list[str]:
    """Return the texts of all documents in the token files, sorted."""
    tokenizer = Tokenizer(str(output / "data/tokenizer"))
    found = []
    for prefixes in find_prefixes(output / "data/train").values():
        for prefix in prefixes:
            dataset = IndexedDataset(prefix)
            for number in range(dataset.num_documents):
                found.append(tokenizer.decode(dataset.get_document(number)[:-1]))
    return sorted(found)


def run(config: PreprocessConfig, output: Path, workers: int = 1) -> dict[str, object]:
    recipe.preprocess(config, output=output, workers=workers, console=Console(file=io.StringIO()))
    report: dict[str, object] = json.loads((output / "report.json").read_text())
    return report


FOOTER = "All rights reserved by the owners of this page."


@pytest.mark.parametrize("mode", ["keep_first", "drop"])
def test_a_line_of_many_documents_of_a_source_goes(tmp_path: Path, mode: str) -> None:
    bodies = [unique(n) for n in range(12)]
    web = write(
        tmp_path / "web.jsonl", [f"{body}\n{FOOTER}\nend {n}" for n, body in enumerate(bodies)]
    )
    rare = write(tmp_path / "rare.jsonl", [f"{FOOTER}\n{unique(100 + n)}" for n in range(2)])

    report = run(settings(web, rare, lines=mode, max_documents=5), tmp_path / "out")

    texts = texts_of(tmp_path / "out")
    with_footer = [text for text in texts if FOOTER in text]
    # The two of the other source are not many there.
    assert len(with_footer) == 2 + (mode == "keep_first")
    for n, body in enumerate(bodies):
        first = mode == "keep_first" and n == 0
        assert (f"{body}\n{FOOTER}\nend {n}" if first else f"{body}\nend {n}") in texts
    gone = 12 - (mode == "keep_first")
    assert report["sources"]["web"]["cut_documents"] == gone  # type: ignore[index]
    assert report["sources"]["web"]["cut_bytes"] == gone * (len(FOOTER) + 1)  # type: ignore[index]
    assert report["sources"]["rare"]["cut_bytes"] == 0  # type: ignore[index]
    assert report["languages"]["eng_Latn"]["cut_bytes"] == gone * (len(FOOTER) + 1)  # type: ignore[index]
    total = sum(len(text.encode()) for text in texts)
    assert report["total"]["text_bytes"] == total  # type: ignore[index]


def test_paragraphs_go_whole_and_documents_of_nothing_else_are_dropped_by_name(
    tmp_path: Path,
) -> None:
    paragraph = f"{FOOTER}\nSecond line of the notice."
    texts = [f"{unique(n)}\n\n{paragraph}" for n in range(8)] + [f"{paragraph}\n\n{paragraph}"]
    web = write(tmp_path / "web.jsonl", texts)

    report = run(settings(web, paragraphs="drop", max_documents=5), tmp_path / "out")

    assert texts_of(tmp_path / "out") == sorted(unique(n) for n in range(8))
    assert report["total"]["dropped"] == {"repeated_passages": 1}  # type: ignore[index]
    rejected = [
        json.loads(line)
        for path in (tmp_path / "out/rejected").iterdir()
        for line in path.read_text().splitlines()
    ]
    assert [(row["reason"], row["text_bytes"]) for row in rejected] == [
        ("repeated_passages", len(texts[-1]))
    ]
    page = (tmp_path / "out/report.html").read_text()
    samples = page.split('<h3 id="repeated_passages">')[1].split("<h2")[0]
    assert samples.count(FOOTER) == 2
    assert '<h2 id="passages">' in page
    cuts = pq.read_table(next((tmp_path / "out/cuts").iterdir())).to_pylist()
    first = texts[0].encode()[cuts[0]["start"] : cuts[0]["end"]].decode()
    assert (first, cuts[0]["kind"]) == (paragraph, "paragraph")


def test_short_and_rare_lines_stay(tmp_path: Path) -> None:
    texts = [f"{unique(n)}\n}}\n{FOOTER if n < 5 else ''}" for n in range(12)]
    web = write(tmp_path / "web.jsonl", texts)

    run(settings(web, lines="drop", max_documents=5), tmp_path / "out")

    assert texts_of(tmp_path / "out") == sorted(text.strip() for text in texts)


def test_one_copy_of_a_long_span_stays_wherever_it_stands(tmp_path: Path) -> None:
    shared = unique(7, 200)  # about 1,150 bytes
    a = write(tmp_path / "a.jsonl", [unique(1), f"{unique(2)} {shared} {unique(3)}"])
    b = write(tmp_path / "b.jsonl", [f"{unique(4)} {shared}", f"字{shared[:390]}語 {unique(5)}"])

    run(settings(a, b, spans="keep_first"), tmp_path / "out")

    texts = texts_of(tmp_path / "out")
    assert f"{unique(2)} {shared} {unique(3)}" in texts
    assert f"字{shared[:390]}語 {unique(5)}" in texts  # shorter than 4/5 of span_bytes
    copy = next(text for text in texts if text.startswith(unique(4)))
    left = len(copy) - len(unique(4))
    assert left <= 2 * 101
    assert len(texts) == 4


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(0, 3))
def test_cutting_any_ranges_leaves_the_rest_in_order(places: list[int], row: int) -> None:
    text = "".join(chr(0x4E00 + n) for n in range(20))
    bounds = sorted({place // 3 * 3 for place in places})
    ranges = list(zip(bounds[::2], bounds[1::2], strict=False))
    columns = np.array([(row, *one) for one in ranges], np.int64).reshape(-1, 3).T
    table = pa.table({"text": pa.array([text] * 4, pa.large_string())})

    cut, lost = apply_cuts(table, np.arange(4), Cuts(*columns))

    texts = cut["text"].to_pylist()
    kept = [c for n, c in enumerate(text) if not any(a <= 3 * n < b for a, b in ranges)]
    assert texts[row].replace("\n", "") == "".join(kept)
    assert lost[row] == len(text.encode()) - len(texts[row].encode())
    assert [one for n, one in enumerate(texts) if n != row] == [text] * 3


def test_uniform_text_keeps_a_copy_of_itself(tmp_path: Path) -> None:
    web = write(tmp_path / "web.jsonl", ["=" * 20_000, unique(1)])

    run(settings(web, spans="keep_first"), tmp_path / "out")

    assert 400 <= len(min(texts_of(tmp_path / "out"), key=lambda text: -text.count("="))) <= 1_000


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent.name != "log"
    }


@pytest.mark.slow
def test_what_is_cut_does_not_depend_on_workers_units_files_or_a_second_run(tmp_path: Path) -> None:
    shared = unique(7, 150)
    folder = tmp_path / "texts"
    folder.mkdir()
    numbers = itertools.count()
    for name in "abcd":
        texts = [f"{unique(next(numbers))}\n{FOOTER}\n{shared}" for _ in range(15)]
        write(folder / f"{name}.jsonl", texts)
    files = sorted(map(str, folder.iterdir()))
    config = settings(
        SourceConfig(path=tuple(files), name="web"), lines="keep_first", spans="keep_first"
    )
    run(config, tmp_path / "one")
    backwards = replace(
        config,
        sources=(SourceConfig(path=tuple(files[::-1]), name="web"),),
        clean=replace(config.clean, unit_bytes=7_000),
    )

    run(backwards, tmp_path / "two", workers=2)

    assert bytes_of(tmp_path / "two/data") == bytes_of(tmp_path / "one/data")
    assert len(list((tmp_path / "two/cuts").iterdir())) > len(
        list((tmp_path / "one/cuts").iterdir())
    )
    before = bytes_of(tmp_path / "two")
    run(backwards, tmp_path / "two")
    assert bytes_of(tmp_path / "two") == before
    texts = texts_of(tmp_path / "one")
    assert sum(FOOTER in text for text in texts) == 1
    assert sum(shared[200:600] in text for text in texts) == 1


def test_nothing_is_looked_for_by_default(tmp_path: Path) -> None:
    web = write(tmp_path / "web.jsonl", [f"{unique(n)}\n{FOOTER}" for n in range(12)])

    run(settings(web), tmp_path / "out")

    assert not (tmp_path / "out/cuts").exists()
    assert not (tmp_path / "out/work/passages").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"max_documents": 0}, "passages.max_documents is 0: it must be 1 or more"),
        ({"span_bytes": 10}, "passages.span_bytes is 10: it must be 50 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_config(PreprocessConfig(passages=PassagesConfig(**setting)))  # type: ignore[arg-type]
