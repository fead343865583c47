"""A checkpoint and a data folder in, the loss of each validation group out."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from .checkpoint import locate, read_facts
from .config import PretrainConfig
from .data import open_data
from .evaluate import evaluate
from .grid import Grid
from .sampling import load_model


def heldout_losses(
    checkpoint: str | os.PathLike[str], data: str | os.PathLike[str], *, like: Path
) -> dict[str, float]:
    """Return the mean nll of each validation group, nats a target; "" is all of them together.

    Args:
        checkpoint: any model whose tokenizer that of the data is, or extends.
        data: folder with train/ and validation/ prefixes.
        like: checkpoint whose sequence length is taken, so that every model sees the same samples.

    Raises:
        CheckpointError, IndexedDatasetError: something cannot be read, or does not fit.
    """
    trained_on = read_facts(locate(like)).config
    opened = open_data(
        PretrainConfig(
            data=dataclasses.replace(
                trained_on.data, path=os.fspath(data), phases=(), validation={}, weights={}
            ),
            training=trained_on.training,
        ),
        Path(data),
    )
    trained = load_model(checkpoint, tokenizer_folder=opened.tokenizer_folder or "")
    evaluation = evaluate(
        trained.model,
        opened.validation,
        Grid(),
        batch_size=trained_on.training.micro_batch_size,
    )
    losses = {name: score.loss for name, score in evaluation.groups.items()}
    return {**losses, "": evaluation.total.loss}
