"""Texts flow in, the same without the lines that C4 drops flow out. This changes texts.

C4 keeps a line with three words or more, none above 1,000 characters, that ends in a final mark and
names neither JavaScript nor a policy; citations of Wikipedia are cut out of the lines that stay
(Raffel et al., 2020). Meant for English; other languages end sentences with other marks.
"""

from __future__ import annotations

import re

from ..kernels.statistics_columns import C4_MAX_WORD_CHARACTERS, C4_MIN_LINE_WORDS

_CITATION = re.compile(r"\[[0-9]*\]|\[edit\]|\[citation needed\]")
_UNWANTED = re.compile(
    "javascript|privacy policy|terms of use|cookie policy|uses cookies|use of cookies|use cookies"
)
_ENDINGS = (".", "?", "!", '"', "'")


def keep_c4_lines(text: str, any_ending: bool = False) -> str:
    """Return the lines of `text` that C4 keeps; `any_ending` lets all endings pass."""
    return "\n".join(
        _CITATION.sub("", line)
        for line in map(str.strip, text.split("\n"))
        if _is_kept(line, any_ending)
    ).strip()


def _is_kept(line: str, any_ending: bool) -> bool:
    words = line.split()
    if len(words) < C4_MIN_LINE_WORDS or max(map(len, words)) > C4_MAX_WORD_CHARACTERS:
        return False
    end = _CITATION.sub("", line)
    if not any_ending and (not end.endswith(_ENDINGS) or end.endswith("...")):
        return False
    return not _UNWANTED.search(line.lower())
