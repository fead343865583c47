"""Whole runs of fine-tuning data: what is dropped is named, what is kept can be learnt from."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from gristmill.indexed_dataset import IndexedDataset, verify
from gristmill.indexed_dataset.side_streams import SideStream
from gristmill.pipeline import PreprocessConfig, Report, Tokenizer, recipe
from gristmill.pipeline import tokenize as tokenize_stage
from gristmill.pipeline.chat_config import ChatConfig, TaskConfig
from gristmill.pipeline.config import PackConfig, SourceConfig, TokenizerConfig
from gristmill.pipeline.executors import UnitError
from gristmill.pipeline.train_tokenizer import TokenizerResult

USER, ASSISTANT = "user", "assistant"


def turns(*contents: str, first: str = USER) -> list[dict[str, str]]:
    roles = (USER, ASSISTANT) if first == USER else (ASSISTANT, USER)
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]


GOOD = [
    {"messages": turns(f"question {n}", f"answer {n}", "and?", f"more {n}"), "lang": "en"}
    for n in range(60)
]

BAD: dict[str, list[Any]] = {
    "broken_roles": [
        {"messages": turns("answer first", "then a question", first=ASSISTANT)},
        {"messages": [{"role": USER, "content": "a"}, {"role": USER, "content": "b"}]},
        {"messages": [{"role": "narrator", "content": "a"}]},
        {"messages": turns("a question alone")},
        {"messages": "no list"},
        {"messages": []},
        {"text": "no messages"},
    ],
    "empty_turn": [
        {"messages": turns("question", "")},
        {"messages": turns(" \n", "answer")},
        {"messages": [{"role": USER, "content": "a"}, {"role": ASSISTANT, "content": 3}]},
    ],
    "template_fails": [{"messages": turns("refuse me", "answer")}],
    "too_long": [{"messages": turns("question", "word " * 400)}],
    "rejected_json": [
        "{no json",
        json.dumps({"messages": turns("deep", "answer")})[:-1]
        + ', "tools": '
        + "[" * 900
        + "]" * 900
        + "}",
    ],
}

TEMPLATE = """{% for m in messages %}
{% if 'refuse' in m.content %}{{ raise_exception('it is refused') }}{% endif %}
{% if m.role == 'assistant' %}
A:{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration +%}
{% else %}
Q:{{ m.content }}
{% endif %}
{% endfor %}"""

PAIRS = [
    {"prompt": f"good morning {n}", "completion": f"guten Morgen {n}", "src_lang": "en", "to": code}
    for n, code in enumerate(["de"] * 40 + ["fr", "xx-nothing", None, ""])
]


@pytest.fixture
def config(tmp_path: Path, tokenizer: TokenizerResult) -> PreprocessConfig:
    lines = [one for those in BAD.values() for one in those]
    with (tmp_path / "chat.jsonl").open("w") as file:
        for row in (*GOOD, GOOD[3], *lines):
            file.write((row if isinstance(row, str) else json.dumps(row)) + "\n")
    with (tmp_path / "pairs.jsonl").open("w") as file:
        for row in PAIRS:
            file.write(json.dumps(row) + "\n")
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    task = TaskConfig(
        kind="translate",
        prompt="From {src_lang:language} into {to:language}: {prompt}",
        language_pairs=("eng-deu",),
    )
    return PreprocessConfig(
        kind="chat",
        sources=(
            SourceConfig(path=str(tmp_path / "chat.jsonl")),
            SourceConfig(path=str(tmp_path / "pairs.jsonl"), task=task),
        ),
        chat=ChatConfig(template=str(tmp_path / "mine.jinja"), max_tokens=300),
        tokenizer=TokenizerConfig(path=str(tokenizer.folder)),
        pack=PackConfig(group_by=("source",), validation_fraction=0.2),
    )


def run(config: PreprocessConfig, output: Path, workers: int = 1) -> Report:
    console = Console(file=io.StringIO())
    return recipe.preprocess(config, output=output, workers=workers, console=console)


def content(output: Path) -> dict[str, bytes]:
    """Return what a run has made: all but what it works with."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and "work" not in path.relative_to(output).parts
    }


