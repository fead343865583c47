"""Fine-tuned models and held-out conversations in, scores and answers side by side out.

    OUTPUT/answers-NAME.jsonl   each conversation with the model's answer in `text`
    OUTPUT/evaluation.json      scores of each model, by task and source
    OUTPUT/evaluation.html      the same as a page, with answers side by side

The question is the last turn that the assistant has to answer, after all turns before it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..indexed_dataset.atomic import write_atomically
from .evaluation_page import Example, Row, page, table
from .prompting import open_prompt

logger = logging.getLogger(__name__)

HELDOUT = "heldout.jsonl"
_CONVERSATION = "chat"
_SAMPLES = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """One held-out conversation, cut before the assistant's last turn."""

    group: str
    """Task and source."""
    messages: list[dict[str, Any]]
    tools: list[Any] | None
    reference: str
    """What the assistant said."""


def read_heldout(path: Path, max_examples: int = 0) -> list[Question]:
    """Return the questions of a file that `gristmill preprocess` wrote.

    Args:
        max_examples: of each task and source, spread evenly; 0: all.

    Raises:
        ValueError: there is no such file, or nothing in it.
    """
    if not path.is_file():
        raise ValueError(
            f'{path} is not there: `gristmill preprocess` with kind = "chat" or "pairs" writes it '
            "beside the token files. Name that data folder with --data"
        )
    groups: dict[str, list[Question]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages = row["messages"]
        last = max(
            (n for n, message in enumerate(messages) if message["role"] == "assistant"), default=-1
        )
        if last < 1 or not isinstance(messages[last].get("content"), str):
            continue
        group = f"{row.get('task') or _CONVERSATION}/{row.get('source') or 'all'}"
        question = Question(group, messages[:last], row.get("tools"), messages[last]["content"])
        groups.setdefault(group, []).append(question)
    if not groups:
        raise ValueError(f"{path} holds no conversation with an answer: hold more of them out")
    chosen = []
    for _, questions in sorted(groups.items()):
        number = min(len(questions), max_examples or len(questions))
        chosen += [questions[i * len(questions) // number] for i in range(number)]
    return chosen


def evaluate(
    checkpoints: Sequence[str],
    data: str = "",
    output: str = "",
    *,
    max_examples: int = 200,
    max_tokens: int = 128,
    temperature: float = 0.0,
    batch_size: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Score models, write what came out, and print it as a table; return evaluation.json.

    Raises:
        CheckpointError: a model is missing or damaged.
        ValueError: no held-out data, or another tokenizer than theirs.
    """
    from ..trainer.checkpoint import locate
    from ..trainer.generating import write_continuations

    if not checkpoints:
        raise ValueError("no model to evaluate: name a checkpoint, or the output folder of a run")
    folders = {name: locate(path) for name, path in _names(checkpoints).items()}
    last = list(folders.values())[-1]
    source = Path(data) if data else _data_of(last)
    target = Path(output) if output else last.parent.parent / "evaluation"
    questions = read_heldout(source / HELDOUT, max_examples)
    prompter = open_prompt(source / "tokenizer")
    prompts = [prompter.ids(question.messages, question.tools) for question in questions]
    rows = [{"messages": q.messages, "reference": q.reference} for q in questions]
    target.mkdir(parents=True, exist_ok=True)
    losses, answers = {}, {}
    for name, folder in folders.items():
        losses[name] = _losses(folder, last, source)
        path = target / f"answers-{name}.jsonl"
        path.unlink(missing_ok=True)
        logger.info("%s answers %d held-out conversations", folder, len(questions))
        write_continuations(
            folder,
            prompts,
            path,
            rows=rows,
            tokenizer=source / "tokenizer",
            max_tokens=max_tokens,
            temperature=temperature,
            batch_size=batch_size,
            seed=seed,
        )
        lines = path.read_text(encoding="utf-8").splitlines()
        answers[name] = [json.loads(line)["text"].strip() for line in lines]
    results = _score(questions, answers, losses)
    examples = _examples(questions, answers)
    report = {
        "models": {name: str(folder) for name, folder in folders.items()},
        "settings": {"max_tokens": max_tokens, "temperature": temperature, "seed": seed},
        "rows": [dataclasses.asdict(row) for row in results],
    }
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    write_atomically(target / "evaluation.json", text.encode())
    write_atomically(target / "evaluation.html", page(results, examples).encode())
    sys.stdout.write(table(results))
    sys.stdout.write(f"\nanswers side by side: {target / 'evaluation.html'}\n")
    return report


def _names(checkpoints: Sequence[str]) -> dict[str, str]:
    """Return a short name of each model: the last parts of their paths that differ."""
    paths = [Path(path).resolve() for path in checkpoints]
    parts = [
        [part for part in path.parts if part != "checkpoints" and not part.startswith("step_")]
        for path in paths
    ]
    names = ["-".join(part[-1:]) or "model" for part in parts]
    if len(set(names)) < len(names):
        names = ["-".join([*part[-1:], path.name]) for part, path in zip(parts, paths, strict=True)]
    if len(set(names)) < len(names):
        names = [f"{number}-{name}" for number, name in enumerate(names, start=1)]
    return dict(zip(names, checkpoints, strict=True))


def _data_of(checkpoint: Path) -> Path:
    """Return the data folder that a model was trained on."""
    from ..trainer.checkpoint import read_facts

    path = read_facts(checkpoint).config.data.path
    return Path(path) if path else checkpoint.parent.parent / "data"


def _losses(folder: Path, last: Path, data: Path) -> dict[str, float]:
    """Return the held-out loss of each validation group, nats a token of the assistant's."""
    from ..trainer.heldout_loss import heldout_losses

    return heldout_losses(folder, data, like=last)


def _score(
    questions: Sequence[Question],
    answers: Mapping[str, Sequence[str]],
    losses: Mapping[str, Mapping[str, float]],
) -> list[Row]:
    """Return the scores of each task and source, model after model."""
    from ..trainer.text_scores import score_texts

    found = []
    for group in dict.fromkeys(question.group for question in questions):
        which = [number for number, question in enumerate(questions) if question.group == group]
        references = [questions[number].reference for number in which]
        for name, texts in answers.items():
            scores = score_texts([texts[number] for number in which], references)
            loss = losses[name].get(group.partition("/")[2])
            found.append(Row(group, name, loss, scores))
    for name in answers:
        found.append(Row("all", name, losses[name].get(""), None))
    return found


def _examples(questions: Sequence[Question], answers: Mapping[str, Sequence[str]]) -> list[Example]:
    """Return a few questions of each group with all answers."""
    found = []
    for group in dict.fromkeys(question.group for question in questions):
        which = [number for number, question in enumerate(questions) if question.group == group]
        step = max(1, len(which) // _SAMPLES)
        for number in which[::step][:_SAMPLES]:
            question = questions[number]
            said = "\n".join(f"{m['role']}: {m.get('content')}" for m in question.messages)
            texts = {name: texts[number] for name, texts in answers.items()}
            found.append(Example(group, said, question.reference, texts))
    return found
