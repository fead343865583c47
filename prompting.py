"""Rows of prompts or conversations in, what a model is given out: texts, or ids.

A conversation is rendered with the chat template beside the model's tokenizer and encoded as its
fine-tuning data were: what a message spells stays text, whatever control token it looks like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TEMPLATE = "chat_template.jinja"


class NoTemplateError(ValueError):
    """A model has no chat template, so that nobody can talk with it."""


class Prompter:
    """Makes prompts of conversations.

    Args:
        folder: of a tokenizer, with its chat template.

    Raises:
        NoTemplateError: there is no template.
        ChatTemplateError: it cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        from .pipeline.chat_tokenizer import open_prompt_encoder

        if not (Path(folder) / TEMPLATE).is_file():
            raise NoTemplateError(
                f"{folder} has no {TEMPLATE}: the model was trained on texts, not on "
                "conversations. Fine-tune it on data of `gristmill preprocess` with "
                'preprocess.kind = "chat", or continue texts with `gristmill generate --prompt`'
            )
        self._encode = open_prompt_encoder(Path(folder))

    def ids(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None
    ) -> list[int]:
        """Return the ids of a conversation up to where the assistant begins to speak.

        Raises:
            ChatTemplateError: the template refuses the conversation.
        """
        return self._encode([dict(message) for message in messages], tools)


def prompts_of(checkpoint: str | Path, rows: Sequence[Mapping[str, Any]]) -> list[str | list[int]]:
    """Return what the model is given for each row: its `prompt`, or its `messages` as ids.

    Raises:
        CheckpointError: there is no model.
        NoTemplateError: a row has messages and the model no template.
    """
    from .trainer.checkpoint import locate

    prompter: Prompter | None = None
    found: list[str | list[int]] = []
    for row in rows:
        if "prompt" in row:
            found.append(str(row["prompt"]))
            continue
        if prompter is None:
            prompter = Prompter(locate(checkpoint) / "tokenizer")
        found.append(prompter.ids(row["messages"], row.get("tools")))
    return found
