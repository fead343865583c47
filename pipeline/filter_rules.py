"""The rules of the field's filters: counts of text statistics in, shares and comparisons out.

A rule compares one share (or count) with one threshold of `filter_config`; its name is that of the
threshold, `gopher_quality.min_words`. Shares divide as the published rules do; where nothing is to
be divided by, the share is 0 and only a minimum can fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = Mapping[str, NDArray[np.uint32]]
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rule:
    """One comparison."""

    family: str
    threshold: str
    """Field of the family's config class; its first word says which side is dropped."""
    counts: tuple[str, ...]
    """Columns of text statistics that `value` needs."""
    value: Callable[[Counts], Values]
    needs_stop_words: bool = False

    @property
    def name(self) -> str:
        """Name in reports: family and threshold."""
        return f"{self.family}.{self.threshold}"

    @property
    def is_minimum(self) -> bool:
        """Whether documents below the threshold fail (above it otherwise)."""
        return self.threshold.startswith("min_")

    def fails(self, values: Values, thresholds: Values) -> NDArray[np.bool_]:
        """Return which documents fail; a threshold that is NaN fails none."""
        return values < thresholds if self.is_minimum else values > thresholds


def _count(family: str, threshold: str, column: str, needs_stop_words: bool = False) -> Rule:
    def value(counts: Counts) -> Values:
        return counts[column].astype(np.float64)

    return Rule(family, threshold, (column,), value, needs_stop_words)


def _share(family: str, threshold: str, part: str, whole: str, less: str = "") -> Rule:
    def value(counts: Counts) -> Values:
        divisor = counts[whole].astype(np.float64)
        if less:
            divisor -= counts[less]
        found = np.zeros(len(divisor))
        np.divide(counts[part], divisor, out=found, where=divisor > 0)
        return found

    return Rule(family, threshold, (part, whole, *([less] if less else [])), value)


def _symbols(counts: Counts) -> Values:
    symbols = np.maximum(counts["hashes"], counts["ellipses"]).astype(np.float64)
    return np.asarray(symbols / np.maximum(counts["tokens"], 1))


_QUALITY, _REPETITION, _C4, _FINEWEB = "gopher_quality", "gopher_repetition", "c4", "fineweb"
_WHOLE = "repetition_characters"

RULES: tuple[Rule, ...] = (
    _count(_QUALITY, "min_words", "words"),
    _count(_QUALITY, "max_words", "words"),
    _share(_QUALITY, "min_mean_word_length", "word_characters", "words"),
    _share(_QUALITY, "max_mean_word_length", "word_characters", "words"),
    Rule(_QUALITY, "max_symbols_per_word", ("hashes", "ellipses", "tokens"), _symbols),
    _share(_QUALITY, "max_bullet_lines", "bullet_lines", "lines"),
    _share(_QUALITY, "max_ellipsis_lines", "ellipsis_lines", "lines"),
    _share(_QUALITY, "min_alphabetic_words", "alphabetic_words", "tokens"),
    _count(_QUALITY, "min_stop_words", "stop_words", needs_stop_words=True),
    _share(_REPETITION, "max_duplicate_paragraphs", "duplicate_paragraphs", "paragraphs"),
    _share(
        _REPETITION,
        "max_duplicate_paragraph_characters",
        "duplicate_paragraph_characters",
        "characters",
    ),
    _share(_REPETITION, "max_duplicate_lines", "duplicate_lines", "text_lines"),
    _share(_REPETITION, "max_duplicate_line_characters", "duplicate_line_characters", "characters"),
    *(
        _share(_REPETITION, f"max_top_{n}gram", f"top_{n}gram_characters", _WHOLE)
        for n in range(2, 5)
    ),
    *(
        _share(_REPETITION, f"max_duplicate_{n}gram", f"duplicate_{n}gram_characters", _WHOLE)
        for n in range(5, 11)
    ),
    _count(_C4, "max_lorem_ipsum", "c4_lorem_ipsum"),
    _count(_C4, "max_curly_brackets", "c4_curly_brackets"),
    _count(_C4, "min_sentences", "c4_sentences"),
    _share(_FINEWEB, "min_punctuated_lines", "punctuated_lines", "text_lines"),
    _share(_FINEWEB, "max_short_lines", "short_lines", "text_lines"),
    _share(
        _FINEWEB,
        "max_duplicate_line_characters",
        "duplicate_line_characters",
        "characters",
        less="newlines",
    ),
    _share(_FINEWEB, "max_newlines_per_word", "newlines", "tokens"),
)
"""All rules, in the order in which the first that fails gives a document's reason."""

RULE_NAMES = tuple(rule.name for rule in RULES)
ANY_ENDING = "_any_ending"


def rule_values(rule: Rule, counts: Counts, any_ending: bool = False) -> Values:
    """Return what a rule compares, for each document.

    Args:
        counts: column name -> uint32[num_documents].
        any_ending: C4's rules look at lines without a final mark too.
    """
    if any_ending and rule.family == _C4:
        counts = {name: counts[name + ANY_ENDING] for name in rule.counts}
    return rule.value(counts)
