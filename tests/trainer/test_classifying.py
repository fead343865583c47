"""A model learns to tell labels of texts; bad lines are counted; folders are whole or not there."""

from __future__ import annotations

import gzip
import json
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gristmill.trainer.classifier import Classifier, load_classifier
from gristmill.trainer.classifying import (
    ClassifierSettings,
    classify_file,
    predict,
    train_classifier,
)
from gristmill.trainer.config_model import ModelConfig
from gristmill.trainer.labelled_texts import read_labelled
from gristmill.trainer.model import Transformer, initialize, resolve

CPU = torch.device("cpu")
FAST = ClassifierSettings(epochs=2, batch_size=8, learning_rate=3e-3, max_tokens=32)


def write(path: Path, number: int, seed: int) -> Path:
    """Write texts whose label is the word that they repeat."""
    chance = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(number):
            label = chance.choice(["mill", "water"])
            words = [label if chance.random() < 0.6 else "grain" for _ in range(4)] + [label]
            file.write(json.dumps({"text": " ".join(words), "label": label}) + "\n")
    return path


@pytest.mark.parametrize("kind", ["bert", "modernbert", "decoder"])
def test_encoders_and_decoders_learn_labels_and_come_back_from_their_folder(
    kind: str, encoder_run: Callable[[str], Path], tmp_path: Path
) -> None:
    train, held_out = write(tmp_path / "a.jsonl", 160, 0), write(tmp_path / "b.jsonl", 40, 1)
    folder = tmp_path / "classifier"
    accuracy = train_classifier(
        encoder_run(kind), [train], folder, validation=[held_out], settings=FAST, device=CPU
    )
    facts = json.loads((folder / "classifier.json").read_bytes())
    number = classify_file(folder, [held_out], tmp_path / "out.jsonl", device=CPU)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = [json.loads(line)["label"] for line in held_out.read_text().splitlines()]
    right = sum(line["label"] == label for line, label in zip(lines, expected, strict=True))

    assert accuracy is not None
    assert accuracy.share > 0.9
    assert accuracy.total == number == 40
    assert right == accuracy.right == sum(right for right, _ in facts["by_label"].values())
    assert facts["labels"] == ["mill", "water"]
    assert facts["pooling"] == ("last" if kind == "decoder" else "mean")
    assert lines[0]["place"] == "b.jsonl:1"
    assert 0.5 <= lines[0]["probability"] <= 1


def test_a_training_repeats_to_the_bit(encoder_run: Callable[[str], Path], tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", 24, 0)
    for name in ("one", "two"):
        train_classifier(encoder_run("bert"), [train], tmp_path / name, settings=FAST, device=CPU)

    files = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("pooling", ["first", "mean", "last"])
@pytest.mark.parametrize("causal", [True, False])
def test_scores_of_a_text_do_not_depend_on_the_others_of_its_batch(
    pooling: Any, causal: bool
) -> None:
    config = ModelConfig(num_layers=2, hidden_size=32, num_heads=4, causal=causal, init_std=0.3)
    model = Transformer(resolve(config), 50, compute_dtype=torch.float64)
    initialize(model, 0)
    network = Classifier(model, 3, pooling).double()
    torch.nn.init.normal_(network.head.weight)
    rows = [[1, 2, 3], [4] * 17, [5, 6]]
    with torch.no_grad():
        together = network(rows)
        alone = torch.cat([network([row]) for row in rows])

    # The head computes in float32.
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_bad_lines_are_left_out_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [
        b'{"text": "good", "label": "a"}',
        b"{broken",
        b'{"text": "no label"}',
        b'{"text": " ", "label": "a"}',
        b'{"label": "a"}',
        b"[1]",
        b'{"text": "\xff", "label": "a"}',
        b'{"text": "a number", "label": 3}',
        b'{"text": "true is none", "label": true}',
    ]
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b"\n".join(lines))
    with caplog.at_level(logging.WARNING):
        found = read_labelled([tmp_path / "a.jsonl.gz"])

    assert found.labels == ["a", "3"]
    assert found.places == ["a.jsonl.gz:1", "a.jsonl.gz:8"]
    assert found.reasons() == {
        "empty_text": 1,
        "no_label": 2,
        "no_object": 1,
        "no_text": 1,
        "rejected_json": 1,
        "rejected_utf8": 1,
    }
    assert "7 lines are left out" in caplog.text
    assert "the first is a.jsonl.gz:2" in caplog.text


def test_files_without_use_settings_and_folders_that_do_not_fit_are_refused(
    encoder_run: Callable[[str], Path], tmp_path: Path
) -> None:
    run, train = encoder_run("bert"), write(tmp_path / "a.jsonl", 8, 0)
    with pytest.raises(ValueError, match=r"no line that can be used \(a\.jsonl:1: no_label\)"):
        read_labelled([train], label_field="language")
    with pytest.raises(ValueError, match=r"missing\.jsonl cannot be read"):
        read_labelled([tmp_path / "missing.jsonl"])
    one = tmp_path / "one.jsonl"
    one.write_text('{"text": "x", "label": "a"}\n')
    with pytest.raises(ValueError, match="all texts have the label 'a'"):
        train_classifier(run, [one], tmp_path / "c", device=CPU)
    with pytest.raises(ValueError, match="is taken, and nothing was written"):
        train_classifier(run, [train], tmp_path, device=CPU)
    long = ClassifierSettings(max_tokens=64)
    with pytest.raises(ValueError, match="the model knows 32 positions: set --max-tokens 32"):
        train_classifier(run, [train], tmp_path / "c", settings=long, device=CPU)
    with pytest.raises(ValueError, match="holds no classifier that can be read"):
        load_classifier(tmp_path, CPU)
    assert not (tmp_path / "c").exists()


def test_texts_without_tokens_and_long_ones_get_a_label_too(
    encoder_run: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = write(tmp_path / "a.jsonl", 16, 0)
    with train.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "mill " * 50, "label": "mill"}) + "\n")
    with caplog.at_level(logging.INFO):
        train_classifier(
            encoder_run("modernbert"), [train], tmp_path / "c", settings=FAST, device=CPU
        )
    classifier = load_classifier(tmp_path / "c", CPU)
    labels, chances = predict(classifier, ["", "mill " * 100])

    assert "17 texts of 2 labels, 1 of them cut to 32 tokens" in caplog.text
    assert len(labels) == len(chances) == 2


def test_the_command_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    from gristmill.cli import main

    with pytest.raises(SystemExit, match="1"):
        main(["classify", "run", "--output", "x"])
    assert "give either --train" in capsys.readouterr().err
