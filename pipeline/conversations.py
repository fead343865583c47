"""A row of fine-tuning data in; a conversation, or the reason why it is none, out.

Rows hold a list of turns, or fields of which a task's templates make a prompt and its completion:
then the conversation has one turn of each.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import langcodes
import msgspec

from .batches import as_string
from .chat_config import ChatConfig, TaskConfig
from .chat_template import Message
from .documents import UNKNOWN_LANGUAGE
from .language import normalize_language

ROLES = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""Names of roles in data sets -> the names that templates know."""

_MAY_FOLLOW = {
    "": {"system", "developer", "user"},
    "system": {"user"},
    "developer": {"user"},
    "user": {"assistant"},
    "assistant": {"user", "tool"},
    "tool": {"tool", "assistant"},
}

TASKS = {
    "translate": (
        "Translate from {src_lang:language} into {tgt_lang:language}:\n{prompt}",
        "{completion}",
    ),
    "summarize": ("Summarize:\n{document}", "{summary}"),
    "answer": ("{context}\n\n{question}", "{answer}"),
    "prompt": ("{prompt}", "{completion}"),
}
"""Prompt and completion of each kind of task."""

LANGUAGE = "language"


class NoConversationError(ValueError):
    """A row holds no conversation: `reason` is a key of documents.REASONS."""

    def __init__(self, reason: str, detail: str, languages: Sequence[str] = ()) -> None:
        super().__init__(detail)
        self.reason, self.languages = reason, languages


@dataclass(kw_only=True, slots=True)
class Conversation:
    """One row, read."""

    messages: list[Message]
    task: str = ""
    """Kind of the task; empty: a conversation."""
    tools: list[Any] | None = None
    together: str = ""
    """Rows with this in common are held out together."""
    languages: list[str] = field(default_factory=list)
    """Those that the prompt names, in our normal form, in its order."""


def read_messages(row: Mapping[str, Any], config: ChatConfig) -> Conversation:
    """Return the conversation of a row with a list of turns.

    Raises:
        NoConversationError: its roles are broken, or a turn is empty.
    """
    turns = row.get(config.messages_key)
    if not isinstance(turns, list) or not turns:
        raise NoConversationError(
            "broken_roles", f"{config.messages_key!r} is {_kind(turns)}, not a list of turns"
        )
    messages: list[Message] = []
    before = ""
    for number, turn in enumerate(turns):
        if not isinstance(turn, dict):
            raise NoConversationError("broken_roles", f"turn {number} is {_kind(turn)}")
        given = turn.get(config.role_key)
        role = ROLES.get(given.lower(), "") if isinstance(given, str) else ""
        if role not in _MAY_FOLLOW[before]:
            said = f"{given!r}" if isinstance(given, str) else _kind(given)
            what = f"follows {before}" if before else "comes first"
            raise NoConversationError("broken_roles", f"turn {number}: the role {said} {what}")
        content = _content(turn.get(config.content_key), number)
        if not content.strip() and not turn.get("tool_calls"):
            raise NoConversationError("empty_turn", f"turn {number} ({role}) says nothing")
        known = ("role", "content", config.role_key, config.content_key)
        # Tables fill fields that a turn does not have with nulls.
        others = {k: v for k, v in turn.items() if k not in known and v is not None}
        messages.append({"role": role, "content": content, **others})
        before = role
    if all(message["role"] != "assistant" for message in messages):
        raise NoConversationError("broken_roles", "no turn is the assistant's: nothing to learn")
    tools = row.get("tools")
    if isinstance(tools, str):
        tools = _parsed(tools)
    return Conversation(
        messages=_with_system(messages, config.system_prompt),
        tools=tools if isinstance(tools, list) and tools else None,
        together=next(m["content"] for m in messages if m["role"] == "user"),
    )


