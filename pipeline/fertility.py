"""How well a tokenizer fits each language: a sample of texts in, tokens per byte and per word out.

Words are what white space separates, except in scripts that are written without it: there each
ideograph and each kana is one (about the grain at which they are segmented), and each letter of
Thai, Lao, Khmer and Burmese and each syllable of Tibetan (what tsheg separates); marks belong to
their letter. No dictionary is asked, so figures compare tokenizers on one language, not languages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .executors import Executor, advance
from .progress import Progress
from .stage import Marker, Stage, Unit, UnitResult, run_stage
from .tokenizer import Tokenizer, open_cached
from .tokenizer_sample import read_sample

VERSION = 1

FERTILITY_BYTES = 200_000
"""Text of each language that tokenizers are compared on."""

RATIOS = ("bytes_per_token", "tokens_per_byte", "tokens_per_word", "tokens_per_character")

_SINGLE = (
    "\u2e80-\u2fdf\u3005\u3007\u3021-\u3029\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa"
    "\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9d"
    "\U0001aff0-\U0001b16f\U00020000-\U0003fffd"  # Han, kana
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46"  # Thai
    "\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"  # Lao
    "\u1000-\u102a\u103f\u1050-\u1055\u105a-\u105d\u1061\u1065\u1066\u106e-\u1070\u1075-\u1081"
    "\u108e\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa76\uaa7a\uaa7e\uaa7f"  # Burmese
    "\u1780-\u17b3"  # Khmer
)
_MARKS = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u102b-\u103e\u1056-\u1059"
    "\u105e-\u1060\u1062-\u1064\u1067-\u106d\u1071-\u1074\u1082-\u108d\u108f\u109a-\u109d\u17b4-\u17d3"
    "\u17dd\u3099\u309a\uff9e\uff9f\ufe00-\ufe0f"
)
_TSHEG = "\u0f0b\u0f0c"
_WORD = re.compile(rf"[{_SINGLE}]|[^\s{_SINGLE}{_MARKS}{_TSHEG}]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasureArguments:
    """One tokenizer to measure."""

    output: Path
    tokenizer: str
    units: tuple[str, ...]
    available: dict[str, int]
    train_bytes: int


def count_words(text: str) -> int:
    """Return the words of a text. Example: "two words 三个字" has 5."""
    return sum(1 for _ in _WORD.finditer(text))


def measure_fertility(
    sample: Mapping[str, list[str]], count: Callable[[list[str]], int]
) -> list[dict[str, Any]]:
    """Return one row a language: what its first `FERTILITY_BYTES` of sample become.

    Args:
        sample: texts of each language.
        count: tokens of some texts.
    """
    rows = []
    for language, all_texts in sample.items():
        texts: list[str] = []
        num_bytes = 0
        for text in all_texts:
            if num_bytes >= FERTILITY_BYTES:
                break
            texts.append(text)
            num_bytes += len(text.encode())
        num_tokens = count(texts)
        if num_tokens == 0:
            continue
        num_words = sum(map(count_words, texts))
        rows.append(
            {
                "language": language,
                "sample_bytes": num_bytes,
                "bytes_per_token": round(num_bytes / num_tokens, 4),
                "tokens_per_byte": round(num_tokens / num_bytes, 4),
                "tokens_per_word": round(num_tokens / max(num_words, 1), 4),
                "tokens_per_character": round(num_tokens / sum(map(len, texts)), 4),
            }
        )
    return rows


def measure(
    tokenizers: Sequence[str],
    output: Path,
    verdict_markers: Mapping[str, Marker],
    available: Mapping[str, int],
    train_bytes: int,
    executor: Executor,
    progress: Progress,
) -> dict[str, list[dict[str, Any]]]:
    """Measure tokenizers, each in a unit of its own, on the sample that training would see."""
    stage = Stage(name="fertility", version=VERSION, settings=train_bytes, function=measure_unit)
    units = []
    for number, path in enumerate(tokenizers):
        arguments = MeasureArguments(
            output=output, tokenizer=path, units=tuple(verdict_markers),
            available=dict(available), train_bytes=train_bytes,
        )  # fmt: skip
        inputs = (marker.fingerprint for marker in verdict_markers.values())
        units.append(
            Unit(
                name=f"{number:04d}",
                arguments=arguments,
                inputs=(open_cached(path, "").fingerprint, *inputs),
                size_bytes=min(train_bytes, sum(available.values())),
            )
        )
    markers = run_stage(stage, units, output, executor, progress)
    return {
        path: markers[unit.name].counts["fertility"]
        for path, unit in zip(tokenizers, units, strict=True)
    }


def measure_unit(arguments: MeasureArguments) -> UnitResult:
    """Count what one tokenizer makes of the sample."""
    sample = read_sample(
        arguments.output, arguments.units, arguments.available, arguments.train_bytes
    )
    rows = measure_fertility(sample, counter(Tokenizer(arguments.tokenizer)))
    advance(sum(len(text.encode()) for texts in sample.values() for text in texts))
    return UnitResult(counts={"fertility": rows})


def counter(tokenizer: Tokenizer) -> Callable[[list[str]], int]:
    """Return a function that counts the tokens of texts."""

    def count(texts: list[str]) -> int:
        return sum(map(len, tokenizer.encode_batch(texts)))

    return count


def add_references(
    rows: Iterable[dict[str, Any]], references: Mapping[str, list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the rows of a tokenizer with those of others for the same languages in them."""
    tables = {
        path: {row["language"]: {name: row[name] for name in RATIOS} for row in found}
        for path, found in references.items()
    }
    return [
        row | {"references": {path: table.get(row["language"]) for path, table in tables.items()}}
        for row in rows
    ]
