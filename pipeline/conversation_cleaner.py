"""One batch of rows flows in, its rendered conversations and the dropped rows flow out.

The counterpart of cleaner.py for fine-tuning data: what each turn says is normalized, then the
conversation is rendered with the chat template. Its text is the document's; where the assistant
speaks in it, and what it was made of, stand in columns of their own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from .batches import EXCERPT_BYTES, ReadBatch, Rejected, text_array
from .chat_config import ChatConfig, TaskConfig
from .chat_template import (
    ChatTemplate,
    ChatTemplateError,
    RenderedChat,
    Span,
    UnstableTemplateError,
)
from .cleaner import why_not
from .config import CleanConfig
from .conversations import Conversation, NoConversationError, TaskReader, read_messages
from .documents import document_schema
from .language import normalize_language
from .normalize import Normalizer
from .sources import SourceFile

CONVERSATION_FIELDS: list[pa.Field] = [
    pa.field("conversation", pa.string(), nullable=False),  # JSON: messages, task, tools
    pa.field("turns", pa.int64(), nullable=False),
    pa.field("target_bytes", pa.int64(), nullable=False),  # of the text, by the assistant
    pa.field("target_spans", pa.list_(pa.int64()), nullable=False),  # start, end, start, ...
    pa.field("literal_spans", pa.list_(pa.int64()), nullable=False),  # the same: spelled out
    pa.field("together_id", pa.binary(16), nullable=False),  # held out together
]
"""Columns of documents/ that conversations have; spans are bytes of `text`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatRecipe:
    """What rendering needs, resolved and picklable."""

    config: ChatConfig
    template: str
    """Text of the chat template."""
    name: str
    """What messages call it."""
    variables: Mapping[str, str]
    """bos_token, eos_token, ... as the tokenizer has them."""
    control_tokens: tuple[str, ...]
    pairs: bool
    """Whether rows without a task of their own are pairs too."""

    def open(self) -> ChatTemplate:
        """Compile the template."""
        literals = self.control_tokens if self.config.special_strings == "as_text" else ()
        return ChatTemplate(self.template, self.variables, literals, self.name)


