"""Lines of JSON that are not plain: one line in, its document or the reason why there is none out.

The strict reader, and the judge: what it refuses is rejected, in its words. The kernel that reads
plain lines finds in them what this one would.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from .batches import EXCERPT_BYTES, BatchBuilder, Piece, Rejected, as_string
from .formats import WHOLE_ROW


class OddLineReader:
    """Reads lines, one after the other, into a builder."""

    def __init__(self, piece: Piece) -> None:
        source = piece.file.source
        keys = (source.text_key, source.id_key, *source.language_keys, *source.columns)
        self._field_of = {key: f"field_{n}" for n, key in enumerate(dict.fromkeys(keys))}
        line = msgspec.defstruct(
            "Line",
            [(name, Any, msgspec.UNSET) for name in self._field_of.values()],
            rename={name: key for key, name in self._field_of.items()},
            gc=False,
        )
        self._decode = msgspec.json.Decoder(line).decode
        self._source = source
        self._text = self._field_of[source.text_key]
        self._is_whole = source.text_key == WHOLE_ROW
        self._id = self._field_of[source.id_key]
        self._languages = [self._field_of[key] for key in source.language_keys]
        self._columns = [self._field_of[key] for key in source.columns]
        self._needs_language = not piece.file.language

    def read(self, builder: BatchBuilder, offset: int, line: bytes) -> None:
        """Add the document in `line`, or the reason why there is none."""
        if not line or line.isspace():
            builder.blank_lines += 1
            return
        builder.documents_in += 1
        language: str | None = None
        try:
            line.decode()
            row = self._decode(line)
            text = line if self._is_whole else getattr(row, self._text)
            if self._needs_language:
                language = self._language(row)
            input_id = as_string(getattr(row, self._id))
            if not isinstance(text, str | bytes):
                builder.reject(
                    Rejected(
                        origin_offset=offset,
                        reason="missing_text",
                        detail=self._missing(text),
                        input_id=input_id,
                        language=language,
                        excerpt=_beginning(line),
                    )
                )
                return
            values = [as_string(getattr(row, name)) for name in self._columns]
            data = text.encode() if isinstance(text, str) else text
            builder.add(offset, data, input_id, language, values)
        except (ValueError, RecursionError) as error:  # msgspec's and Unicode's errors are these
            reason, detail = _why(line, error)
            builder.reject(
                Rejected(
                    origin_offset=offset,
                    reason=reason,
                    detail=detail,
                    language=language,
                    excerpt=_beginning(line),
                )
            )

    def _language(self, row: Any) -> str | None:
        for name in self._languages:
            value = getattr(row, name)
            if isinstance(value, str) and value:
                value.encode()
                return value
        return None

    def _missing(self, text: Any) -> str:
        if text is msgspec.UNSET:
            return f"no key {self._source.text_key!r}"
        kind = "null" if text is None else type(text).__name__
        return f"{self._source.text_key!r} is {kind}, not a string"


def _beginning(line: bytes) -> str:
    """Return what the reject file shows of a line that holds no text."""
    return line[:EXCERPT_BYTES].decode("utf-8", "replace")


def _why(line: bytes, error: Exception) -> tuple[str, str]:
    """Return (reason, detail) for a line that could not be decoded."""
    if isinstance(error, UnicodeDecodeError):
        return "rejected_utf8", f"byte {error.start} of the line: {error.reason}"
    if isinstance(error, UnicodeEncodeError) or _holds_lone_surrogate(line):
        return "rejected_utf8", "a \\u escape is half of a surrogate pair"
    return "rejected_json", str(error)[:200]


def _holds_lone_surrogate(line: bytes) -> bool:
    """Say whether the line is JSON but for escaped lone surrogates, which msgspec refuses."""
    if b"\\u" not in line:
        return False
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False
