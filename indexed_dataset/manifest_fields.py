"""The fields of PREFIX.json, one by one: what JSON says in, the same or an error with its name out.

A manifest may come from anywhere. What passes here can be counted with in 64 bits, printed, used as
a name, and written again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

from .errors import ManifestError
from .format import DTYPE_OF_CODE

CHECKSUM_ALGORITHM = "blake2b-128"

_COUNT_KEYS = ("documents", "tokens", "text_bytes")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_DTYPE_NAMES = frozenset(dtype.name for dtype in DTYPE_OF_CODE.values())
_MAX_COUNT = 2**63 - 1
_MAX_DEPTH = 64  # of `config`: far from the depth at which Python gives up


def checked_fields(known: Set[str], raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the fields of an object of a manifest if they are all there and right.

    Args:
        known: names of the fields.
        raw: the object as JSON has it.
        path: the manifest, for messages.

    Raises:
        ManifestError: a field is missing, unknown or not what it must be.
    """
    for name in sorted(known ^ set(raw)):
        state = "is missing" if name in known else "is not known"
        raise ManifestError(
            f'{path}: the field "{_cut(name)}" {state}. The manifest is damaged or from another '
            "version of gristmill: copy or write the dataset again"
        )
    for name, value in raw.items():
        test, wording = _RULES[name]
        if not (test(value) or (value is None and name in _OPTIONAL)):
            raise ManifestError(
                f'{path}: the field "{name}" is {shown(value)}, not {wording}. '
                "The manifest is damaged: copy or write the dataset again"
            )
    return dict(raw)


def shown(value: Any) -> str:
    """Return a value as a message may show it: short, whatever it is."""
    if isinstance(value, (list, dict)):
        return f"a list of {len(value)}" if isinstance(value, list) else "an object"
    return repr(_cut(value)) if isinstance(value, str) else _cut(str(value))


def _cut(text: str) -> str:
    return text[:80].encode("ascii", "backslashreplace").decode()


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_COUNT


def _is_text(value: Any) -> bool:
    """Whether it is a text that can be printed and stand in a path."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True


def _is_text_list(value: Any) -> bool:
    all_texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return all_texts and _is_text("\n".join(value))


def _is_text_map(value: Any) -> bool:
    return isinstance(value, dict) and _is_text_list([*value, *value.values()])


def _is_count_table(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_text_list(list(value))
        and all(
            isinstance(row, dict)
            and set(row) == set(_COUNT_KEYS)
            and all(map(_is_count, row.values()))
            for row in value.values()
        )
    )


def _is_flat_object(value: Any) -> bool:
    """Whether it is an object that is not nested so deeply that walking through it would fail."""
    layer = [value] if isinstance(value, dict) else []
    for _ in range(_MAX_DEPTH):
        if not layer:
            return isinstance(value, dict)
        values = (v for item in layer for v in (item.values() if isinstance(item, dict) else item))
        layer = [v for v in values if isinstance(v, (dict, list))]
    return False


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


Rule = tuple[Callable[[Any], bool], str]

_COUNT: Rule = (_is_count, "a whole number from 0 on, below 2**63")
_SIZE: Rule = (
    lambda value: _is_count(value) and value > 0,
    "a whole number from 1 on, below 2**63",
)
_TEXT: Rule = (_is_text, "a text")
_OBJECT: Rule = (lambda value: isinstance(value, dict), "an object")
_FLAT: Rule = (_is_flat_object, f"an object nested at most {_MAX_DEPTH} deep")
_TABLE: Rule = (_is_count_table, "a table of documents, tokens and text_bytes")
_DTYPE: Rule = (
    lambda value: isinstance(value, str) and value in _DTYPE_NAMES,
    f"one of {', '.join(sorted(_DTYPE_NAMES))}",
)
_DIGEST_HEX: Rule = (_is_digest, "32 hex digits")
_DIGESTS: Rule = (
    lambda value: isinstance(value, list) and all(map(_is_digest, value)),
    "a list of 32 hex digits each",
)


def _one_of(*texts: str) -> Rule:
    wording = " or ".join(f'"{text}"' for text in texts)
    return (lambda value: isinstance(value, str) and value in texts, wording)


_OPTIONAL = frozenset(
    {"text_bytes", "vocab_size", "eod_id", "max_token_id", "tokenizer", "split", "group"}
    | {"checksums", "origin"}
)
_RULES: Mapping[str, Rule] = {
    "schema_version": _COUNT,
    "format": _TEXT,
    "dtype": _DTYPE,
    "num_documents": _COUNT,
    "num_sequences": _COUNT,
    "num_tokens": _COUNT,
    "text_bytes": _COUNT,
    "vocab_size": _SIZE,
    "eod_id": _COUNT,
    "max_token_id": _COUNT,
    "tokenizer": (_is_text_map, "an object of texts"),
    "document_order": _one_of("shuffled", "input"),
    "split": _TEXT,
    "group": _TEXT,
    "shard": _COUNT,
    "num_shards": _SIZE,
    "languages": _TABLE,
    "sources": _TABLE,
    "origin_files": (_is_text_list, "a list of texts"),
    "side_streams": _OBJECT,
    "checksums": _OBJECT,
    "config": _FLAT,
    "stages": _FLAT,
    "gristmill": _TEXT,
    "algorithm": _one_of(CHECKSUM_ALGORITHM),
    "block_bytes": _SIZE,
    "bin": _DIGESTS,
    "idx": _DIGEST_HEX,
    "origin": _DIGEST_HEX,
    "suffix": _TEXT,
    "aligned_with": _one_of("tokens"),
    "blocks": _DIGESTS,
}
"""For each field of a manifest and of its parts: the test it must pass, and that in words."""
