"""The form of a text: raw UTF-8 in, the same text normalized out.

`clean_text` is the definition. `Normalizer` does a whole batch and gives the same: most texts need
nothing done, and whole buffers show that faster than single strings, so only the others become
Python strings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .config import CleanConfig

# Cc except tab and LF; byte order marks; the 66 noncharacters (Unicode 3.4, D14). Joiners and
# direction marks (ZWNJ, ZWJ, LRM, ...) stay: Persian and Indic spelling needs them. One class of
# all of them is slow to search, as Python's has no table for code points above U+FFFF: so these
# are first taken as one range.
_REMOVED_BMP = "\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufeff\ufffe\uffff"
_REMOVED_ABOVE = "".join(
    chr(plane * 0x10000 + last) for plane in range(1, 17) for last in (0xFFFE, 0xFFFF)
)
_REMOVED = re.compile(f"[{_REMOVED_BMP}\U00010000-\U0010ffff](?<=[{_REMOVED_BMP}{_REMOVED_ABOVE}])")

# White space that ends no line (str.isspace without the line separators and control characters).
_LINE_SPACES = "\t \xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
_LINE_SPACES += "\u202f\u205f\u3000"


def clean_text(text: str, config: CleanConfig) -> str:
    """Return `text` in the form that `config` asks for. Doing it twice changes nothing more.

    Example: "e\\u0301te \\r\\n\\x00" -> "\\u00e9te" with the defaults.
    """
    text = _clean_inside(text, config)
    return text.strip() if config.strip else text


def _clean_inside(text: str, config: CleanConfig) -> str:
    """Do all but stripping both ends: this can be done to lines apart from each other."""
    if config.mojibake:
        text = _repair(text)
    if config.newlines:
        text = text.replace("\r\n", "\n")
        for separator in "\r\x85\u2028\u2029":
            text = text.replace(separator, "\n")
    if config.control_characters == "remove" and _REMOVED.search(text):
        text = _REMOVED.sub("", text)
    if config.strip:
        # rstrip line by line: a pattern for spaces before LF is quadratic in a run of spaces
        text = "\n".join([line.rstrip(_LINE_SPACES) for line in text.split("\n")])
    if config.unicode_form == "NFC":
        # Last: what was removed may have stood between a letter and its mark.
        text = unicodedata.normalize("NFC", text)
    return text


def _repair(text: str) -> str:
    """Undo wrong code pages with ftfy; nothing else that it can do is asked for."""
    if text.isascii():
        return text
    try:
        import ftfy
    except ImportError as error:
        raise ValueError(
            "clean.mojibake needs the package ftfy: pip install ftfy, or set it to false"
        ) from error
    return ftfy.fix_encoding(text)


# The same on UTF-8, for finding texts that may need cleaning. Every pattern begins with a literal,
# which the regular expression engine finds at memory speed.
_CONTROL_BYTES = bytes([*range(9), *range(11, 32), 127])
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
_SUSPICIOUS = [
    re.compile(rb"\xc2[\x80-\x9f]"),  # C1 controls, NEL
    re.compile(rb"\xe2\x80[\xa8\xa9]"),  # LS, PS
    re.compile(rb"\xef(?:\xbb\xbf|\xb7[\x90-\xaf]|\xbf[\xbe\xbf])"),  # BOM, noncharacters
    re.compile(rb"\xbf[\xbe\xbf](?<=[\xf0-\xf4][\x80-\xbf]\xbf[\xbe\xbf])"),  # of higher planes
    re.compile(  # white space before LF
        rb"\n(?<=[\t \xa0\x80-\x8a\xaf\x9f]\n)(?:(?<=[\t ]\n)|(?<=\xc2\xa0\n)|(?<=\xe1\x9a\x80\n)"
        rb"|(?<=\xe2\x80[\x80-\x8a\xaf]\n)|(?<=\xe2\x81\x9f\n)|(?<=\xe3\x80\x80\n))"
    ),
]

_SPACE_1 = np.zeros(256, np.bool_)
_SPACE_1[[*range(9, 14), *range(28, 33)]] = True
_SPACES = [chr(code) for code in range(0x80, 0x3001) if chr(code).isspace()]
_SPACE_2 = np.array([int.from_bytes(s.encode()) for s in _SPACES if len(s.encode()) == 2])
_SPACE_3 = np.array([int.from_bytes(s.encode()) for s in _SPACES if len(s.encode()) == 3])

_FIRST_MARK_LEAD = 0xCC
"""Lead byte of U+0300: text whose characters are all below it is NFC as it stands."""


SEGMENT_BYTES = 1 << 20
"""Long texts are cleaned in segments of whole lines, which bounds memory and gives the same."""


class Normalizer:
    """Cleans batches of texts."""

    def __init__(self, config: CleanConfig, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._config = config
        self._segment_bytes = segment_bytes

    def __call__(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> dict[int, bytes]:
        """Return the texts that change: index -> new text.

        Args:
            data: uint8[num_bytes], valid UTF-8.
            offsets: int64[num_texts + 1], where each text begins in `data`; the last is num_bytes.
        """
        changed = {}
        buffer = data.tobytes()
        suspicious = _suspects(buffer, data, offsets)
        if self._config.mojibake:
            suspicious |= _has_wide_bytes(data, offsets)
        marks = np.zeros(len(offsets) - 1, np.bool_)
        filled = np.flatnonzero(offsets[1:] > offsets[:-1])
        if self._config.unicode_form == "NFC" and len(filled):
            highest = np.maximum.reduceat(data, offsets[filled])
            marks[filled] = highest >= _FIRST_MARK_LEAD
        for index in np.flatnonzero(suspicious | marks).tolist():
            start, end = int(offsets[index]), int(offsets[index + 1])
            if not suspicious[index] and all(
                unicodedata.is_normalized("NFC", segment)
                for segment in self._segments(buffer, start, end)
            ):
                continue
            clean = self._clean(buffer, start, end)
            if clean != buffer[start:end]:
                changed[index] = clean
        return changed

    def _clean(self, buffer: bytes, start: int, end: int) -> bytes:
        """Return `clean_text` of buffer[start:end], made segment by segment."""
        pieces = [
            _clean_inside(segment, self._config).encode()
            for segment in self._segments(buffer, start, end)
        ]
        if not self._config.strip:
            return b"".join(pieces)
        # Only the ends are stripped as strings: a piece of white space alone is no end.
        while pieces and not (first := pieces[0].decode().lstrip()):
            pieces.pop(0)
        while pieces and not (last := pieces[-1].decode().rstrip()):
            pieces.pop()
        if not pieces:
            return b""
        if len(pieces) == 1:
            return first.rstrip().encode()
        return b"".join([first.encode(), *pieces[1:-1], last.encode()])

    def _segments(self, buffer: bytes, start: int, end: int) -> Iterator[str]:
        """Yield buffer[start:end] in parts that end after LF (but the last)."""
        while start < end:
            cut = buffer.find(b"\n", min(start + self._segment_bytes, end), end) + 1 or end
            yield buffer[start:cut].decode()
            start = cut


def _has_wide_bytes(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which texts are more than ASCII: bool[num_texts]."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    found[np.unique(np.searchsorted(offsets, np.flatnonzero(data >= 0x80), side="right") - 1)] = (
        True
    )
    return found


def _suspects(
    buffer: bytes, data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which texts may need more than NFC: bool[num_texts], never too few."""
    suspicious = np.zeros(len(offsets) - 1, np.bool_)
    patterns = list(_SUSPICIOUS)
    if len(buffer.translate(None, _CONTROL_BYTES)) != len(buffer):
        patterns.append(_CONTROL)
    for pattern in patterns:
        match = pattern.search(buffer)
        while match:  # one match a text is enough
            index = int(np.searchsorted(offsets, match.start(), side="right")) - 1
            suspicious[index] = True
            match = pattern.search(buffer, int(offsets[index + 1]))

    lengths = offsets[1:] - offsets[:-1]
    suspicious |= (lengths > 0) & (lengths < 3)  # too short for the looks below
    long = np.flatnonzero(lengths >= 3)
    for at in (offsets[long], offsets[long + 1] - 3):
        first, second, third = (data[at + n].astype(np.int64) for n in range(3))
        three = first << 16 | second << 8 | third
        suspicious[long] |= np.isin(three, _SPACE_3)
    starts, ends = offsets[long], offsets[long + 1]
    suspicious[long] |= _SPACE_1[data[starts]] | _SPACE_1[data[ends - 1]]
    for at in (starts, ends - 2):
        two = data[at].astype(np.int64) << 8 | data[at + 1]
        suspicious[long] |= np.isin(two, _SPACE_2)
    return suspicious
