"""A pretrained model and labelled texts in, a classifier and its accuracy out; then texts, labels.

    gristmill classify RUN --train a.jsonl --validation b.jsonl --output FOLDER
    gristmill classify FOLDER --input texts.jsonl --output labels.jsonl

Encoders and decoders alike; one process, all weights are trained. The order of texts follows from
the seed, so a training repeats.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F

from .checkpoint import find_checkpoints, locate, read_facts
from .classifier import Classifier, Pooling, TextClassifier, load_classifier, save_classifier
from .config_model import ModelConfig
from .hugging_face_config import from_hugging_face, read_config
from .hugging_face_import import imported_model, load_hugging_face
from .labelled_texts import LabelledTexts, read_labelled
from .model import Transformer
from .sampling import load_model, load_tokenizer

logger = logging.getLogger(__name__)

_SORTED_BATCHES = 16
_WARMUP_SHARE = 0.1
_CLIP_NORM = 1.0
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierSettings:
    """How a classifier is trained."""

    epochs: float = 3.0
    """How often each text is seen."""
    batch_size: int = 32
    """Texts of a step."""
    learning_rate: float = 1e-4
    """Peak; it rises over the first tenth of the steps and falls linearly to 0."""
    weight_decay: float = 0.01
    """Of matrices."""
    max_tokens: int = 256
    """Tokens of a text that are read; the rest of longer ones is left out, and counted."""
    pooling: Literal["auto", "first", "mean", "last"] = "auto"
    """What the labels are read of: the first token, the mean of all or the last one; auto: the mean
    for encoders, the last for decoders."""
    seed: int = 0
    """Of the order of texts."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How many labels are right."""

    right: int
    """Texts whose label was found."""
    total: int
    """All texts."""
    by_label: dict[str, tuple[int, int]]
    """Label -> right and total."""

    @property
    def share(self) -> float:
        """Share of right ones."""
        return self.right / max(1, self.total)

    @property
    def macro(self) -> float:
        """Mean of the labels' shares, however many texts each has."""
        return sum(right / total for right, total in self.by_label.values()) / len(self.by_label)


def open_network(folder: str | Path, device: torch.device) -> tuple[Transformer, Any, int | None]:
    """Return a model to fine-tune, its tokenizer, and the id that stands before a text.

    Args:
        folder: a checkpoint, the output folder of a run, or a Hugging Face folder (whose tokenizer
            says itself what stands around a text: the id is None).

    Raises:
        ValueError: neither is there.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or find_checkpoints(folder):
        trained = load_model(folder, device=device)
        # Where documents were kept apart in training, texts did not begin after that id, but it is
        # a token that all know.
        return trained.model, trained.tokenizer, trained.eod_id
    model = imported_model(folder, ModelConfig())
    _, vocab_size = from_hugging_face(read_config(folder), str(folder))
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ValueError(f"{folder} has no tokenizer.json: copy that of the model there")
    network = Transformer(model, vocab_size).to(device)
    load_hugging_face(network, folder)
    return network, load_tokenizer(tokenizer), None


def train_classifier(
    model: str | Path,
    train: Sequence[str | Path],
    output: str | Path,
    *,
    validation: Sequence[str | Path] = (),
    text_field: str = "text",
    label_field: str = "label",
    settings: ClassifierSettings = ClassifierSettings(),
    device: torch.device | None = None,
) -> Accuracy | None:
    """Fine-tune a model to tell the labels of texts, and write it to `output`.

    Args:
        model: a checkpoint, the output folder of a run, or a Hugging Face folder.
        train: .jsonl files.
        output: a folder that does not exist yet, or is empty.
        validation: .jsonl files to score at the end; none: no score.

    Returns:
        The accuracy on the validation texts; None if there are none.

    Raises:
        ValueError: files, model, output or settings that do not fit.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"{output} is taken, and nothing was written: name a new folder")
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    texts = read_labelled(train, text_field, label_field)
    held_out = read_labelled(validation, text_field, label_field) if validation else None
    labels = tuple(sorted(set(texts.labels)))
    if len(labels) < 2:
        raise ValueError(
            f"all texts have the label {labels[0]!r}: there is nothing to tell apart. Give texts "
            "of two labels or more, or another --label-field"
        )
    network, tokenizer, eod_id = open_network(model, device)
    _check(settings, network.config)
    pooling: Pooling = "mean" if not network.config.causal else "last"
    if settings.pooling != "auto":
        pooling = settings.pooling
    torch.manual_seed(settings.seed)
    classifier = TextClassifier(
        Classifier(network, len(labels), pooling), tokenizer, labels, eod_id, settings.max_tokens
    )
    rows, num_cut = classifier.encode(texts.texts)
    logger.info(
        "%d texts of %d labels, %d of them cut to %d tokens; %s of %d layers, read by the %s",
        len(rows),
        len(labels),
        num_cut,
        settings.max_tokens,
        "decoder" if network.config.causal else "encoder",
        network.config.num_layers,
        pooling,
    )
    number_of = {label: number for number, label in enumerate(labels)}
    _fit(classifier.network, rows, [number_of[label] for label in texts.labels], settings)
    accuracy = None if held_out is None else score(classifier, held_out, settings.batch_size)
    facts: dict[str, Any] = {
        "trained_on": len(rows),
        "cut": num_cut,
        "left_out": texts.reasons(),
        "model_from": _name(model),
    }
    if accuracy is not None:
        facts["accuracy"] = accuracy.share
        facts["macro_accuracy"] = accuracy.macro
        facts["by_label"] = {name: list(counts) for name, counts in accuracy.by_label.items()}
    save_classifier(classifier, output, facts)
    return accuracy


