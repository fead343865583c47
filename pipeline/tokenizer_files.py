"""Where a tokenizer comes from: a path, a folder or a hub id in; its JSON and its EOD token out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WELL_KNOWN_EOD = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "<|end▁of▁sentence|>",
    "<|endofdocument|>",
    "<|eos|>",
    "</s>",
    "<eos>",
    "<EOS>",
    "[EOS]",
)
"""Names of end-of-text tokens, tried in this order when no configuration names one."""

WELL_KNOWN_BOS = (
    "<|begin_of_text|>",
    "<|startoftext|>",
    "<｜begin▁of▁sentence｜>",
    "<|bos|>",
    "<s>",
    "<bos>",
    "<BOS>",
    "[BOS]",
)
"""The same for the token that begins a text. GPT-2 and Qwen have none; some begin with EOD."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class TokenizerError(ValueError):
    """A tokenizer that cannot be found, read or used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerFile:
    """A tokenizer.json in memory, and what stood beside it."""

    path: str
    """Where it was found, for messages."""
    content: bytes
    """The JSON, decompressed, as it stood in the file."""
    settings: Mapping[str, Any]
    """tokenizer_config.json beside it; empty if there is none."""

    def parse(self) -> dict[str, Any]:
        """Return the JSON.

        Raises:
            TokenizerError: not the JSON of a tokenizer.
        """
        try:
            parsed = json.loads(self.content)
        except ValueError as error:
            raise TokenizerError(
                f"{self.path} is not readable as JSON ({error}): give a tokenizer.json as "
                "`tokenizers` writes it"
            ) from error
        if not isinstance(parsed, dict) or not isinstance(parsed.get("model"), dict):
            raise TokenizerError(
                f'{self.path} has no "model": it is not a tokenizer.json as `tokenizers` writes it'
            )
        return parsed


def read_tokenizer_file(path: str) -> TokenizerFile:
    """Read the tokenizer that `path` names.

    Args:
        path: a tokenizer.json (also .zst), a folder that holds one, or a hub id (`owner/name`).

    Raises:
        TokenizerError: there is none, it is damaged, or the hub cannot be reached.
    """
    local = Path(path).expanduser()
    if local.is_dir():
        for name in ("tokenizer.json", "tokenizer.json.zst"):
            if (local / name).is_file():
                return _read_local(local / name)
        raise TokenizerError(
            f"the folder {path} holds no tokenizer.json. Models with only a tokenizer.model or a "
            "vocab file must be converted first: load them with `transformers` and save the fast "
            "tokenizer"
        )
    if local.is_file():
        return _read_local(local)
    if _HUB_ID.fullmatch(path) and not path.endswith((".json", ".zst")):
        return _read_hub(path)
    raise TokenizerError(
        f"there is no tokenizer at {path}: give a tokenizer.json, a folder that holds one, or a "
        "hub id (owner/name)"
    )


def content_fingerprint(parsed: Mapping[str, Any]) -> str:
    """Return 32 hex digits that name what a tokenizer does: the hash of its normalized JSON.

    Spaces, key order, and the truncation and padding that are reset do not count.
    """
    normal = {key: parsed[key] for key in parsed if key not in ("truncation", "padding")}
    text = json.dumps(normal, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def eod_candidates(file: TokenizerFile) -> list[str]:
    """Return names of the end-of-document token, best first; they need not be in the vocabulary."""
    return _configured(file, "eos_token") or list(WELL_KNOWN_EOD)


def bos_candidates(file: TokenizerFile) -> list[str]:
    """Return names of the beginning-of-text token, best first, as `eod_candidates` does."""
    return _configured(file, "bos_token") or list(WELL_KNOWN_BOS)


def _configured(file: TokenizerFile, key: str) -> list[str]:
    name = file.settings.get(key)
    if isinstance(name, dict):  # an added token written out with its flags
        name = name.get("content")
    return [name] if isinstance(name, str) and name else []


def _read_local(path: Path) -> TokenizerFile:
    raw = path.read_bytes()
    if path.suffix == ".zst":
        import zstandard

        try:
            with zstandard.ZstdDecompressor().stream_reader(raw) as stream:
                raw = stream.read()
        except zstandard.ZstdError as error:
            raise TokenizerError(f"{path} is not readable as zstandard: {error}") from error
    return TokenizerFile(
        path=str(path), content=raw, settings=_read_settings(path.with_name(_SETTINGS_NAME))
    )


_SETTINGS_NAME = "tokenizer_config.json"


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_bytes())
    except ValueError as error:
        raise TokenizerError(f"{path} is not readable as JSON: {error}") from error
    return settings if isinstance(settings, dict) else {}


def _read_hub(name: str) -> TokenizerFile:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        path = Path(hf_hub_download(name, "tokenizer.json"))
    except Exception as error:  # the hub's client raises a dozen kinds, by version
        raise TokenizerError(
            f"there is no file or folder {name}, and as a hub id it could not be fetched "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). "
            "Without a network, give the path of a tokenizer.json"
        ) from error
    try:
        settings = _read_settings(Path(hf_hub_download(name, _SETTINGS_NAME)))
    except EntryNotFoundError:
        settings = {}
    return TokenizerFile(path=name, content=path.read_bytes(), settings=settings)
