"""Messages in, the ids that a model answers out: rendered and encoded as its training data were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .chat_template import ChatTemplate, ChatTemplateError, Message
from .chat_tokenizer import control_tokens, special_tokens
from .rendered_text import RenderedTextEncoder
from .tokenizer_files import read_tokenizer_file

TEMPLATE = "chat_template.jinja"


class ChatPrompt:
    """Makes prompts of conversations.

    Args:
        folder: of the tokenizer that `gristmill preprocess` wrote with kind = "chat" or "pairs",
            or of a checkpoint's.

    Raises:
        ChatTemplateError: there is no template, or it cannot be read.
        TokenizerError: there is no tokenizer.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        template = Path(folder) / TEMPLATE
        if not template.is_file():
            raise ChatTemplateError(
                f"{folder} has no {TEMPLATE}: the model was trained on texts, not on "
                "conversations. Fine-tune it on data of `gristmill preprocess` with "
                'preprocess.kind = "chat", or continue texts with `gristmill generate --prompt`'
            )
        file = read_tokenizer_file(os.fspath(folder))
        source = template.read_text(encoding="utf-8")
        control = control_tokens(file.parse(), source)
        self._template = ChatTemplate(
            source, special_tokens(file.settings), control, f"the chat template {template}"
        )
        self._encode = RenderedTextEncoder(file)

    def ids(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> list[int]:
        """Return the ids of a conversation up to where the assistant begins to speak.

        Raises:
            ChatTemplateError: the template refuses the conversation.
        """
        rendered = self._template.render(messages, tools=tools, add_generation_prompt=True)
        return self._encode(rendered.text, rendered.literals)[0]