class ConversationCleaner:
    """Reads, normalizes and renders the rows of one unit."""

    def __init__(self, recipe: ChatRecipe, clean: CleanConfig, task: TaskConfig) -> None:
        self._recipe, self._clean = recipe, clean
        self._normalize = Normalizer(clean)
        self._template = recipe.open()
        self._read_task = None
        if recipe.pairs or task.kind or task.prompt:
            self._read_task = TaskReader(task, recipe.config.system_prompt)
        self.redacted: dict[str, int] = {}
        self.mismatches: Counter[tuple[str, str]] = Counter()

    def __call__(self, file: SourceFile, batch: ReadBatch) -> tuple[pa.RecordBatch, list[Rejected]]:
        """Return the conversations of a batch as documents, and all rows that were dropped."""
        raw = batch.documents
        rows = raw.column("text").to_pylist()
        input_ids = raw.column("input_id").to_pylist()
        places = raw.column("origin_offset").to_pylist()
        codes = raw.column("language").to_pylist()
        dropped: list[Rejected] = list(batch.rejected)
        found: list[Conversation | NoConversationError] = [self._read(row) for row in rows]
        self._normalize_turns([one for one in found if isinstance(one, Conversation)])
        kept: list[int] = []
        texts: list[bytes] = []
        columns: dict[str, list[Any]] = {field.name: [] for field in CONVERSATION_FIELDS}
        languages: list[str] = []
        ids: list[bytes] = []
        for index, one in enumerate(found):
            row = rows[index].encode()
            row_id = hashlib.blake2b(row, digest_size=16).digest()
            text = b""
            try:
                if isinstance(one, NoConversationError):
                    raise one
                rendered = self._render(one)
                text = rendered.text.encode()
                reason, detail = why_not(len(row), text, self._clean)
                if reason:
                    raise NoConversationError(reason, detail)
                values = _values(one, rendered)
            except (NoConversationError, RecursionError) as error:
                if isinstance(error, RecursionError):
                    error = _too_deep()
                dropped.append(
                    Rejected(
                        origin_offset=places[index],
                        reason=error.reason,
                        detail=str(error),
                        input_id=input_ids[index],
                        language=_language(codes[index], error.languages),
                        id=row_id,
                        text_bytes=len(text),
                        excerpt=row[:EXCERPT_BYTES].decode("utf-8", "ignore"),
                    )
                )
                continue
            kept.append(index)
            ids.append(row_id)
            texts.append(text)
            code = _language(codes[index], one.languages)
            languages.append(normalize_language(file.language or code or ""))
            for name, value in values.items():
                columns[name].append(value)
        dropped.sort(key=lambda one: one.origin_offset)
        raw = raw.take(pa.array(kept, pa.int64()))
        arrays = [
            pa.array(ids, pa.binary(16)),
            raw.column("input_id"),
            text_array(texts),
            pa.array(languages, pa.string()),
            pa.repeat(file.source_name, len(kept)),
            pa.repeat(file.origin_file, len(kept)),
            raw.column("origin_offset"),
            *(raw.column(name) for name in file.source.columns),
            *(pa.array(columns[field.name], field.type) for field in CONVERSATION_FIELDS),
        ]
        schema = conversation_schema(file.source.columns)
        return pa.RecordBatch.from_arrays(arrays, schema=schema), dropped

    def _read(self, row: str) -> Conversation | NoConversationError:
        try:
            value = msgspec.json.decode(row)
            if self._read_task is not None:
                return self._read_task(value)
            return read_messages(value, self._recipe.config)
        except NoConversationError as error:
            return error
        except RecursionError:
            return _too_deep()

    def _normalize_turns(self, conversations: list[Conversation]) -> None:
        """Normalize what is said, as the text of documents is; all turns of a batch at once."""
        messages = [message for one in conversations for message in one.messages]
        raw = [message["content"].encode() for message in messages]
        offsets = np.cumsum([0, *map(len, raw)], dtype=np.int64)
        changed = self._normalize(np.frombuffer(b"".join(raw), np.uint8), offsets)
        for index, text in changed.items():
            messages[index]["content"] = text.decode()

    def _render(self, one: Conversation) -> RenderedChat:
        for number, message in enumerate(one.messages):
            if not message["content"] and not message.get("tool_calls"):
                raise NoConversationError(
                    "empty_turn", f"nothing is left of turn {number} after cleaning"
                )
        try:
            rendered = self._template.render_with_targets(one.messages, tools=one.tools)
        except UnstableTemplateError as error:
            raise NoConversationError("unstable_template", str(error)) from error
        except ChatTemplateError as error:
            raise NoConversationError("template_fails", str(error)) from error
        if not rendered.targets:
            raise NoConversationError("no_target", f"of {len(one.messages)} turns")
        return rendered


def _values(one: Conversation, rendered: RenderedChat) -> dict[str, Any]:
    """Return the values of CONVERSATION_FIELDS."""
    targets = _in_bytes(rendered.text, rendered.targets)
    said: dict[str, Any] = {"messages": one.messages, "task": one.task}
    if one.tools:
        said["tools"] = one.tools
    return {
        "conversation": msgspec.json.encode(said).decode(),
        "turns": len(one.messages),
        "target_bytes": sum(targets[1::2]) - sum(targets[::2]),
        "target_spans": targets,
        "literal_spans": _in_bytes(rendered.text, rendered.literals),
        "together_id": hashlib.blake2b(one.together.encode(), digest_size=16).digest(),
    }


def _too_deep() -> NoConversationError:
    return NoConversationError("rejected_json", "lists or objects are nested too deeply")


def conversation_schema(columns: tuple[str, ...]) -> pa.Schema:
    """Return the schema of rendered conversations with the carried columns."""
    schema = document_schema(columns)
    for field in CONVERSATION_FIELDS:
        schema = schema.append(field)
    return schema


def _language(code: str | None, named: Sequence[str]) -> str | None:
    """Return what the row says, else what the answer of a translation is in."""
    return code if code or not named else named[-1]


def _in_bytes(text: str, spans: list[Span]) -> list[int]:
    """Return spans of characters as bytes of the UTF-8 text: start, end, start, end, ..."""
    places = [place for span in spans for place in span]
    found, before, num_bytes = [], 0, 0
    for place in places:  # they rise: targets do not overlap
        num_bytes += len(text[before:place].encode())
        before = place
        found.append(num_bytes)
    return found
