"""Thresholds of the field's filters: plain values in, nothing done here.

Every family is off until its `enabled` says otherwise; a threshold's default is the published one.
A threshold that is -1 switches its rule off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .decontamination_config import DecontaminationConfig

OFF = -1.0
"""A threshold that no document fails."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GopherQualityConfig:
    """Rae et al. 2021, table A1 (Gopher), document quality."""

    enabled: bool = False
    """Apply these rules."""
    min_words: float = 50
    """Words; of scripts without spaces as much text as makes one."""
    max_words: float = 100_000
    """Words."""
    min_mean_word_length: float = 3
    """Code points a word. Words of scripts without spaces have 1.6 (Han) to 3.2 (Thai) of them."""
    max_mean_word_length: float = 10
    """Code points a word."""
    max_symbols_per_word: float = 0.1
    """Number signs, or ellipses, per word or punctuation mark."""
    max_bullet_lines: float = 0.9
    """Share of lines that begin with a bullet or hyphen."""
    max_ellipsis_lines: float = 0.3
    """Share of lines that end in an ellipsis."""
    min_alphabetic_words: float = 0.8
    """Words with a letter, as a share of words and punctuation marks."""
    min_stop_words: float = 2
    """Different stop words of the language; languages without a list are not asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GopherRepetitionConfig:
    """Rae et al. 2021, table A1 (Gopher), repetition; shares of the text's characters."""

    enabled: bool = False
    """Apply these rules."""
    max_duplicate_lines: float = 0.3
    """Share of lines that are equal to an earlier one."""
    max_duplicate_paragraphs: float = 0.3
    """Share of paragraphs that are equal to an earlier one."""
    max_duplicate_line_characters: float = 0.2
    """Characters in such lines."""
    max_duplicate_paragraph_characters: float = 0.2
    """Characters in such paragraphs."""
    max_top_2gram: float = 0.2
    """Characters of the commonest 2-gram in all its places."""
    max_top_3gram: float = 0.18
    """The same of 3-grams."""
    max_top_4gram: float = 0.16
    """The same of 4-grams."""
    max_duplicate_5gram: float = 0.15
    """Characters of 5-grams that occurred before."""
    max_duplicate_6gram: float = 0.14
    """The same of 6-grams."""
    max_duplicate_7gram: float = 0.13
    """The same of 7-grams."""
    max_duplicate_8gram: float = 0.12
    """The same of 8-grams."""
    max_duplicate_9gram: float = 0.11
    """The same of 9-grams."""
    max_duplicate_10gram: float = 0.1
    """The same of 10-grams."""


@dataclass(frozen=True, kw_only=True, slots=True)
class C4Config:
    """Raffel et al. 2020 (C4). Lines that C4 drops do not count; clean.c4_lines removes them."""

    enabled: bool = False
    """Apply these rules."""
    any_ending: bool = False
    """Let lines count that end without a final mark (as FineWeb does)."""
    min_sentences: float = 5
    """Sentences in lines that C4 keeps."""
    max_lorem_ipsum: float = 0
    """Lines with `lorem ipsum`."""
    max_curly_brackets: float = 0
    """Lines with a curly bracket."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FineWebConfig:
    """Penedo et al. 2024 (FineWeb)."""

    enabled: bool = False
    """Apply these rules."""
    min_punctuated_lines: float = 0.12
    """Share of lines that end in a sentence's final mark, of any script."""
    max_short_lines: float = 0.67
    """Share of lines of at most 30 characters."""
    max_duplicate_line_characters: float = 0.01
    """Share of characters in lines that are equal to an earlier one."""
    max_newlines_per_word: float = 0.3
    """Line ends per word or punctuation mark."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantileConfig:
    """Thresholds from the corpus itself, for each language: Penedo et al. 2025 (FineWeb2)."""

    shares: dict[str, float] = field(default_factory=dict)
    """Rule -> share of each language's documents that it shall drop, such as
    { "fineweb.max_short_lines" = 0.1 }; the threshold is the quantile that does so."""
    reference_language: str = ""
    """For `transfer`: the threshold of another language is the quantile at which the published
    one lies among the documents of this language."""
    transfer: tuple[str, ...] = ()
    """Rules whose thresholds are carried over from the reference language."""
    min_documents: int = 1000
    """Languages with fewer documents keep the thresholds as they are set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FilterConfig:
    """Decisions over the columns of clean documents: which are kept, and why others are not.

    Changing them re-reads no source: only the columns of documents/ are looked at again, and their
    texts where the evaluation data of `decontamination` changes.
    """

    mode: Literal["drop", "annotate"] = "drop"
    """annotate: drop nothing, and say in filters/ which rules each document fails."""
    gopher_quality: GopherQualityConfig = field(default_factory=GopherQualityConfig)
    """Length, words, symbols, stop words."""
    gopher_repetition: GopherRepetitionConfig = field(default_factory=GopherRepetitionConfig)
    """Repeated lines, paragraphs, n-grams."""
    c4: C4Config = field(default_factory=C4Config)
    """Sentences, placeholder text, code."""
    fineweb: FineWebConfig = field(default_factory=FineWebConfig)
    """Lines."""
    languages: dict[str, dict[str, float]] = field(default_factory=dict)
    """Other thresholds for a language (swh_Latn) or a script (Thai):
    { Hani = { "gopher_quality.min_mean_word_length" = 1 } }. A language's come before its
    script's, both before quantiles."""
    quantiles: QuantileConfig = field(default_factory=QuantileConfig)
    """Thresholds that follow from the corpus."""
    min_language_score: float = 0.0
    """Documents whose identified language scores less are dropped as `language_score`."""
    language_scores: dict[str, float] = field(default_factory=dict)
    """Other values of min_language_score: { tha_Thai = 0.9 }."""
    keep_languages: tuple[str, ...] = ()
    """Only documents of these languages are kept; none: all."""
    drop_language_mismatch: bool = False
    """Drop documents whose given language is not the identified one."""
    url_column: str = "url"
    """Column with the document's address (one of the source's `columns`)."""
    url_block_list: tuple[str, ...] = ()
    """Files with a domain, or a part of a URL (anything with a slash), a line; # begins a
    comment. Subdomains are blocked too."""
    decontamination: DecontaminationConfig = field(default_factory=DecontaminationConfig)
    """Evaluation data that documents must not hold (texts are searched for it)."""
    scores: dict[str, float] = field(default_factory=dict)
    """Smallest value of a column of numbers that clean adds: { quality = 0.5 }."""
