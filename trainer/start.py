"""`training.init_from` in, the model that a training starts from out: ours or Hugging Face's.

A checkpoint of ours may have any layout. It may know fewer ids than the data, if the data's
tokenizer is its own with tokens added (those of a chat template): the new rows of the embedding
begin as the mean of the others.
"""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import torch

from .checkpoint import (
    FACTS,
    CheckpointError,
    Facts,
    find_checkpoints,
    load_tensors,
    locate,
    read_facts,
)
from .config_model import ModelConfig
from .hugging_face_config import from_hugging_face, read_config
from .hugging_face_error import HuggingFaceError
from .hugging_face_import import agreed_model, fit_rows, imported_model, load_hugging_face
from .hugging_face_names import VOCABULARY
from .lora import add_updates
from .model import Transformer, placements
from .sharding import assign, local_part

logger = logging.getLogger(__name__)

_RESERVED = re.compile("reserved|unused", re.IGNORECASE)


def is_checkpoint(folder: str | Path) -> bool:
    """Whether a folder is a checkpoint of ours, or the output folder of a run that has one."""
    return (Path(folder) / FACTS).is_file() or bool(find_checkpoints(folder))


def settle_start(folder: str | Path) -> str:
    """Return the folder of the very weights, which stays the same when a run goes on."""
    return str((locate(folder) if is_checkpoint(folder) else Path(folder)).resolve())


def start_model(folder: str | Path, wanted: ModelConfig) -> ModelConfig:
    """Return the model config of a folder, resolved; see `imported_model`.

    Raises:
        CheckpointError, HuggingFaceError: the folder cannot be read, or is of another model than
            asked for.
    """
    if not is_checkpoint(folder):
        return imported_model(folder, wanted)
    return agreed_model(_full_facts(folder).config.model, wanted, folder)


def require_vocabulary(folder: str | Path, vocab_size: int, tokenizer: Path | None) -> None:
    """Refuse data of another tokenizer than that of the folder; more added tokens are no other.

    Args:
        vocab_size: ids of the data.
        tokenizer: folder of the data's tokenizer, if there is one.

    Raises:
        HuggingFaceError: the tokenizers differ, or the model has fewer ids and nothing says why.
    """
    folder = Path(folder)
    if is_checkpoint(folder):
        rows = read_facts(locate(folder)).vocab_size
        theirs = locate(folder) / "tokenizer" / "tokenizer.json"
    else:
        _, rows = from_hugging_face(read_config(folder), str(folder))
        theirs = folder / "tokenizer.json"
    ours = tokenizer / "tokenizer.json" if tokenizer else None
    known = extends = grows = False
    if ours is not None and ours.is_file() and theirs.is_file():
        known, extends = True, _extends(ours, theirs)
        grows = extends and _meaning(ours) != _meaning(theirs)
    if vocab_size > rows and not grows:
        raise HuggingFaceError(
            f"the data has {vocab_size} ids, the model in {folder} {rows}: its tokens are of "
            "another tokenizer. Tokenize the texts with the tokenizer.json of that folder"
        )
    if known and not extends:
        raise HuggingFaceError(
            f"the data was tokenized with {ours}, which is not the tokenizer of the model in "
            f"{folder}: its ids mean other tokens. Tokenize the texts with {theirs}"
        )


def load_start(model: Transformer, folder: str | Path) -> None:
    """Fill the model, or this rank's slice of it, with the weights that a training starts from.

    Matrices of low-rank adaptation are left alone. No collectives.

    Raises:
        CheckpointError, HuggingFaceError: the files cannot be read, or do not fit the model.
    """
    if is_checkpoint(folder):
        _load_checkpoint(model, locate(folder))
    else:
        load_hugging_face(model, folder)


def load_trained(model: Transformer, folder: Path, facts: Facts) -> None:
    """Fill a model, or this rank's slices, with what a checkpoint has come to: merged, if low-rank.

    Raises:
        CheckpointError, HuggingFaceError: the files cannot be read, also those of the model that
            low-rank matrices adapt.
    """
    if facts.config.lora.rank == 0:
        _load_checkpoint(model, folder)
        return
    base = Path(facts.config.training.init_from)
    if not base.is_dir():
        raise CheckpointError(
            f"{folder} holds low-rank matrices only, for the model in {base}, which is not there. "
            "Put it back (a link will do)"
        )
    load_start(model, base)
    add_updates(model, facts.config.lora, folder)


def _full_facts(folder: str | Path) -> Facts:
    """Return the facts of a checkpoint that holds a whole model."""
    facts = read_facts(locate(folder))
    if facts.config.lora.rank:
        raise CheckpointError(
            f"{folder} holds low-rank matrices only (lora.rank = {facts.config.lora.rank}): export "
            f"it first (`gristmill export {folder} --output FOLDER` merges them into its model) "
            "and start from that"
        )
    return facts


@torch.no_grad()
def _load_checkpoint(model: Transformer, folder: Path) -> None:
    """Read one whole tensor after the other and keep this rank's part."""
    facts = _full_facts(folder)
    where = placements(model)
    if facts.vocab_size < model.vocab_size:
        logger.info(
            "%d ids are new to %s: their rows begin as the mean of the others",
            model.vocab_size - facts.vocab_size,
            folder,
        )
    rows = _rows(facts)
    for name, own in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith((".lora_a", ".lora_b")):
            continue
        part = local_part(own)
        shape = list(where[name].full_shape(own.shape))
        saved = [rows, *shape[1:]] if name in VOCABULARY else shape
        whole = torch.empty(saved, dtype=part.dtype)
        load_tensors({f"weight.{name}": whole}, folder)
        if saved[0] != shape[0] or facts.vocab_size < model.vocab_size:
            whole = fit_rows(whole[: facts.vocab_size], tuple(shape), name, model.vocab_size)
        assign(own, where[name].slice(whole))


def _rows(facts: Facts) -> int:
    """Return the rows of the embedding as it was saved, padding included."""
    multiple = facts.config.model.vocab_multiple
    return -(-facts.vocab_size // multiple) * multiple


def _extends(ours: Path, theirs: Path) -> bool:
    """Whether a tokenizer.json does what the other does, but for tokens of a chat template.

    These are more ids at the end, or other tokens in the places that were reserved for them.
    """
    one, other = _meaning(ours), _meaning(theirs)
    new, old = _take_tokens(one), _take_tokens(other)
    return one == other and all(
        new.get(number) == token or (number in new and _RESERVED.search(str(token)))
        for number, token in old.items()
    )


def _take_tokens(values: dict[str, Any]) -> dict[int, Any]:
    """Take the vocabulary and the added tokens out of a tokenizer.json: id -> token."""
    vocabulary = values["model"].pop("vocab", None) or {}
    if isinstance(vocabulary, dict):
        tokens: dict[int, Any] = {number: token for token, number in vocabulary.items()}
    else:  # tokens with their scores
        tokens = dict(enumerate(vocabulary))
    added = values.pop("added_tokens", None) or []
    return tokens | {token["id"]: token["content"] for token in added}


def _meaning(path: Path) -> dict[str, Any]:
    """Return what a tokenizer.json does, without what depends on its use."""
    values: dict[str, Any] = json.loads(path.read_bytes())
    return {key: value for key, value in values.items() if key not in ("truncation", "padding")}
