"""Texts flow in, their languages in our normal form and a probability flow out.

The model's label is brought to the form of `language.py`: `__label__eng_Latn` as it stands,
`__label__sr` with the script that the text itself is written in, as lid.176 knows none.
"""

from __future__ import annotations

import functools
import itertools
import unicodedata
from collections import Counter

from .documents import UNKNOWN_LANGUAGE
from .fasttext_models import beginning, default_language_model, open_model, predict
from .language import normalize_language
from .text_config import IdentificationConfig

_SCRIPTS = {
    "LATIN": "Latn",
    "CYRILLIC": "Cyrl",
    "GREEK": "Grek",
    "ARABIC": "Arab",
    "HEBREW": "Hebr",
    "DEVANAGARI": "Deva",
    "BENGALI": "Beng",
    "GURMUKHI": "Guru",
    "GUJARATI": "Gujr",
    "ORIYA": "Orya",
    "TAMIL": "Taml",
    "TELUGU": "Telu",
    "KANNADA": "Knda",
    "MALAYALAM": "Mlym",
    "SINHALA": "Sinh",
    "THAI": "Thai",
    "LAO": "Laoo",
    "TIBETAN": "Tibt",
    "MYANMAR": "Mymr",
    "KHMER": "Khmr",
    "GEORGIAN": "Geor",
    "ARMENIAN": "Armn",
    "ETHIOPIC": "Ethi",
    "MONGOLIAN": "Mong",
    "SYRIAC": "Syrc",
    "THAANA": "Thaa",
    "TIFINAGH": "Tfng",
    "NKO": "Nkoo",
    "CHEROKEE": "Cher",
    "OL": "Olck",
    "JAVANESE": "Java",
}
"""First words of Unicode's character names -> ISO 15924. Han, kana and Hangul are left out: the
scripts of Chinese, Japanese and Korean follow from the language."""

SCRIPT_CHARACTERS = 200
"""Letters that are looked at for a text's script."""


class LanguageIdentifier:
    """Identifies the language of texts; make one a process and use it again."""

    def __init__(self, config: IdentificationConfig) -> None:
        self._config = config
        self._model = open_model(config.model or default_language_model())

    def __call__(self, text: bytes | memoryview) -> tuple[str, float]:
        """Return (language, probability) of a text; (und_Zyyy, 0.0) where there is nothing."""
        start = beginning(text, self._config.max_characters)
        found = predict(self._model, start)
        if not found:
            return UNKNOWN_LANGUAGE, 0.0
        label, probability = found[0]
        code = label.removeprefix("__label__")
        language = normalize_language(code)
        if "_" not in code and "-" not in code and language != UNKNOWN_LANGUAGE:
            script = script_of(start)
            if script and script != language[-4:] and language[-4:] in _SCRIPTS.values():
                language = normalize_language(f"{code}-{script}")
        return language, probability


@functools.lru_cache(maxsize=65_536)
def _script(character: str) -> str:
    if not character.isalpha():
        return ""
    return _SCRIPTS.get(unicodedata.name(character, "").split(" ")[0], "")


def script_of(text: str) -> str:
    """Return the script (ISO 15924) of most letters at the beginning of a text, "" for none."""
    looked_at = text[: 4 * SCRIPT_CHARACTERS]
    present = set(map(_script, set(looked_at))) - {""}
    if len(present) < 2:  # nearly always: characters are then not counted
        return present.pop() if present else ""
    letters = filter(None, map(_script, looked_at))
    found = Counter(itertools.islice(letters, SCRIPT_CHARACTERS))
    return max(found, key=lambda script: (found[script], script))
