"""Which evaluation data must not be learnt, and what becomes of documents that hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """One set of evaluation data: JSONL (also .json, .gz, .zst), Parquet, Arrow or text files."""

    path: str | tuple[str, ...]
    """File, folder, glob, or a list of them. A row is a line, or a row of the table."""
    name: str = ""
    """Name in reports; empty: derived from the path."""
    fields: tuple[str, ...] = ()
    """Fields whose strings are looked for, each apart, those in lists and objects too; none: all.
    Leave out what all rows share (instructions, sources): it is no evaluation data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecontaminationConfig:
    """Documents that hold evaluation data: found by n-grams, as Brown et al. 2020 (GPT-3) did."""

    evaluations: tuple[EvaluationConfig, ...] = ()
    """Evaluation data: `[[preprocess.filters.decontamination.evaluations]]`, one table each."""
    words: int = 13
    """Words in a row that a document must share with an evaluation text; of scripts without spaces
    as much text as makes them (21 ideographs, 32 kana or 42 letters are 13 words). Case,
    punctuation and white space do not count."""
    short_words: int = 8
    """Shorter evaluation texts must stand in the document whole; those with fewer words than this
    match only a document that is nothing else."""
    min_share: float = 0.0
    """Share of an evaluation row's words that a document must hold; 0: one match is enough."""
    action: Literal["drop", "cut", "annotate"] = "drop"
    """drop: the document, as `contaminated`; cut: leave the shared passage out of the token files;
    annotate: drop and cut nothing. The report and contamination/ say what matched in any case."""
