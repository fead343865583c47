"""What the door needs to know of a tokenizer.json, without loading it: a file in, `Facts` out.

Parsing the largest files takes seconds, so the facts and the compiled engine are kept in the cache
folder (engine/cache.py); `tokenizers` itself is loaded only when it is asked to do something.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import cuts
from .tokenizer_files import WELL_KNOWN_EOD, TokenizerError, TokenizerFile, content_fingerprint

if TYPE_CHECKING:
    from .engine.frame import Engine


@dataclass(slots=True)
class Facts:
    """A tokenizer.json, read once."""

    fingerprint: str
    """32 hex digits: the hash of the normalized JSON."""
    vocab_size: int
    """One more than the largest id (ids need not be dense)."""
    ids: dict[str, int]
    """Ids of the added tokens, and of the well-known names that end documents."""
    special: list[str]
    """Names of the special tokens."""
    resets: list[str]
    """What the file asks for that would make ids depend on more than the text."""
    rule: str | None
    """Where a text may be cut (cuts.py)."""
    engine: Engine | None
    unsupported: str
    """Why there is no engine."""


def load_library(
    file: TokenizerFile, special_as_text: bool, *, without_post_processor: bool = False
) -> Any:
    """Return the tokenizers.Tokenizer of a file, with nothing in it that cuts, pads or is random.

    Args:
        file: the tokenizer.
        special_as_text: special tokens that a text spells out are text.
        without_post_processor: leave out what adds tokens around a text, and changes offsets.

    Raises:
        TokenizerError: `tokenizers` does not read it.
    """
    import tokenizers

    try:
        content = file.content.decode()
        if without_post_processor:
            content = json.dumps(file.parse() | {"post_processor": None})
        library = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # tokenizers raises bare Exception
        raise TokenizerError(
            f"{file.path} is not a tokenizer.json that tokenizers "
            f"{tokenizers.__version__} reads: {error}"
        ) from error
    library.no_truncation()
    library.no_padding()
    if getattr(library.model, "dropout", None):
        library.model.dropout = None
    library.encode_special_tokens = special_as_text
    return library


def read_facts(file: TokenizerFile, special_as_text: bool) -> Facts:
    """Return the facts of a tokenizer file, from the cache folder if they are there.

    Raises:
        TokenizerError: it is none that `tokenizers` reads.
    """
    from .engine import cache

    path = cache.cache_path(file.content, "as_text" if special_as_text else "as_tokens")
    facts = cache.load(path)
    if not isinstance(facts, Facts):
        with cache.compiling(_guess_kind(file.content)):
            facts = _gather(file, special_as_text)
            cache.save(path, facts)
            if facts.engine is not None:
                facts.engine.prepare()
    if facts.engine is not None:
        facts.engine.place_tables()
    return facts


def _guess_kind(content: bytes) -> str:
    """Return what `warm_kernels` calls the kind of a tokenizer.json, without parsing it.

    A wrong guess costs time on the first run and nothing else.
    """
    named = re.search(rb'"type"\s*:\s*"(WordPiece|Unigram)"', content)
    if named:
        return named[1].decode().lower()
    bytes_too = re.search(rb'"byte_fallback"\s*:\s*true', content)
    return "sentencepiece" if bytes_too else "byte_level"


def _gather(file: TokenizerFile, special_as_text: bool) -> Facts:
    from .engine.compile import compile_engine
    from .engine.unsupported import UnsupportedError

    parsed = file.parse()
    library = load_library(file, special_as_text)
    vocabulary = library.get_vocab(with_added_tokens=True)
    added = [token["content"] for token in parsed.get("added_tokens") or []]
    resets = [key for key in ("truncation", "padding") if parsed.get(key) is not None]
    if parsed["model"].get("dropout"):
        resets.append("BPE dropout")
    engine, unsupported = None, ""
    try:
        engine = compile_engine(library, special_as_text=special_as_text)
    except UnsupportedError as error:
        unsupported = str(error)
    return Facts(
        fingerprint=content_fingerprint(parsed),
        vocab_size=max(vocabulary.values(), default=-1) + 1,
        ids={name: vocabulary[name] for name in (*added, *WELL_KNOWN_EOD) if name in vocabulary},
        special=[t["content"] for t in parsed.get("added_tokens") or [] if t["special"]],
        resets=resets,
        rule=cuts.find_rule(parsed),
        engine=engine,
        unsupported=unsupported,
    )
