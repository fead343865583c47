"""A checkpoint and prompts in, continuations out, whatever layout trained it.

Prompts of a batch end at the same place: shorter ones have padding in front, which nothing sees,
and their positions count from their own first token.

Legend: B sequences, T positions, V vocabulary columns of this rank.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..indexed_dataset import SampleDataset
from .blend import documents_of
from .checkpoint import CheckpointError, locate, read_facts
from .config import longest_sequence
from .grid import Ranks
from .model import Transformer
from .places import padding_places
from .precision import compute_dtype
from .sampler import Sampler
from .start import load_trained, require_vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a checkpoint folder holds, ready to generate."""

    model: Transformer
    """All weights, or this rank's slices of them."""
    tokenizer: Tokenizer
    """Text to ids and back."""
    eod_id: int | None
    """Id that ends a document."""
    follows_eod: bool = True
    """Whether texts began after that id in training: not where documents were kept separate."""
    stop_ids: frozenset[int] = frozenset()
    """Ids that end an answer: that of the document, and of the assistant's turn."""
    context: int = 0
    """Tokens of the longest sample of the training; 0: not known."""
    tokenizer_folder: Path | None = None
    """Folder of the tokenizer, with the chat template if there is one."""


def load_model(
    checkpoint: str | os.PathLike[str],
    tensor: Ranks | None = None,
    device: torch.device | None = None,
    tokenizer_folder: str | os.PathLike[str] = "",
) -> TrainedModel:
    """Open a checkpoint folder, or the newest checkpoint of a run's output folder.

    Low-rank matrices are merged into the weights of the model that they adapt.

    Args:
        tensor: ranks that share the model; None: this process has it all.
        device: None: a GPU if there is one.
        tokenizer_folder: of the tokenizer to use, which may have more tokens than the checkpoint's
            own; empty: its own.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or one without tokenizer.
    """
    folder = locate(checkpoint)
    facts = read_facts(folder)
    beside = Path(tokenizer_folder) if tokenizer_folder else folder / "tokenizer"
    file = beside / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer/tokenizer.json (its datasets had none beside them): copy "
            "the tokenizer that made the token files there"
        )
    tokenizer = load_tokenizer(file)
    vocab_size = facts.vocab_size
    if tokenizer_folder:
        require_vocabulary(folder, tokenizer.get_vocab_size(), beside)
        vocab_size = max(vocab_size, tokenizer.get_vocab_size())
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Transformer(
        facts.config.model,
        vocab_size,
        tensor,
        compute_dtype=compute_dtype(facts.config.training.precision, device),
    ).to(device)
    load_trained(model, folder, facts)
    eod_id: int | None = facts.data["eod_id"]
    return TrainedModel(
        model.eval(),
        tokenizer,
        eod_id,
        documents_of(facts.config.data) == "joined",
        _stop_ids(beside, eod_id),
        longest_sequence(facts.config.data),
        beside,
    )


def _stop_ids(folder: Path, eod_id: int | None) -> frozenset[int]:
    """Return the ids that end an answer: generation_config.json beside the tokenizer says them."""
    file = folder / "generation_config.json"
    named = json.loads(file.read_bytes()).get("eos_token_id") if file.is_file() else None
    ids = named if isinstance(named, list) else [named]
    return frozenset(number for number in (*ids, eod_id) if number is not None)


