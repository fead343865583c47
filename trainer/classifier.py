"""Rows of token ids in, scores of labels out: a network and one linear layer on its last states.

Read of a text are, by `pooling`: the state of its first token (BERT's [CLS]), of its last one (all
that a decoder knows stands there), or the mean of all. A batch's rows are padded behind; what is
padding belongs to no text and is seen by none.

Legend: B texts, T positions, D hidden size, L labels.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from .config import from_dict
from .config_model import ModelConfig
from .layers import Linear
from .model import Transformer
from .places import document_places

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Pooling = Literal["first", "mean", "last"]
FACTS, WEIGHTS, TOKENIZER = "classifier.json", "model.safetensors", "tokenizer.json"
_MULTIPLE = 8  # lengths of rows, so that few shapes occur


class Classifier(nn.Module):
    """A network with a head for labels.

    Args:
        model: the network, whose own output layer is not used.
        num_labels: how many there are.
        pooling: which states the head reads.
    """

    def __init__(self, model: Transformer, num_labels: int, pooling: Pooling) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.head = Linear(model.config.hidden_size, num_labels, bias=True)
        nn.init.zeros_(self.head.weight)  # every label alike: nothing to unlearn
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        self.head.to(model.device)

    def forward(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return scores, float[B, L], of texts given as ids, one or more each."""
        lengths = [len(row) for row in rows]
        length = -(-max(lengths) // _MULTIPLE) * _MULTIPLE
        limit = self.model.config.max_positions
        if self.model.config.positions == "learned":
            length = max(max(lengths), min(length, limit))
        tokens_BT = torch.zeros(len(rows), length, dtype=torch.int64)
        bounds_BN = torch.full((len(rows), length + 1), length, dtype=torch.int32)
        bounds_BN[:, 0] = 0
        for number, row in enumerate(rows):
            tokens_BT[number, : len(row)] = torch.tensor(row)
            bounds_BN[number, 1] = len(row)
        model, device = self.model, self.model.device
        places = document_places(bounds_BN, device, model.compute_dtype, model.config.causal)
        states_BTD = model.hidden(tokens_BT.to(device), places=places)
        lengths_B = torch.tensor(lengths, device=device)
        scores_BL: torch.Tensor = self.head(self._pool(states_BTD, lengths_B).float())
        return scores_BL

    def _pool(self, states_BTD: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
        if self.pooling == "first":
            return states_BTD[:, 0]
        if self.pooling == "last":
            return states_BTD[torch.arange(len(lengths_B), device=lengths_B.device), lengths_B - 1]
        place_T = torch.arange(states_BTD.shape[1], device=lengths_B.device)
        inside_BT1 = (place_T < lengths_B[:, None])[..., None]
        return (states_BTD * inside_BT1).sum(dim=1) / lengths_B[:, None]


@dataclass(frozen=True, slots=True)
class TextClassifier:
    """A classifier with what turns texts into its ids."""

    network: Classifier
    """The network and its head."""
    tokenizer: Tokenizer
    """Text to ids."""
    labels: tuple[str, ...]
    """The label of each score."""
    eod_id: int | None
    """Id that stands before each text; None: what the tokenizer's own template adds, adds it."""
    max_tokens: int
    """Tokens of a text that are read at most."""

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the ids of texts, and how many texts were cut to `max_tokens`."""
        template = self.eod_id is None
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=template)
        before = [] if self.eod_id is None else [self.eod_id]
        rows = [[*before, *encoding.ids] for encoding in found]
        num_cut = sum(len(row) > self.max_tokens for row in rows)
        # Of a text without any token the head reads one that stands for nothing.
        return [row[: self.max_tokens] or [0] for row in rows], num_cut


def save_classifier(classifier: TextClassifier, folder: Path, facts: dict[str, Any]) -> None:
    """Write a folder that `load_classifier` reads; it appears whole or not at all.

    Args:
        facts: further JSON values for classifier.json: scores, what it was trained on.
    """
    from safetensors.torch import save_file

    from ..indexed_dataset.atomic import sync_file, sync_folder

    network, model = classifier.network, classifier.network.model
    unfinished = folder.with_name(f"{folder.name}.unfinished-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        save_file(
            {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
            unfinished / WEIGHTS,
        )
        classifier.tokenizer.save(str(unfinished / TOKENIZER))
        values = {
            "labels": classifier.labels,
            "pooling": network.pooling,
            "eod_id": classifier.eod_id,
            "max_tokens": classifier.max_tokens,
            "vocab_size": model.vocab_size,
            "model": dataclasses.asdict(model.config),
            **facts,
        }
        text = json.dumps(values, indent=1, ensure_ascii=False) + "\n"
        (unfinished / FACTS).write_text(text, encoding="utf-8")
        for path in unfinished.iterdir():
            sync_file(path)
        if folder.exists():
            folder.rmdir()  # empty: that was checked before the training
        unfinished.replace(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def load_classifier(folder: Path, device: torch.device) -> TextClassifier:
    """Return what `save_classifier` wrote.

    Raises:
        ValueError: there is no classifier, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from .sampling import load_tokenizer

    try:
        facts = json.loads((folder / FACTS).read_bytes())
        weights = load_file(folder / WEIGHTS)
        model = Transformer(from_dict(ModelConfig, facts["model"]), facts["vocab_size"])
        labels = tuple(facts["labels"])
        network = Classifier(model, len(labels), facts["pooling"])
        network.load_state_dict(weights)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"{folder} holds no classifier that can be read ({error}): give the folder that "
            "`gristmill classify MODEL --train ... --output FOLDER` wrote"
        ) from error
    return TextClassifier(
        network.to(device).eval(),
        load_tokenizer(folder / TOKENIZER),
        labels,
        facts["eod_id"],
        facts["max_tokens"],
    )
