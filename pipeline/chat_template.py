"""A chat template and a conversation in; its text, and where the assistant speaks in it, out.

Templates are Jinja, in the environment that Hugging Face gives them (transformers,
`apply_chat_template`): sandboxed, blocks trimmed, `raise_exception`, `strftime_now`, `tojson`,
loop controls, and `{% generation %}` around what the assistant generates. Where a template has no
such blocks, the assistant's part of a turn is what rendering one more message adds to the
generation prompt; a template that changes earlier turns as the conversation grows is refused.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

BUILT_IN = Path(__file__).with_name("templates")

CHATML_TOKENS = ("<|im_start|>", "<|im_end|>")
"""Control tokens of the built-in template `chatml`."""

_GENERATED, _GENERATED_END = "\ufdd0", "\ufdd1"
_LITERAL, _LITERAL_END = "\ufdd2", "\ufdd3"
_MARK = re.compile("[\ufdd0-\ufdd3]")
"""Noncharacters, which no text may hold: they mark places in a text while it is rendered."""

Message = dict[str, Any]
Span = tuple[int, int]


class ChatTemplateError(ValueError):
    """A chat template cannot be read, or fails on a conversation."""


class UnstableTemplateError(ChatTemplateError):
    """A template renders earlier turns differently when later ones follow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderedChat:
    """The text of one conversation."""

    text: str
    targets: list[Span]
    """Characters [start, end) that the assistant generates, its end-of-turn token included."""
    literals: list[Span]
    """Characters that spell a control token in a message's content, so are none."""


class ChatTemplate:
    """A compiled template.

    Args:
        source: the Jinja text.
        variables: what it may use besides the messages: bos_token, eos_token and the like.
        control_tokens: tokens that count as text where a message spells them.
        name: for messages.

    Raises:
        ChatTemplateError: it is not Jinja; names the line.
    """

    def __init__(
        self,
        source: str,
        variables: Mapping[str, str],
        control_tokens: Sequence[str] = (),
        name: str = "the chat template",
    ) -> None:
        self.source, self.name = source, name
        self._variables = dict(variables)
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise ChatTemplateError(
                f"{name} is not a Jinja template: line {error.lineno}: {error.message}"
            ) from error
        self.has_generation_blocks = (
            re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", source) is not None
        )
        longest_first = sorted(control_tokens, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = False,
    ) -> RenderedChat:
        """Render a conversation as a prompt: no targets.

        Raises:
            ChatTemplateError: the template fails, or refuses the conversation.
        """
        marked = [_marked(_with_reasoning(one), self._control) for one in messages]
        tools = None if tools is None else _marked(list(tools), self._control)
        return _unmarked(self._fill(marked, tools, add_generation_prompt))

    def render_with_targets(
        self, messages: Sequence[Message], *, tools: Sequence[Any] | None = None
    ) -> RenderedChat:
        """Render a whole conversation and find what the assistant generates.

        Raises:
            ChatTemplateError: the template fails, or refuses the conversation.
            UnstableTemplateError: it has no generation blocks, and earlier turns change.
        """
        marked = [_marked(_with_reasoning(one), self._control) for one in messages]
        tools = None if tools is None else _marked(list(tools), self._control)
        whole = self._fill(marked, tools, False)
        if self.has_generation_blocks:
            return _unmarked(whole)
        pieces, place = [], 0
        for number, message in enumerate(marked):
            if message.get("role") != "assistant":
                continue
            before = self._fill(marked[:number], tools, True)
            if not whole.startswith(before):  # a template that knows no generation prompt
                before = self._fill(marked[:number], tools, False)
            after = whole
            if number + 1 < len(marked):
                after = self._fill(marked[: number + 1], tools, False)
            if not (whole.startswith(before) and whole.startswith(after)):
                raise UnstableTemplateError(
                    f"{self.name} renders the turns up to message {number} differently when others "
                    "follow, so it cannot be said what the assistant generated. Put "
                    "{% generation %} ... {% endgeneration %} around it in a copy of the template "
                    "and name that in chat.template"
                )
            end = self._end_of_turn(whole, len(before), len(after))
            pieces += [whole[place : len(before)], _GENERATED]
            pieces += [whole[len(before) : end], _GENERATED_END]
            place = end
        return _unmarked("".join([*pieces, whole[place:]]))

    def _end_of_turn(self, text: str, start: int, end: int) -> int:
        """Return where a turn ends: after its last control token, if only spaces follow that."""
        found = end
        for match in self._control.finditer(text, start, end):
            is_literal = text[match.start() - 1] == _LITERAL
            found = end if is_literal or text[match.end() : end].strip() else match.end()
        return found

    def _fill(self, messages: Sequence[Message], tools: Sequence[Any] | None, prompt: bool) -> str:
        try:
            return self._template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=prompt,
                **self._variables,
            )
        except Exception as error:  # a template may raise anything: it is a program
            where = f"{type(error).__name__}: " if type(error) is not jinja2.TemplateError else ""
            raise ChatTemplateError(f"{self.name} fails: {where}{str(error)[:200]}") from error


def built_in(name: str) -> str:
    """Return the text of a built-in template: `chatml` or `plain`."""
    return (BUILT_IN / f"{name}.jinja").read_text(encoding="utf-8")


def _with_reasoning(message: Message) -> Message:
    """Give a turn its reasoning under the names that templates read, as transformers does."""
    names = ("reasoning_content", "thinking", "reasoning")
    found = next((message[name] for name in names if message.get(name) is not None), None)
    return message if found is None else {"thinking": found, **message, names[0]: found}


def _marked(value: Any, control: re.Pattern[str]) -> Any:
    """Return a copy of JSON values in which spelled-out control tokens are marked."""
    if isinstance(value, str):
        if _MARK.search(value):
            value = _MARK.sub("", value)
        if control.search(value) is None:  # nearly always
            return value
        return control.sub(f"{_LITERAL}\\g<0>{_LITERAL_END}", value)
    if isinstance(value, dict):
        return {key: _marked(one, control) for key, one in value.items()}
    if isinstance(value, list):
        return [_marked(one, control) for one in value]
    return value


def _unmarked(text: str) -> RenderedChat:
    """Take the marks out of a text; a lone one (the template cut the string) is dropped."""
    found: dict[str, list[Span]] = {_GENERATED_END: [], _LITERAL_END: []}
    opened: dict[str, int] = {}
    pieces: list[str] = []
    place = length = 0
    for match in _MARK.finditer(text):
        pieces.append(text[place : match.start()])
        length += len(pieces[-1])
        place = match.end()
        mark = match.group()
        if mark in found:
            start = opened.pop(mark, length)
            if start < length:
                found[mark].append((start, length))
        else:
            opened[chr(ord(mark) + 1)] = length
    pieces.append(text[place:])
    return RenderedChat(
        text="".join(pieces), targets=found[_GENERATED_END], literals=found[_LITERAL_END]
    )


class _Generation(jinja2.ext.Extension):
    """Puts marks around what `{% generation %}` blocks render."""

    tags = {"generation"}  # noqa: RUF012  (jinja2's own declaration)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        call = self.call_method("_mark")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _mark(self, caller: Any) -> str:
        return f"{_GENERATED}{caller()}{_GENERATED_END}"


@functools.cache
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    """Return a fixed day: what is written must not depend on when."""
    return datetime.datetime(2025, 1, 1).strftime(form)
