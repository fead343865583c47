"""A checkpoint and prompts in, continuations out, in one process whatever layout trained it.

Legend: B sequences, T positions, V vocabulary.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..indexed_dataset import SampleDataset
from .checkpoint import CheckpointError, load_weights, locate, read_facts
from .model import Transformer
from .precision import compute_dtype
from .sampler import Sampler

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """What a checkpoint folder holds, ready to generate."""

    model: Transformer
    """All weights in this process."""
    tokenizer: Tokenizer
    """Text to ids and back."""
    eod_id: int | None
    """Id that ends a document."""


def load_model(checkpoint: str | os.PathLike[str]) -> TrainedModel:
    """Open a checkpoint folder, or the newest checkpoint of a run's output folder.

    Raises:
        CheckpointError: no checkpoint, a damaged one, or one without tokenizer.
    """
    from tokenizers import Tokenizer

    folder = locate(checkpoint)
    facts = read_facts(folder)
    file = folder / "tokenizer" / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(
            f"{folder} has no tokenizer/tokenizer.json (its datasets had none beside them): copy "
            "the tokenizer that made the token files there"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = Transformer(
        facts.config.model,
        facts.vocab_size,
        compute_dtype=compute_dtype(facts.config.training.precision, device),
    ).to(device)
    load_weights(model, folder)
    return TrainedModel(model.eval(), Tokenizer.from_file(str(file)), facts.data["eod_id"])


def generate(
    checkpoint: str | os.PathLike[str] | TrainedModel,
    prompts: Sequence[str],
    *,
    max_tokens: int = 100,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[str]:
    """Return a continuation of each prompt, without the prompt.

    A continuation ends at the end of the document, or after `max_tokens`. Prompt number i is drawn
    with the seed `seed` + i: the texts of the others change nothing.

    Args:
        checkpoint: a checkpoint folder, the output folder of a run, or what `load_model` returned.
        prompts: texts; "" begins a new document.
        temperature: 0 takes the likeliest token each time.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        ValueError: a setting out of range, or an empty prompt for a model without EOD.
    """
    trained = checkpoint if isinstance(checkpoint, TrainedModel) else load_model(checkpoint)
    sampler = Sampler(temperature, top_k, top_p)
    if max_tokens < 0:
        raise ValueError(f"max_tokens = {max_tokens} must not be negative")
    texts = []
    for number, prompt in enumerate(prompts):
        ids = trained.tokenizer.encode(prompt, add_special_tokens=False).ids
        # A document begins after the end of the one before: so it was in training.
        if trained.eod_id is not None:
            ids = [trained.eod_id, *ids]
        if not ids:
            raise ValueError(
                "the prompt is empty and the model knows no end-of-document token to begin a text "
                "with: give a prompt"
            )
        new = continue_tokens(
            trained.model, ids, max_tokens, sampler, trained.eod_id, seed + number
        )
        # Decoding both and cutting keeps a character whose bytes lie on both sides whole.
        whole = trained.tokenizer.decode([*ids, *new])
        head = trained.tokenizer.decode(ids)
        texts.append(whole[len(head) :] if whole.startswith(head) else whole)
    return texts


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
def continue_tokens(
    model: Transformer,
    ids: list[int],
    max_tokens: int,
    sampler: Sampler,
    eod_id: int | None = None,
    seed: int = 0,
) -> list[int]:
    """Return up to `max_tokens` ids that follow `ids`, without the end-of-document token."""
    device = model.norm.weight.device
    generators = [torch.Generator().manual_seed(seed)]
    cache = model.make_cache(1, len(ids) + max_tokens)
    tokens_BT = torch.tensor([ids], device=device)
    start, new = 0, []
    for _ in range(max_tokens):
        hidden_BTD = model.hidden(tokens_BT, cache, start)
        logits_BV = model.logits(hidden_BTD[:, -1:])[:, -1]
        start += tokens_BT.shape[1]
        token_B = sampler.draw(logits_BV, generators)
        if int(token_B) == eod_id:
            break
        new.append(int(token_B))
        tokens_BT = token_B[:, None]
    return new
