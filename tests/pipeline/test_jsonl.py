"""Blocks of JSON lines read by the kernel: what the strict reader gives, line by line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gristmill.pipeline import batches, jsonl
from gristmill.pipeline.batches import BatchBuilder, Piece, ReadBatch
from gristmill.pipeline.config import SourceConfig
from gristmill.pipeline.jsonl import JsonBlockReader, read_jsonl
from gristmill.pipeline.lines import LineBlock
from gristmill.pipeline.odd_lines import OddLineReader
from gristmill.pipeline.sources import SourceFile

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["", "en", "\ud800", "x\udc00", "\U0001f600", "\x00", 'a"\\b'])
    | st.sampled_from([-0.0, 0.1, 1e22, 100.0, 10**18 - 1, 10**18]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(["text", "text", "id", "language", "lang", "score", "é", "other"])
TOKENS = st.sampled_from(
    [
        *[
            b'"',
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\x00",
            b"\xff",
            b"\xed\xa0\x80",
            b"\xc3",
        ],
        *[b'"text":1,', b'"text":"2",', b'"te\\u0078t":"3",', b"\\ud800", b"NaN", b"1e999", b"-0"],
        *[b"1.50", b"01", b"\x0b", b" ", b"\r", b"/**/", b"'", b"\\x", b"\\u12", b"[" * 300],
    ]
)


@st.composite
def lines(draw: Any) -> bytes:
    """Return a document as somebody may have written it: well, spoiled at one place, or blank."""
    if draw(st.integers(0, 9)) == 0:
        return draw(
            st.sampled_from([b"", b"  ", b"\r", b"\x0b\t", b"[]", b"null", b'"text"', b"{}"])
        )
    row = draw(st.dictionaries(KEYS, VALUES, max_size=5))
    if draw(st.booleans()):
        row["text"] = draw(st.text(max_size=40))
    line = json.dumps(row, ensure_ascii=draw(st.booleans()), indent=None)
    raw = line.encode("utf-8", draw(st.sampled_from(["surrogatepass", "replace"])))
    if draw(st.integers(0, 2)) == 0:
        place = draw(st.integers(0, len(raw)))
        raw = raw[:place] + draw(TOKENS) + raw[place + draw(st.integers(0, 2)) :]
    return raw.replace(b"\n", b" ")


def piece_of(path: str = "in.jsonl", language: str = "", size: int = 1) -> Piece:
    source = SourceConfig(path=path, columns=("score", "é", "lang"))
    return Piece(
        file=SourceFile(
            source=source, source_name="s", path=path, origin_file="in.jsonl", format="jsonl",
            compression="", language=language, size_bytes=size,
        )
    )  # fmt: skip


def read_by_line(piece: Piece, block: LineBlock) -> ReadBatch:
    builder, reader = BatchBuilder(piece.file.source.columns), OddLineReader(piece)
    offset = block.offset
    for line in block.data.split(b"\n"):
        reader.read(builder, offset, line)
        offset += len(line) + 1
    return builder.take()


@example(raw=[b'{"text": "a", "score": 1.50}', b"", b'{"text": "b", "score": "x"}'], language="")
@example(raw=[b'{"text": "a", "lang": 3, "language": "en"}', b'{"text": "\\ud83d"}'], language="")
@example(raw=[b'{"text": "a"}', b'{"text": "\xff"}', b'{"text": "b"}'], language="de")
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(raw=st.lists(lines(), min_size=1, max_size=5), language=st.sampled_from(["", "de"]))
def test_blocks_read_by_the_kernel_equal_those_read_line_by_line(
    raw: list[bytes], language: str
) -> None:
    piece = piece_of(language=language)
    block = LineBlock(offset=70, data=b"\n".join(raw), skipped_bytes=0, input_bytes=0)

    got, expected = JsonBlockReader(piece).read(block), read_by_line(piece, block)

    got.documents.validate(full=True)
    assert got.documents.schema == expected.documents.schema
    assert got.documents.to_pylist() == expected.documents.to_pylist()
    assert replace(got, documents=None) == replace(expected, documents=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["en", "zh", "hi", "other"])
def test_real_files_are_read_alike(shared: Path, name: str) -> None:
    piece = piece_of(str(shared / "corpora" / "dev" / f"{name}.jsonl.zst"))
    piece = replace(piece, file=replace(piece.file, compression="zstd"))
    reader = JsonBlockReader(piece)
    blocks = [block for block in jsonl.jsonl_blocks(piece) if isinstance(block, LineBlock)]

    for block in blocks[:: len(blocks) // 3 or 1]:
        got, expected = reader.read(block), read_by_line(piece, block)
        assert got.documents.equals(expected.documents)
        assert got.rejected == expected.rejected


def test_blocks_are_joined_until_a_batch_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.jsonl"
    rows = [json.dumps({"text": "x" * 900, "id": n}) for n in range(5000)]
    rows[17], rows[4000] = "{", ""
    path.write_text("\n".join(rows))
    monkeypatch.setattr(jsonl, "ROW_GROUP_TEXT_BYTES", 2_000_000)

    found = list(read_jsonl(piece_of(str(path), size=path.stat().st_size)))

    assert [len(batch.documents) for batch in found] == [2268, 2267, 463]  # from 1 MiB blocks
    assert sum(batch.documents_in for batch in found) == 4999
    assert sum(batch.blank_lines for batch in found) == 1
    assert sum(batch.input_bytes for batch in found) == path.stat().st_size
    assert [one.origin_offset for one in found[0].rejected] == [len("\n".join(rows[:17])) + 1]
    ids = [one for batch in found for one in batch.documents["input_id"].to_pylist()]
    assert ids == [str(n) for n in range(5000) if n not in (17, 4000)]
    assert batches.join_batches(found[:1]) is found[0]
