"""Conversations to ids and loss masks: ours beside transformers' apply_chat_template, and equality.

    python benchmarks/conversations.py [--tokenizer FOLDER] [--folder ../shared/corpora/finetune]

Each round takes the same rows twice on one thread, in turns: ours from the raw row (read, checked,
normalized, rendered, encoded, masked), transformers from the list of turns, with
`return_assistant_tokens_mask`. Prints processor seconds, the median ratio with its range, how many
conversations differ in an id or a mask (none should), and how full best-fit sequences are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill.kernels import pack_best_fit
from gristmill.pipeline import Tokenizer, chat_tokenizer, clean
from gristmill.pipeline.chat_check import for_conversations
from gristmill.pipeline.chat_config import TaskConfig
from gristmill.pipeline.config import PreprocessConfig, SourceConfig, TokenizerConfig
from gristmill.pipeline.conversation_cleaner import ConversationCleaner
from gristmill.pipeline.conversation_tokens import ConversationEncoder
from gristmill.pipeline.train_tokenizer import special_tokens, train_bpe
from gristmill.pipeline.units import read_unit

SETS = {
    "chat_taskmaster4": TaskConfig(),
    "translation_enja": TaskConfig(kind="translate"),
    "qa_drcd_devtest": TaskConfig(kind="answer"),
}


def measure(path: Path, task: TaskConfig, given: str, rows: int, rounds: int) -> None:
    config = for_conversations(
        PreprocessConfig(
            kind="chat",
            sources=(SourceConfig(path=str(path), task=task),),
            tokenizer=TokenizerConfig(path=given),
        )
    )
    chat = chat_tokenizer.resolve(config)
    with tempfile.TemporaryDirectory() as name:
        folder = str(chat.write(Path(name)))
        tokenizer = Tokenizer(folder, eod=chat.eod)
        from transformers import AutoTokenizer

        theirs = AutoTokenizer.from_pretrained(folder)
    cleaner = ConversationCleaner(chat.recipe, config.clean, task)
    encode = ConversationEncoder(tokenizer, 0)
    file, batch = next(iter(read_unit(clean.plan(config)[0])))
    batch = dataclasses.replace(batch, documents=batch.documents.slice(0, rows), rejected=())
    times = []
    for _ in range(rounds + 1):  # the first compiles kernels and templates
        started = time.thread_time()
        table = pa.Table.from_batches([cleaner(file, batch)[0]])
        rendered = time.thread_time()
        encoded = encode(table)
        ended = time.thread_time()
        messages = [json.loads(one)["messages"] for one in table["conversation"].to_pylist()]
        begun = time.thread_time()
        wanted = [
            theirs.apply_chat_template(one, return_dict=True, return_assistant_tokens_mask=True)
            for one in messages
        ]
        times.append((rendered - started, ended - rendered, time.thread_time() - begun))
    ratios = sorted(other / (render + own) for render, own, other in times[1:])
    render, own, other = (statistics.median(column) for column in zip(*times[1:], strict=True))
    assert encoded.loss_mask is not None
    ends = np.cumsum(encoded.num_tokens)
    different = 0
    for end, size, one in zip(ends, encoded.num_tokens, wanted, strict=True):
        part = slice(end - size, end - 1)  # without EOD
        is_same = encoded.ids[part].tolist() == one["input_ids"]
        different += not (is_same and encoded.loss_mask[part].tolist() == one["assistant_masks"])
    print(
        f"{path.name}: {len(wanted):,} conversations, {len(encoded.ids):,} tokens; render "
        f"{render:.2f} s, encode {own:.2f} s, transformers {other:.2f} s: "
        f"{statistics.median(ratios):.1f}x ({ratios[0]:.1f} to {ratios[-1]:.1f}); "
        f"{different} differ",
        flush=True,
    )
    for length in (512, 1024, 2048):
        fit = encoded.num_tokens[encoded.num_tokens <= length]
        bins = len(pack_best_fit(fit, length)[0]) - 1
        fill = 100 * fit.sum() / (bins * length) if bins else 0.0
        print(f"  sequences of {length}: {len(fit):,} whole conversations fill {fill:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="../shared/corpora/finetune")
    parser.add_argument("--tokenizer", default="", help="folder; empty: one trained on the rows")
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments, _ = parser.parse_known_args()
    for name, task in SETS.items():
        path = Path(arguments.folder) / f"{name}.jsonl.zst"
        if not path.is_file():
            print(f"{path} is not there: left out")
            continue
        with tempfile.TemporaryDirectory() as folder:
            given = arguments.tokenizer
            if not given:
                import zstandard

                with zstandard.open(path, "rt", encoding="utf-8") as stream:
                    texts = [line for line, _ in zip(stream, range(4000), strict=False)]
                content = train_bpe(
                    texts, vocab_size=8192, special_tokens=special_tokens("<|endoftext|>")
                )
                (Path(folder) / "tokenizer.json").write_text(content)
                given = folder
            measure(path, task, given, arguments.rows, arguments.repeats)


if __name__ == "__main__":
    main()
