"""What a user can set about fine-tuning data: conversations, and pairs that become some."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """How the fields of a row become a prompt and its completion."""

    kind: Literal["", "translate", "summarize", "answer", "prompt"] = ""
    """translate, summarize, answer (a question about a text), prompt (what the row says): each has
    a prompt and a completion of its own, which the two keys below replace. Empty: the rows of this
    source are conversations; with kind = "pairs", `prompt`."""
    prompt: str = ""
    """What the user says, with fields of the row in braces: `Summarize:\\n{article}`.
    `{src_lang:language}` is the English name of the language that the field names."""
    completion: str = ""
    """What the assistant answers, likewise: `{summary}`."""
    language_pairs: tuple[str, ...] = ()
    """Only rows whose languages, in the order in which the prompt names them, are one of these
    (`eng-jpn`); others are dropped as `other_language_pair`. Empty: all."""
    held_out_by: str = ""
    """Rows that share the value of this field (a context with many questions, say) are held out for
    validation together; empty: those with the same prompt are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatConfig:
    """Conversations: where they stand in a row, and the template that makes one text of them."""

    template: str = ""
    """A file with a chat template (Jinja), `chatml`, or `plain` (turns as they are, each answer
    ended by the end-of-document token); empty: the tokenizer's own, where it has none `chatml`."""
    system_prompt: str = ""
    """System turn of conversations that have none; empty: none."""
    messages_key: str = "messages"
    """Field or column with the turns of a conversation."""
    role_key: str = "role"
    """Field of a turn that says who speaks: system, user, assistant, tool, or a name that is known
    for one of them (human, gpt, bot, model, ...)."""
    content_key: str = "content"
    """Field of a turn with what is said."""
    max_tokens: int = 2048
    """Longer conversations (end-of-document token included) are dropped as `too_long`, never cut:
    the sequence length of the training. 0: no limit."""
    special_strings: Literal["as_text", "as_tokens"] = "as_text"
    """What becomes of a control token that a turn spells out: ids of its characters, or its id,
    which then ends the turn, say. They are counted in the report."""
    added_tokens: tuple[str, ...] = ()
    """Control tokens that the template writes and the tokenizer lacks. They take the place of its
    reserved tokens, then new ids at its end. Those of `chatml` are added by themselves."""