def _check(settings: ClassifierSettings, model: ModelConfig) -> None:
    if settings.epochs <= 0 or settings.batch_size < 1 or settings.learning_rate <= 0:
        raise ValueError(
            f"epochs = {settings.epochs:g}, batch_size = {settings.batch_size} and learning_rate = "
            f"{settings.learning_rate:g} must all be greater than 0"
        )
    if settings.max_tokens < 1:
        raise ValueError(f"max_tokens is {settings.max_tokens}: a text has one token or more")
    if model.positions == "learned" and settings.max_tokens > model.max_positions:
        raise ValueError(
            f"max_tokens is {settings.max_tokens}, but the model knows {model.max_positions} "
            f"positions: set --max-tokens {model.max_positions}"
        )


def _name(model: str | Path) -> str:
    """Return what a model is called, without its place on this machine."""
    folder = Path(model)
    if find_checkpoints(folder):
        return f"{folder.resolve().name}, step {read_facts(locate(folder)).step}"
    return folder.resolve().name


def _fit(
    network: Classifier,
    rows: Sequence[Sequence[int]],
    labels: Sequence[int],
    settings: ClassifierSettings,
) -> None:
    """Train all weights by AdamW."""
    matrices = [p for p in network.parameters() if p.dim() > 1]
    others = [p for p in network.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate)
    num_steps = math.ceil(settings.epochs * len(rows) / settings.batch_size)
    network.train()
    began = told = time.perf_counter()
    for step, batch in enumerate(_batches(rows, settings, num_steps)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step, num_steps)
        targets = torch.tensor([labels[number] for number in batch])
        scores = network([rows[number] for number in batch])
        loss = F.cross_entropy(scores, targets.to(scores.device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP_NORM)
        optimizer.step()
        now = time.perf_counter()
        if step + 1 == num_steps or now - told > _SECONDS_BETWEEN_LINES:
            told = now
            left = (now - began) / (step + 1) * (num_steps - step - 1)
            logger.info(
                "step %d/%d  loss %.4f  %.0f s left", step + 1, num_steps, loss.item(), left
            )


def _rate(step: int, num_steps: int) -> float:
    """Return the share of the peak rate: up over the first steps, then down to 0."""
    warmup = max(1, round(_WARMUP_SHARE * num_steps))
    return min((step + 1) / warmup, (num_steps - step) / max(1, num_steps - warmup))


def _batches(
    rows: Sequence[Sequence[int]], settings: ClassifierSettings, num_steps: int
) -> Iterator[list[int]]:
    """Yield the texts of each step: in a random order, but those of like lengths together."""
    chance = random.Random(settings.seed)
    size, taken = settings.batch_size, 0
    while taken < num_steps:
        order = list(range(len(rows)))
        chance.shuffle(order)
        for first in range(0, len(order), size * _SORTED_BATCHES):
            some = sorted(order[first : first + size * _SORTED_BATCHES], key=lambda n: len(rows[n]))
            batches = [some[start : start + size] for start in range(0, len(some), size)]
            chance.shuffle(batches)
            yield from batches[: num_steps - taken]
            taken += min(len(batches), num_steps - taken)
            if taken >= num_steps:
                return


@torch.no_grad()
def predict(
    classifier: TextClassifier, texts: Sequence[str], batch_size: int = 32
) -> tuple[list[int], list[float]]:
    """Return the number of the likeliest label of each text, and its probability."""
    rows, _ = classifier.encode(texts)
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    labels, chances = [0] * len(rows), [0.0] * len(rows)
    classifier.network.eval()
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        found = classifier.network([rows[number] for number in batch]).softmax(dim=1).max(dim=1)
        for number, label, chance in zip(
            batch, found.indices.tolist(), found.values.tolist(), strict=True
        ):
            labels[number], chances[number] = label, chance
    return labels, chances


def score(classifier: TextClassifier, texts: LabelledTexts, batch_size: int = 32) -> Accuracy:
    """Return how many labels a classifier finds; one that it does not know is never right."""
    found, _ = predict(classifier, texts.texts, batch_size)
    by_label: dict[str, tuple[int, int]] = {label: (0, 0) for label in sorted(set(texts.labels))}
    for number, label in zip(found, texts.labels, strict=True):
        right, total = by_label[label]
        by_label[label] = right + (classifier.labels[number] == label), total + 1
    unknown = sorted(set(by_label) - set(classifier.labels))
    if unknown:
        logger.warning(
            "%d labels of the validation texts do not occur in training (%s): they count as wrong",
            len(unknown),
            ", ".join(unknown[:5]),
        )
    return Accuracy(
        sum(right for right, _ in by_label.values()),
        len(texts.labels),
        by_label,
    )


def classify_file(
    folder: str | Path,
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    text_field: str = "text",
    batch_size: int = 32,
    device: torch.device | None = None,
) -> int:
    """Write a line {"place", "label", "probability"} for each text; return how many.

    Lines that hold no text get {"place", "error"}, after the others.

    Raises:
        ValueError: no classifier, or no texts.
    """
    from ..indexed_dataset.atomic import write_atomically

    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classifier = load_classifier(Path(folder), device)
    texts = read_labelled(paths, text_field, None)
    found, chances = predict(classifier, texts.texts, batch_size)
    lines = [
        {"place": place, "label": classifier.labels[number], "probability": round(chance, 6)}
        for place, number, chance in zip(texts.places, found, chances, strict=True)
    ]
    lines += [{"place": place, "error": reason} for place, reason in texts.rejected]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_atomically(Path(output), text.encode())
    return len(texts.texts)