class TaskReader:
    """Makes conversations of rows by the templates of one task.

    Raises:
        ValueError: a template has something else in braces than the name of a field.
    """

    def __init__(self, task: TaskConfig, system_prompt: str) -> None:
        self._kind = task.kind or "prompt"
        prompt, completion = TASKS[self._kind]
        self._prompt = _parse(task.prompt or prompt, "prompt")
        self._completion = _parse(task.completion or completion, "completion")
        self._pairs = frozenset(task.language_pairs)
        self._held_out_by = task.held_out_by
        self._system_prompt = system_prompt

    def __call__(self, row: Mapping[str, Any]) -> Conversation:
        """Return the conversation of a row.

        Raises:
            NoConversationError: a field is missing, a language not known or not asked for, or the
                prompt or the completion is empty.
        """
        languages: list[str] = []
        prompt = _fill(self._prompt, row, languages)
        completion = _fill(self._completion, row, languages)
        if self._pairs:
            pair = "-".join(language.split("_")[0] for language in languages)
            if pair not in self._pairs:
                raise NoConversationError(
                    "other_language_pair", f"the languages are {pair!r}", languages
                )
        for role, content in (("prompt", prompt), ("completion", completion)):
            if not content.strip():
                raise NoConversationError("empty_turn", f"the {role} is empty")
        messages = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion},
        ]
        together = prompt
        if self._held_out_by:
            together = _value(row, self._held_out_by)
        return Conversation(
            messages=_with_system(messages, self._system_prompt),
            task=self._kind,
            together=together,
            languages=languages,
        )


@functools.lru_cache(maxsize=4096)
def language_name(code: str) -> str:
    """Return the English name of a language in any notation, "" where it is not known."""
    normal = normalize_language(code)
    if normal == UNKNOWN_LANGUAGE:
        return ""
    try:
        # As it is written where that is a language of its own: zh is Chinese, cmn Mandarin Chinese.
        name = langcodes.get(code).language_name()
    except ValueError:
        name = langcodes.get(normal).language_name()
    return "" if name.startswith("Unknown") else str(name)


def _parse(template: str, which: str) -> list[tuple[str, str, bool]]:
    """Return [(text before, field, whether its language's name is meant)]; field "": none."""
    pieces: list[tuple[str, str, bool]] = []
    try:
        for text, name, form, conversion in string.Formatter().parse(template):
            if name is not None and (not name or conversion or form not in ("", LANGUAGE)):
                raise ValueError(f"{{{name}{'!' + conversion if conversion else ''}:{form}}}")
            pieces.append((text, name or "", form == LANGUAGE))
    except ValueError as error:
        raise ValueError(
            f"task.{which} is {template!r}, which cannot be read ({error}): in braces stands the "
            "name of a field ({document}, {src_lang:language}); a brace itself is written twice"
        ) from error
    return pieces


def _fill(
    pieces: Sequence[tuple[str, str, bool]], row: Mapping[str, Any], languages: list[str]
) -> str:
    filled = []
    for text, name, is_language in pieces:
        filled.append(text)
        if not name:
            continue
        value = _value(row, name)
        if is_language:
            spoken = language_name(value)
            if not spoken:
                raise NoConversationError(
                    "unknown_language_pair", f"{name!r} is {value!r}, which is no known language"
                )
            languages.append(normalize_language(value))
            value = spoken
        filled.append(value)
    return "".join(filled)


def _value(row: Mapping[str, Any], name: str) -> str:
    value = as_string(row.get(name))
    if value is None:
        what = "is null" if name in row else "is not there"
        raise NoConversationError("missing_field", f"the field {name!r} {what}")
    return value


def _content(value: Any, number: int) -> str:
    """Return what a turn says; of a list of parts the texts."""
    if value is None:
        return ""
    if isinstance(value, list):
        texts = [part.get("text") if isinstance(part, dict) else part for part in value]
        strings = [text for text in texts if isinstance(text, str)]
        if len(strings) == len(texts):
            return "".join(strings)
    if not isinstance(value, str):
        raise NoConversationError("empty_turn", f"turn {number} holds {_kind(value)}, not text")
    return value


def _with_system(messages: list[Message], system_prompt: str) -> list[Message]:
    if not system_prompt or messages[0]["role"] in ("system", "developer"):
        return messages
    return [{"role": "system", "content": system_prompt}, *messages]


def _parsed(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise NoConversationError("broken_roles", f"'tools' is no JSON: {error}") from error


def _kind(value: Any) -> str:
    if value is None:
        return "missing or null"
    return "an empty list" if value == [] else f"a {type(value).__name__}"
