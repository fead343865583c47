"""`gristmill classify`: labelled texts and a model in, a classifier out; texts in, labels out."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from ..config import ConfigError


@dataclass(frozen=True, kw_only=True)
class ClassifyArguments:
    """Fine-tune a model to tell the labels of texts, or label texts with it.

    With --train MODEL becomes a classifier in the folder OUTPUT; with --input the classifier MODEL
    writes a label for each text to the file OUTPUT.
    """

    model: Positional[str]
    """The output folder of a run, a checkpoint or a Hugging Face folder; with --input, a folder
    that --train has written."""
    output: str
    """Folder of the classifier; with --input, a .jsonl file with place, label and probability."""
    train: tuple[str, ...] = ()
    """.jsonl files of labelled texts (also .gz)."""
    validation: tuple[str, ...] = ()
    """.jsonl files of labelled texts to score at the end."""
    input: tuple[str, ...] = ()
    """.jsonl files of texts to label."""
    text_field: str = "text"
    """Key of the text."""
    label_field: str = "label"
    """Key of the label."""
    epochs: float = 3.0
    """How often each text is seen."""
    batch_size: int = 32
    """Texts of a step."""
    learning_rate: float = 1e-4
    """Peak of the learning rate; it rises over the first tenth of the steps, then falls to 0."""
    weight_decay: float = 0.01
    """Of matrices."""
    max_tokens: int = 256
    """Tokens of a text that are read; what is longer is cut, and counted."""
    pooling: Literal["auto", "first", "mean", "last"] = "auto"
    """What labels are read of: the first token, the mean of all, the last one; auto: the mean for
    encoders, the last for decoders."""
    seed: int = 0
    """Of the order of texts."""


def classify(arguments: ClassifyArguments) -> None:
    """Run `gristmill classify`."""
    from ..trainer.classifying import ClassifierSettings, classify_file, train_classifier

    if bool(arguments.train) == bool(arguments.input):
        raise ConfigError(
            "give either --train, files of labelled texts to learn from, or --input, files of "
            "texts to label"
        )
    if arguments.input:
        number = classify_file(
            arguments.model,
            arguments.input,
            arguments.output,
            text_field=arguments.text_field,
            batch_size=arguments.batch_size,
        )
        sys.stdout.write(f"{arguments.output}: {number} texts with labels\n")
        return
    accuracy = train_classifier(
        arguments.model,
        arguments.train,
        arguments.output,
        validation=arguments.validation,
        text_field=arguments.text_field,
        label_field=arguments.label_field,
        settings=ClassifierSettings(
            epochs=arguments.epochs,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            weight_decay=arguments.weight_decay,
            max_tokens=arguments.max_tokens,
            pooling=arguments.pooling,
            seed=arguments.seed,
        ),
    )
    if accuracy is not None:
        sys.stdout.write(
            f"accuracy {100 * accuracy.share:.2f} % of {accuracy.total} texts, mean over labels "
            f"{100 * accuracy.macro:.2f} %\n"
        )
    sys.stdout.write(f"{arguments.output}: label texts with gristmill classify {arguments.output} ")
    sys.stdout.write("--input TEXTS.jsonl --output LABELS.jsonl\n")
