"""Texts that one trusts flow in; the words that any text of their language has flow out.

Gopher's rule asks a document for two of eight English words. No list made for search fits it: those
hold hundreds of words, many of them content. So the words are counted, as FineWeb2 (Penedo et al.,
2025, arXiv 2506.20920) counts them on Wikipedia: those that make up a share of all words, and the
commonest where these are few. They are a setting (`clean.annotate.stop_words`) and not a stage of
every run: a list that followed the corpus would move whenever data is added, and a corpus of junk
would vouch for itself.

Words are those of the statistics that look for them. Scripts whose letters are counted one by one
(Thai, Lao, Khmer, Burmese, Tibetan) have none: every text has every letter.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..kernels.character_classes import ALPHABETIC
from ..kernels.reference.document_statistics import flags_of, tokens_of
from ..kernels.statistics_columns import MAX_STOP_WORDS
from .cleaner import Cleaner
from .config import CleanConfig, SourceConfig
from .documents import UNKNOWN_LANGUAGE
from .sources import find_files
from .units import plan_units, read_unit

logger = logging.getLogger(__name__)

SAMPLE_CHARACTERS = 2_000_000
"""Text that is looked at of each language, the first in the order of the documents."""

UNIT_CHARACTERS = 20_000_000
"""Text that is read of each unit of reading, for languages that are rare in it."""

MIN_WORDS = 2_000
"""Words that a language must have in the sample: of fewer the commonest are chance."""

LETTER_SCRIPTS = ("Khmr", "Laoo", "Mymr", "Thai", "Tibt")


@dataclass(frozen=True, slots=True)
class StopWords:
    """The words of one language."""

    words: tuple[str, ...]
    """The commonest first."""
    share: float
    """Of all words of the sample that they make up together."""
    sample_words: int


def find_stop_words(
    sources: Sequence[SourceConfig],
    clean: CleanConfig,
    *,
    share: float = 0.008,
    least: int = 8,
    most: int = 32,
) -> dict[str, StopWords]:
    """Return the commonest words of each language.

    Args:
        sources: texts; their languages are found as in `preprocess`.
        clean: form of the texts, and identification of languages.
        share: of all words, that a word must make up to be one.
        least: words of a language, whatever they make up.
        most: at most 63, which is what the statistics can look for.
    """
    if not 0 < share < 1 or not 1 <= least <= most <= MAX_STOP_WORDS:
        raise ValueError(
            f"share {share}, least {least}, most {most}: share is above 0 and below 1, and 1 <= "
            f"least <= most <= {MAX_STOP_WORDS}"
        )
    counts: dict[str, Counter[str]] = {}
    sizes: Counter[str] = Counter()
    for language, text in _texts(sources, clean):
        room = SAMPLE_CHARACTERS - sizes[language]
        if room > 0 and language != UNKNOWN_LANGUAGE:
            sizes[language] += min(len(text), room)
            counts.setdefault(language, Counter()).update(text[:room].split())
    found = {}
    for language, runs in sorted(counts.items()):
        if language.partition("_")[2] in LETTER_SCRIPTS:
            logger.warning(
                "%s has no stop words: its script does not set words apart, and the rule "
                "gopher_quality.min_stop_words is not asked of it",
                language,
            )
            continue
        words = _words(runs)
        total = words.total()
        if total < MIN_WORDS:
            logger.warning("%s has %d words here, too few to know the commonest", language, total)
            continue
        ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
        number = max(least, sum(count >= share * total for _, count in ordered[:most]))
        chosen = ordered[:number]
        together = sum(count for _, count in chosen) / total
        found[language] = StopWords(tuple(word for word, _ in chosen), together, total)
    return found


def stop_words_of(
    inputs: tuple[str, ...], *, text_key: str, language: str, clean: CleanConfig, **options: Any
) -> str:
    """Return the table of `as_toml` for some files; `options` are those of `find_stop_words`."""
    if not inputs:
        raise ValueError("no text to count words of: name files, before the options")
    source = SourceConfig(path=inputs, text_key=text_key, language=language)
    return as_toml(find_stop_words([source], clean, **options))


def as_toml(found: Mapping[str, StopWords]) -> str:
    """Return the table for a configuration."""
    lines = ["[preprocess.clean.annotate.stop_words]"]
    for language, words in found.items():
        listed = ", ".join(f'"{word}"' for word in words.words)
        lines.append(
            f"{language} = [{listed}]  # {words.share:.0%} of {words.sample_words:,} words"
        )
    return "\n".join(lines) + "\n"


def _texts(sources: Sequence[SourceConfig], clean: CleanConfig) -> Iterator[tuple[str, str]]:
    """Yield language and text of documents: of each unit the first UNIT_CHARACTERS."""
    for unit in plan_units(find_files(sources), clean.unit_bytes):
        clean_batch, size = Cleaner(clean), 0
        for file, batch in read_unit(unit):
            documents, _ = clean_batch(file, batch)
            languages = documents.column("language").to_pylist()
            for language, text in zip(languages, documents.column("text").to_pylist(), strict=True):
                yield language, text
                size += len(text)
            if size >= UNIT_CHARACTERS:
                break


def _words(runs: Counter[str]) -> Counter[str]:
    """Return how often words with a letter, and without a quotation mark, stand in the runs."""
    words: Counter[str] = Counter()
    for run, count in runs.items():
        for token in tokens_of(run):
            is_plain = '"' not in token.text and "\\" not in token.text
            if is_plain and any(flags_of(one) & ALPHABETIC for one in token.text):
                words[token.text] += count
    return words