def documents(output: Path, split: str) -> list[tuple[str, str, str]]:
    """Return (prefix, text, what carries loss) of each document."""
    engine = Tokenizer(str(output / "data" / "tokenizer"))
    found = []
    for path in sorted((output / "data" / split).glob("*.idx")):
        assert verify(path.with_suffix(""), full=True).num_documents > 0
        dataset = IndexedDataset(path.with_suffix(""))
        stream, start = SideStream(dataset, "loss_mask"), 0
        for number in range(dataset.num_documents):
            ids = np.asarray(dataset[number])
            mask = stream.read(start, len(ids))
            start += len(ids)
            found.append((path.stem, engine.decode(ids), engine.decode(ids[mask == 1])))
    return found


def test_every_bad_row_is_dropped_with_its_reason_and_no_good_one(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    report = run(config, tmp_path / "run")
    chat, pairs = report.sources["chat"], report.sources["pairs"]
    assert chat.dropped == {
        **{reason: len(rows) for reason, rows in BAD.items()},
        "exact_duplicate": 1,
    }
    assert chat.kept == len(GOOD)
    assert report.special_strings == {}
    assert pairs.dropped == {
        "other_language_pair": 1,
        "unknown_language_pair": 2,
        "missing_field": 1,
    }
    rejected = "".join(path.read_text() for path in (tmp_path / "run/rejected").glob("*.jsonl"))
    for words in (
        "turn 0: the role 'assistant' comes first",
        "turn 1: the role 'user' follows user",
        "the role 'narrator' comes first",
        "'messages' is missing or null, not a list of turns",
        "turn 1 (assistant) says nothing",
        "turn 1 holds a int, not text",
        "mine.jinja fails: it is refused",
        "tokens; chat.max_tokens is 300",
        "the languages are 'eng-fra'",
        "'to' is 'xx-nothing', which is no known language",
        "the field 'to' is null",
    ):
        assert words in rejected, words


def test_loss_is_on_what_the_assistant_says_alone(config: PreprocessConfig, tmp_path: Path) -> None:
    report = run(config, tmp_path / "run")
    found = documents(tmp_path / "run", "train") + documents(tmp_path / "run", "validation")
    chats = {text: said for prefix, text, said in found if prefix == "chat"}
    eod = "<|endoftext|>"
    for n in range(len(GOOD)):
        text = f"Q:question {n}\nA:answer {n}{eod}\nQ:and?\nA:more {n}{eod}\n{eod}"
        assert chats[text] == f"answer {n}{eod}more {n}{eod}"
    texts = [text for prefix, text, _ in found if prefix == "pairs"]
    assert f"Q:From English into German: good morning 7\nA:guten Morgen 7{eod}\n{eod}" in texts
    engine = Tokenizer(str(tmp_path / "run/data/tokenizer"))
    said = sum(len(engine.encode_batch([one])[0]) for _, _, one in found)
    assert report.total.target_tokens == said


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_workers_or_on_a_stop(
    config: PreprocessConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config, tmp_path / "one")
    run(config, tmp_path / "two", workers=2)

    def stop(*_: object) -> None:
        raise RuntimeError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(tokenize_stage, "tokenize_unit", stop)
        with pytest.raises(UnitError, match="stopped here"):
            run(config, tmp_path / "three")
    run(config, tmp_path / "three")
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "three")


