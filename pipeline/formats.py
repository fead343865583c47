"""What a file's name says about it: a path in, its format and compression out."""

from __future__ import annotations

from typing import Literal

Format = Literal["jsonl", "parquet", "arrow", "text", "hub"]

WHOLE_ROW = "*"
"""As the key of the text: a document is the whole row, as JSON."""

FORMAT_NAMES = ("jsonl", "parquet", "arrow", "text")

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".md": "text",
}

_COMPRESSED: dict[str, Literal["gzip", "zstd"]] = {".gz": "gzip", ".zst": "zstd"}


def format_of(path: str) -> Format | None:
    """Return the format that a file's name tells, None if it tells none."""
    stem, compression = _split(path)
    for suffix, name in _SUFFIXES.items():
        if stem.lower().endswith(suffix):
            return name if not compression or name in ("jsonl", "text") else None
    return None


def compression_of(path: str) -> Literal["", "gzip", "zstd"]:
    """Return how the file's name says that it is compressed."""
    return _split(path)[1]


def is_surely_documents(path: str) -> bool:
    """Say whether the name is that of a data file: texts and plain .json may be anything."""
    stem, compression = _split(path)
    if stem.lower().endswith(".json"):
        return bool(compression)  # c4-train.00000.json.gz
    return format_of(path) in ("jsonl", "parquet", "arrow")


def supported() -> str:
    """Return the known file names, for messages."""
    return ".jsonl .ndjson .json .txt .md (also with .gz or .zst), .parquet, .arrow, .feather"


def _split(path: str) -> tuple[str, Literal["", "gzip", "zstd"]]:
    for suffix, name in _COMPRESSED.items():
        if path.lower().endswith(suffix):
            return path[: -len(suffix)], name
    return path, ""
