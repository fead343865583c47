"""Rows of prompts or conversations in, what a model is given out: texts, or ids.

Conversations are rendered with the chat template beside the model's tokenizer (`ChatPrompt`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipeline.chat_prompt import ChatPrompt


def open_prompt(folder: str | Path) -> ChatPrompt:
    """Return the maker of prompts for the model whose tokenizer lies in `folder`.

    Raises:
        ChatTemplateError: it has no chat template, or one that cannot be read.
        ValueError: what renders templates is not installed.
    """
    try:
        from ..pipeline.chat_prompt import ChatPrompt
    except ImportError as error:
        raise ValueError(
            f"conversations need the package {error.name}: pip install 'gristmill[pipeline]'"
        ) from error
    return ChatPrompt(folder)


def prompts_of(checkpoint: str | Path, rows: Sequence[Mapping[str, Any]]) -> list[str | list[int]]:
    """Return what the model is given for each row: its `prompt`, or its `messages` as ids.

    Raises:
        CheckpointError: there is no model.
        ChatTemplateError: a row has messages, and the model has no template or it refuses them.
    """
    from ..trainer.checkpoint import locate

    prompter: ChatPrompt | None = None
    found: list[str | list[int]] = []
    for row in rows:
        if "prompt" in row:
            found.append(str(row["prompt"]))
            continue
        if prompter is None:
            prompter = open_prompt(locate(checkpoint) / "tokenizer")
        found.append(prompter.ids(row["messages"], row.get("tools")))
    return found
