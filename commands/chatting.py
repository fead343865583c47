"""Lines that somebody types in, the model's answers out, as they come: `gristmill chat`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TextIO

from ..trainer.sampler import Sampler
from ..trainer.sampling import TrainedModel, continue_rows, load_model
from .prompting import open_prompt

_HELP = "/reset forgets what was said, /system TEXT sets what stands before it, /exit ends.\n"
_SHARE_OF_ANSWER = 4
"""A fourth of the context at least is left to an answer."""


class Conversation:
    """A talk with one model: what was said, and answers to what is said next.

    Args:
        trained: a model with a chat template.
        sampler: how tokens are chosen.
        max_tokens: tokens of an answer at most.
        seed: of the choice; answer number i is drawn with seed + i.
        system: what stands before the talk; empty: nothing.
    """

    def __init__(
        self,
        trained: TrainedModel,
        sampler: Sampler,
        *,
        max_tokens: int = 512,
        seed: int = 0,
        system: str = "",
    ) -> None:
        assert trained.tokenizer_folder is not None
        self._trained, self._sampler = trained, sampler
        self._prompter = open_prompt(trained.tokenizer_folder)
        self._max_tokens, self._seed = max_tokens, seed
        self.turns: list[dict[str, str]] = []
        """What was said: roles user and assistant in turn."""
        self.forgotten = 0
        """Oldest turns that the last answer did not see, because the context was full."""
        self.system = system

    def reset(self) -> None:
        """Forget what was said."""
        self.turns.clear()

    def answer(self, said: str, tell: Callable[[str], None] = lambda text: None) -> str:
        """Return the model's answer, and keep both turns.

        Args:
            said: what the user says.
            tell: called with each piece of the answer as it comes. If it raises KeyboardInterrupt,
                or the user does, what has come until then is the answer.

        Raises:
            ValueError: what was said alone is longer than the context.
        """
        self.turns.append({"role": "user", "content": said})
        try:
            ids, room = self._prompt()
        except ValueError:
            self.turns.pop()
            raise
        pieces = _Pieces(self._trained, tell)
        seed = self._seed + len(self.turns) // 2
        with suppress(KeyboardInterrupt):
            continue_rows(
                self._trained.model,
                [ids],
                room,
                self._sampler,
                self._trained.stop_ids,
                [seed],
                on_token=lambda row, token: pieces.add(token),
            )
        pieces.end()
        self.turns.append({"role": "assistant", "content": pieces.text})
        return pieces.text

    def _prompt(self) -> tuple[list[int], int]:
        """Return the ids of as many of the last turns as fit, and the tokens left for an answer."""
        context = self._trained.context
        head = [{"role": "system", "content": self.system}] if self.system else []
        for first in range(0, len(self.turns), 2):
            ids = self._prompter.ids([*head, *self.turns[first:]])
            if not context:
                return ids, self._max_tokens
            if len(ids) + min(self._max_tokens, context // _SHARE_OF_ANSWER) <= context:
                self.forgotten = first
                return ids, min(self._max_tokens, context - len(ids))
        raise ValueError(
            f"that is too long: {len(ids)} tokens, and the model was trained with {context}, of "
            f"which a fourth is left to the answer. Say it in fewer words"
        )


class _Pieces:
    """Ids in, pieces of text out: a character whose bytes are not all there yet waits."""

    def __init__(self, trained: TrainedModel, tell: Callable[[str], None]) -> None:
        self._tokenizer, self._tell = trained.tokenizer, tell
        self._ids: list[int] = []
        self.text = ""

    def add(self, token: int) -> None:
        self._ids.append(token)
        whole: str = self._tokenizer.decode(self._ids)
        if not whole.endswith("\ufffd"):
            self._say(whole)

    def end(self) -> None:
        self._say(self._tokenizer.decode(self._ids))

    def _say(self, whole: str) -> None:
        new, self.text = whole[len(self.text) :], whole
        if new:
            self._tell(new)


def talk(checkpoint: str, *, system: str, max_tokens: int, seed: int, **sampling: Any) -> None:
    """Talk until the input ends.

    Raises:
        CheckpointError: there is no model.
        ValueError: it has no chat template, or a setting is out of range.
    """
    sampler = Sampler(**sampling)
    conversation = Conversation(
        load_model(checkpoint), sampler, max_tokens=max_tokens, seed=seed, system=system
    )
    out = sys.stdout
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  (arrow keys and history of lines)
        out.write(_HELP)
    for line in _lines(out):
        word, _, rest = line.strip().partition(" ")
        if word == "/exit":
            break
        if word == "/reset":
            conversation.reset()
        elif word == "/system":
            conversation.system = rest
        elif word.startswith("/"):
            out.write(f"there is no {word}. {_HELP}")
        elif line.strip():
            _answer(conversation, line.strip(), out)


def _answer(conversation: Conversation, said: str, out: TextIO) -> None:
    def tell(text: str) -> None:
        out.write(text)
        out.flush()

    try:
        conversation.answer(said, tell)
        out.write("\n")
    except ValueError as error:
        out.write(f"{error}\n")
    if conversation.forgotten:
        sys.stderr.write(
            f"gristmill: the talk is longer than the model's context: it did not see the first "
            f"{conversation.forgotten} turns (/reset begins anew)\n"
        )
        out.flush()


def _lines(out: TextIO) -> Iterator[str]:
    """Yield what is typed, with a prompt where somebody sees it."""
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            if sys.stdin.isatty():
                out.write("\n")
            return