def load_tokenizer(path: Path) -> Tokenizer:
    """Open a tokenizer.json."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def generate(
    checkpoint: str | os.PathLike[str] | TrainedModel,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    seed: int = 0,
    batch_size: int = 8,
    first_prompt: int = 0,
    on_batch: Callable[[int, list[str]], None] | None = None,
) -> list[str]:
    """Return a continuation of each prompt, without the prompt.

    A continuation ends at the end of the document or turn, or after `max_tokens`. Prompt number i
    is drawn with the seed `seed` + i: the texts of the others change nothing.

    Args:
        checkpoint: a checkpoint folder, the output folder of a run, or what `load_model` returned.
        prompts: texts, "" begins a new document; or ids, which are taken as they are.
        temperature: 0 takes the likeliest token each time.
        batch_size: prompts continued at once.
        first_prompt: those before it are left out: an earlier call has continued them.
        on_batch: called with the number of the first prompt and the texts of each batch.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        ValueError: a setting out of range, or an empty prompt for a model without EOD.
    """
    trained = checkpoint if isinstance(checkpoint, TrainedModel) else load_model(checkpoint)
    if not trained.model.config.causal:
        raise ValueError(
            "this model is an encoder (model.causal = false): it fills in masked tokens and "
            "continues no text. Fine-tune it with `gristmill classify`, or export it"
        )
    sampler = Sampler(temperature, top_k, top_p, min_p)
    if max_tokens < 0 or batch_size < 1:
        raise ValueError(
            f"max_tokens = {max_tokens} must not be negative, batch_size = {batch_size} must be 1 "
            "or more"
        )
    texts: list[str] = []
    for first in range(first_prompt, len(prompts), batch_size):
        rows = [_prompt_ids(trained, prompt) for prompt in prompts[first : first + batch_size]]
        seeds = range(seed + first, seed + first + len(rows))
        new = continue_rows(trained.model, rows, max_tokens, sampler, trained.stop_ids, seeds)
        batch = [_text(trained, ids, more) for ids, more in zip(rows, new, strict=True)]
        if on_batch is not None:
            on_batch(first, batch)
        texts += batch
    return texts


def _prompt_ids(trained: TrainedModel, prompt: str | Sequence[int]) -> list[int]:
    if not isinstance(prompt, str):
        return list(prompt)
    ids: list[int] = trained.tokenizer.encode(prompt, add_special_tokens=False).ids
    # A document begins after the end of the one before: so it was in training.
    if trained.eod_id is not None and (trained.follows_eod or not ids):
        ids = [trained.eod_id, *ids]
    if not ids:
        raise ValueError(
            "the prompt is empty and the model knows no end-of-document token to begin a text "
            "with: give a prompt"
        )
    return ids


def _text(trained: TrainedModel, ids: list[int], new: list[int]) -> str:
    # Decoding both and cutting keeps a character whose bytes lie on both sides whole.
    whole: str = trained.tokenizer.decode([*ids, *new])
    head = trained.tokenizer.decode(ids)
    return whole[len(head) :] if whole.startswith(head) else whole


def validation_prompts(
    tokenizer: Tokenizer, validation: Mapping[str, SampleDataset], number: int, num_tokens: int
) -> list[str]:
    """Return the beginnings of one document each from `number` groups spread over all."""
    names = list(validation)
    number = min(number, len(names))
    chosen = [names[i * len(names) // number] for i in range(number)]
    prompts = []
    for name in chosen:
        shard = next(shard for shard in validation[name].split.shards if shard.num_tokens)
        tokens = shard.get_document(shard.document_at(0))[:num_tokens]
        text = tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
        # The cut may fall inside a character, or a word: end with a whole one.
        head, space, _ = text.rstrip("\ufffd").rpartition(" ")
        prompts.append(head if space and head.strip() else text.rstrip("\ufffd"))
    return prompts


@torch.inference_mode()
def continue_rows(
    model: Transformer,
    rows: Sequence[Sequence[int]],
    max_tokens: int,
    sampler: Sampler,
    stop_ids: Collection[int] = (),
    seeds: Sequence[int] = (),
    on_token: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Return up to `max_tokens` ids that follow each row, without the one that stops it.

    Args:
        rows: ids of each prompt, one or more; they may have different lengths.
        stop_ids: ids that end a row.
        seeds: of each row's draws; () is 0 for all.
        on_token: called with the row and each of its ids as it comes.
    """
    device = model.device
    seeds = seeds or [0] * len(rows)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    longest = max(map(len, rows))
    padding = [longest - len(row) for row in rows]
    padding_B = torch.tensor(padding, device=device) if any(padding) else None
    filled = [[*[0] * before, *row] for before, row in zip(padding, rows, strict=True)]
    tokens_BT = torch.tensor(filled, device=device)
    cache = model.make_cache(len(rows), longest + max_tokens)
    new: list[list[int]] = [[] for _ in rows]
    open_rows = set(range(len(rows)))
    start = 0
    for _ in range(max_tokens):
        length = tokens_BT.shape[1]
        places = None if padding_B is None else padding_places(padding_B, start, length)
        hidden_BTD = model.hidden(tokens_BT, cache, start, places)
        logits_BV = model.logits(hidden_BTD[:, -1:])[:, -1]
        start += length
        token_B = sampler.draw(logits_BV, generators, model.tensor)
        for row, token in enumerate(token_B.tolist()):
            if row in open_rows and token in stop_ids:
                open_rows.remove(row)
            elif row in open_rows:
                new[row].append(token)
                if on_token is not None:
                    on_token(row, token)
        if not open_rows:
            break
        tokens_BT = token_B[:, None]
    return new
