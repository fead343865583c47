"""The tokenizer and the chat template of a run: what is configured in, what is used out.

The template is the configured one, else the tokenizer's own, else ChatML. Control tokens that it
needs and the tokenizer lacks take the place of tokens reserved for that (`<|reserved_0|>`), so that
the vocabulary of a model that was pretrained here need not grow; where there are none they are
added at its end. The tokenizer, its template and its special tokens are written to one folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..indexed_dataset.atomic import write_atomically
from .chat_config import ChatConfig
from .chat_template import CHATML_TOKENS, ChatTemplate, ChatTemplateError, built_in
from .config import PreprocessConfig
from .conversation_cleaner import ChatRecipe
from .tokenizer import Tokenizer
from .tokenizer_files import TokenizerError, TokenizerFile, read_tokenizer_file

FILES = ("tokenizer_config.json", "chat_template.jinja", "generation_config.json")
"""What stands beside tokenizer.json, under the names that Hugging Face gives it."""

_RESERVED = re.compile(r"<\|reserved_\d+\|>|<\|reserved_special_token_\d+\|>")


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatTokenizer:
    """What conversations are rendered and tokenized with."""

    content: bytes
    """The tokenizer.json, with the control tokens of the template."""
    eod: str
    recipe: ChatRecipe
    end_of_turn: str
    """Control token that ends what the assistant says; empty: the template writes none."""
    special_tokens: Mapping[str, str]
    """bos_token, eos_token, ...: name -> token."""
    added: tuple[str, ...]
    """Control tokens that the given tokenizer did not have."""

    def describe(self) -> list[str]:
        """Return what the user should know of it, a line each."""
        how = (
            "its generation blocks"
            if self.recipe.open().has_generation_blocks
            else ("what a turn adds to the prompt (it has no generation blocks)")
        )
        lines = [f"Conversations are rendered with {self.recipe.name}; loss is on {how}."]
        if self.added:
            lines.append(f"The tokenizer gets the control tokens {', '.join(self.added)}.")
        ends = f"the token {self.end_of_turn}" if self.end_of_turn else "no control token"
        lines.append(f"A turn of the assistant ends with {ends}, a document with {self.eod}.")
        return lines

    def write(self, folder: Path) -> Path:
        """Write the folder that stands for the tokenizer from here on; return it."""
        settings = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self.special_tokens,
        }
        write_atomically(folder / "tokenizer.json", self.content)
        tokenizer = Tokenizer(str(folder), eod=self.eod)
        stops = {tokenizer.eod_id, *self._end_of_turn_ids(tokenizer)}
        for name, value in (
            ("tokenizer_config.json", settings),
            ("generation_config.json", {"eos_token_id": sorted(stops)}),
        ):
            text = json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            write_atomically(folder / name, text.encode())
        write_atomically(folder / "chat_template.jinja", self.recipe.template.encode())
        return folder

    def _end_of_turn_ids(self, tokenizer: Tokenizer) -> list[int]:
        return [tokenizer.special_ids[self.end_of_turn]] if self.end_of_turn else []


def resolve(config: PreprocessConfig) -> ChatTokenizer:
    """Return the tokenizer and the template that the configuration means.

    Raises:
        TokenizerError: no tokenizer is given, or it cannot be used.
        ChatTemplateError: the template cannot be read, or fails on two turns of a conversation.
    """
    if not config.tokenizer.path:
        raise TokenizerError(
            f'kind = "{config.kind}" needs the tokenizer of the model that is to be fine-tuned: '
            "set tokenizer.path to the folder `tokenizer` of its checkpoint, or to its "
            "tokenizer.json"
        )
    file = read_tokenizer_file(config.tokenizer.path)
    eod = Tokenizer(config.tokenizer.path, eod=config.tokenizer.eod)
    _ = eod.eod_id  # an unknown one is an error now
    source, name, needed = _choose_template(config.chat, file)
    parsed = file.parse()
    added = _add_tokens(parsed, needed)
    content = file.content
    if added:
        content = json.dumps(parsed, ensure_ascii=False, indent=2).encode()
    special = {"eos_token": eod.eod or "", **special_tokens(file.settings)}
    tokens = parsed.get("added_tokens") or []
    recipe = ChatRecipe(
        config=config.chat,
        template=source,
        name=name,
        variables=special,
        control_tokens=control_tokens(parsed, source),
        pairs=config.kind == "pairs",
    )
    return ChatTokenizer(
        content=content,
        eod=eod.eod or "",
        recipe=recipe,
        end_of_turn=_end_of_turn(recipe, {one["content"] for one in tokens if one["special"]}),
        special_tokens=special,
        added=tuple(added),
    )


def control_tokens(parsed: Mapping[str, Any], template: str) -> tuple[str, ...]:
    """Return the tokens of a tokenizer.json that no message may spell as such.

    Beside special tokens they are those that the template writes: a turn with one would end it.
    """
    tokens = parsed.get("added_tokens") or []
    control = [one["content"] for one in tokens if one["special"] or one["content"] in template]
    return tuple(token for token in control if token.strip())


def with_tokenizer(config: PreprocessConfig, chat: ChatTokenizer, folder: Path) -> PreprocessConfig:
    """Return the configuration with the tokenizer that `chat` wrote to `folder`."""
    return replace(config, tokenizer=replace(config.tokenizer, path=str(folder), eod=chat.eod))


def _choose_template(config: ChatConfig, file: TokenizerFile) -> tuple[str, str, Sequence[str]]:
    """Return the template, what to call it, and the control tokens that it needs."""
    added = config.added_tokens
    if config.template == "plain":
        return built_in("plain"), "the built-in template plain", added
    if config.template and config.template != "chatml":
        path = Path(config.template).expanduser()
        try:
            return path.read_text(encoding="utf-8"), f"the chat template {path}", added
        except (OSError, UnicodeDecodeError) as error:
            raise ChatTemplateError(
                f"chat.template is {config.template!r}, which cannot be read ({error}): name a "
                "file with a Jinja template, chatml, or plain"
            ) from error
    own = "" if config.template else _own_template(file)
    if own:
        return own, f"the chat template of {file.path}", added
    return built_in("chatml"), "the built-in template chatml", [*CHATML_TOKENS, *added]


def _own_template(file: TokenizerFile) -> str:
    """Return the chat template that comes with a tokenizer, "" where there is none."""
    beside = Path(file.path).with_name("chat_template.jinja")
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    found = file.settings.get("chat_template")
    if isinstance(found, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in found if isinstance(one, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else ""


def special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return bos_token, eos_token, ... of a tokenizer_config.json: name -> token."""
    names = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
    found = {}
    for name in (*names, "mask_token"):
        token = settings.get(name)
        if isinstance(token, dict):  # an added token written out with its flags
            token = token.get("content")
        if isinstance(token, str):
            found[name] = token
    return found


