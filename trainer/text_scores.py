"""Answers and references in, chrF, BLEU, ROUGE-L and exact match out: percent, higher is better.

chrF and BLEU are sacrebleu's, over all pairs together; ROUGE-L is rouge-score's F-measure, the mean
over pairs. What both packages take for words fails where a script has no spaces: there every
character counts as a word (BLEU's tokenization `char`, and `words` below).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_SPACELESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u0f00-\u0fff"  # Tibetan
    "\u1000-\u109f"  # Myanmar
    "\u1780-\u17ff"  # Khmer
    "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
_WORDS = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])\w)+")
_SPACELESS_LETTER = re.compile(f"[{_SPACELESS}]")
_MARKS = re.compile(r"[^\w\s]|_")


class MissingScorerError(ValueError):
    """A package that scores texts is not installed."""


@dataclass(frozen=True, slots=True)
class TextScores:
    """Scores of one set of answers, percent."""

    examples: int
    """Pairs that were scored."""
    chrf: float
    """chrF2: F-score of character n-grams, recall twice as heavy (Popović 2015)."""
    bleu: float
    """BLEU of the whole set (Papineni et al. 2002)."""
    bleu_tokenize: str
    """sacrebleu's tokenization: 13a, or char for scripts without spaces."""
    rouge_l: float
    """F-measure of the longest common subsequence of words (Lin 2004), mean over pairs."""
    exact_match: float
    """Share of answers that are the reference, case, marks and spaces aside."""


def score_texts(answers: Sequence[str], references: Sequence[str]) -> TextScores:
    """Score one answer for each reference.

    Raises:
        MissingScorerError: sacrebleu or rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError as error:
        raise MissingScorerError(
            f"scoring texts needs the package {error.name}: pip install 'gristmill[evaluate]'"
        ) from error
    tokenize = "char" if is_spaceless(references) else "13a"
    rouge = RougeScorer(["rougeL"], tokenizer=_Words())
    rouge_l = [
        rouge.score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]
    matches = [normal(a) == normal(r) for a, r in zip(answers, references, strict=True)]
    count = max(1, len(answers))
    return TextScores(
        examples=len(answers),
        chrf=CHRF().corpus_score(list(answers), [list(references)]).score,
        bleu=BLEU(tokenize=tokenize).corpus_score(list(answers), [list(references)]).score,
        bleu_tokenize=tokenize,
        rouge_l=100 * sum(rouge_l) / count,
        exact_match=100 * sum(matches) / count,
    )


def words(text: str) -> list[str]:
    """Return the words of a text in small letters; each letter of a script without spaces is one.

    Example: words("The 3 Mills, 水車") == ["the", "3", "mills", "水", "車"].
    """
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


def is_spaceless(texts: Sequence[str]) -> bool:
    """Whether more than half of the letters are of scripts that put no spaces between words."""
    letters = [letter for text in texts for letter in text if letter.isalpha()]
    found = sum(_SPACELESS_LETTER.match(letter) is not None for letter in letters)
    return 2 * found > len(letters)


def normal(text: str) -> str:
    """Return a text without what does not make an answer wrong: case, marks, spaces.

    Example: normal(" Mill-Race. ") == "mill race".
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_MARKS.sub(" ", text).split())


class _Words:
    """What rouge-score calls a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)