def test_held_out_conversations_stand_in_the_order_of_the_validation_documents(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    run(config, tmp_path / "run")
    held = [json.loads(line) for line in (tmp_path / "run/data/heldout.jsonl").open()]
    found = documents(tmp_path / "run", "validation")
    assert len(held) == len(found) > 5
    for row, (prefix, text, _) in zip(held, found, strict=True):
        assert row["source"] == prefix
        assert row["messages"][0]["content"] in text
        assert row["messages"][-1]["content"] in text
        assert row["task"] == ("translate" if prefix == "pairs" else "")


def test_rows_that_share_a_context_are_on_one_side(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    rows = [
        {"context": f"text {n // 5}", "question": f"what is {n}?", "answer": f"{n}"}
        for n in range(200)
    ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "qa.parquet")
    config = replace(
        config,
        kind="pairs",
        sources=(
            SourceConfig(
                path=str(tmp_path / "qa.parquet"),
                task=TaskConfig(kind="answer", held_out_by="context"),
            ),
        ),
    )
    run(config, tmp_path / "run")
    sides = [
        {text.split("\n")[0] for _, text, _ in documents(tmp_path / "run", split)}
        for split in ("train", "validation")
    ]
    assert len(sides[1]) > 2
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 40


def test_a_table_row_that_is_no_utf8_costs_that_row_alone(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    said = [f"answer {n}".encode() for n in range(30)]
    said[4] = b"caf\xe9"
    offsets = np.cumsum([0, *map(len, said)], dtype=np.int32)
    completion = pa.Array.from_buffers(
        pa.string(), len(said), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(said))]
    )
    prompt = pa.array([f"question {n}" for n in range(30)])
    table = pa.table({"prompt": prompt, "completion": completion})
    pq.write_table(table, tmp_path / "rows.parquet")
    source = SourceConfig(path=str(tmp_path / "rows.parquet"))
    report = run(replace(config, kind="pairs", sources=(source,)), tmp_path / "run")
    assert report.total.dropped == {"rejected_utf8": 1}
    assert report.total.kept == 29


def test_conversations_of_other_shapes_are_read(config: PreprocessConfig, tmp_path: Path) -> None:
    rows = [
        {"conversations": [{"from": "human", "value": f"hi {n}"}, {"from": "gpt", "value": "ho"}]}
        for n in range(25)
    ]
    (tmp_path / "share.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat = ChatConfig(
        template="chatml", messages_key="conversations", role_key="from", content_key="value",
        system_prompt="Be brief.",
    )  # fmt: skip
    config = replace(config, sources=(SourceConfig(path=str(tmp_path / "share.jsonl")),), chat=chat)
    run(config, tmp_path / "run")
    engine = Tokenizer(str(tmp_path / "run/data/tokenizer"))
    given = Tokenizer(config.tokenizer.path)
    assert engine.vocab_size == given.vocab_size  # reserved tokens gave their places
    assert engine.special_ids["<|im_start|>"] == given.special_ids["<|reserved_0|>"]
    text = documents(tmp_path / "run", "train")[0][1]
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi ")
    stops = json.loads((tmp_path / "run/data/tokenizer/generation_config.json").read_bytes())
    assert stops == {"eos_token_id": sorted([engine.eod_id, engine.special_ids["<|im_end|>"]])}


def test_a_tokenizer_without_reserved_tokens_grows(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    given = json.loads((Path(config.tokenizer.path) / "tokenizer.json").read_bytes())
    size = len(given["model"]["vocab"])
    for token in given["added_tokens"][1:]:
        name = token["content"].replace("reserved", "kept")
        given["model"]["vocab"][name] = given["model"]["vocab"].pop(token["content"])
        token["content"] = name
    (tmp_path / "tokenizer.json").write_text(json.dumps(given))
    config = replace(
        config,
        tokenizer=TokenizerConfig(path=str(tmp_path)),
        chat=ChatConfig(template="chatml", added_tokens=("<|more|>",)),
    )
    run(config, tmp_path / "run")
    engine = Tokenizer(str(tmp_path / "run/data/tokenizer"))
    names = ("<|im_start|>", "<|im_end|>", "<|more|>")
    assert [engine.special_ids[name] for name in names] == [size, size + 1, size + 2]
    assert engine.vocab_size == size + 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer": TokenizerConfig()}, "needs the tokenizer of the model"),
        ({"chat": ChatConfig(template="nowhere.jinja")}, "nowhere.jinja"),
        ({"chat": ChatConfig(max_tokens=-1)}, "chat.max_tokens is -1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_anything_is_read(
    config: PreprocessConfig, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        run(replace(config, **change), tmp_path / "run")
    assert not (tmp_path / "run" / "documents").exists()


def test_a_task_with_something_else_in_braces_is_refused(
    config: PreprocessConfig, tmp_path: Path
) -> None:
    for prompt in ("{}", "{a!r}", "{a:>10}", "{a"):
        source = replace(config.sources[0], task=TaskConfig(prompt=prompt))
        with pytest.raises(ValueError, match=r"task\.prompt is .* which cannot be read"):
            run(replace(config, sources=(source,)), tmp_path / "run")