def _add_tokens(parsed: dict[str, Any], needed: Sequence[str]) -> list[str]:
    """Add control tokens to a tokenizer.json in place; return those that were missing."""
    tokens: list[dict[str, Any]] = parsed.get("added_tokens") or []
    parsed["added_tokens"] = tokens
    vocabulary = parsed["model"].get("vocab") or {}
    plain = vocabulary if isinstance(vocabulary, dict) else {}
    missing = [
        token
        for token in dict.fromkeys(needed)
        if token not in {one["content"] for one in tokens if one["special"]}
    ]
    known = {one["content"]: one["id"] for one in tokens} | plain
    reserved = [one for one in tokens if one["special"] and _RESERVED.fullmatch(one["content"])]
    next_id = max([*known.values(), len(vocabulary) - 1]) + 1
    for token in missing:
        if token in known:  # it is there, but not special
            tokens[:] = [one for one in tokens if one["content"] != token]
            tokens.append(_added_token(token, known[token]))
        elif reserved:
            place = reserved.pop(0)
            if place["content"] in plain:  # rebuilt, so that the order of the file stays
                pairs = [(token if n == place["content"] else n, i) for n, i in plain.items()]
                plain.clear()
                plain.update(pairs)
            place["content"] = token
        else:
            tokens.append(_added_token(token, next_id))
            next_id += 1
    return missing


def _added_token(content: str, number: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def _end_of_turn(recipe: ChatRecipe, special: set[str]) -> str:
    """Return the control token that ends what the assistant says, by trying the template."""
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]
    template: ChatTemplate = recipe.open()
    rendered = template.render_with_targets(turns)
    if not rendered.targets:
        raise ChatTemplateError(
            f"{recipe.name} marks nothing of a turn of user and assistant as generated: there "
            "would be nothing to learn. Put {% generation %} ... {% endgeneration %} around what "
            "the assistant says"
        )
    start, end = rendered.targets[-1]
    said = rendered.text[start:end].rstrip()
    return next(
        (token for token in sorted(special, key=len, reverse=True) if said.endswith(token)), ""
    )
