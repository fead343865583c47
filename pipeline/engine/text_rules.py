"""Normalizers of a Unigram tokenizer.json flow in, steps for kernels flow out, in their order."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...kernels.jit import as_readonly
from ...kernels.tokenizer import charsmap, text_rules
from ...kernels.tokenizer.charsmap import CharsmapTables, normalize_charsmap
from ...kernels.tokenizer.code_points import fold
from ...kernels.tokenizer.pieces import SLACK
from .charsmap_files import split_charsmap
from .frame import Segments
from .unsupported import UnsupportedError
from .wordpiece import load_bert

_EMPTY = as_readonly(np.zeros(0, np.uint8), np.uint8)
_NO_TABLE = (
    as_readonly(np.zeros(1, np.uint16), np.uint16),
    as_readonly(np.zeros(1, np.int32), np.int32),
)
# What Nmt removes and what it makes a space of: ranges of code points, as in sentencepiece.
_NMT_GONE = ((0x01, 0x08), (0x0B, 0x0B), (0x0E, 0x1F), (0x7F, 0x7F), (0x8F, 0x8F), (0x9F, 0x9F))
_NMT_SPACE = (
    (0x09, 0x0A), (0x0C, 0x0D), (0x1680, 0x1680), (0x200B, 0x200F), (0x2028, 0x2029),
    (0x2581, 0x2581), (0xFEFF, 0xFEFF), (0xFFFD, 0xFFFD),
)  # fmt: skip

Step = Callable[[NDArray[np.uint8], Segments], tuple[NDArray[np.uint8], Segments]]


@dataclass(frozen=True)
class TextNormalizer:
    """Steps one after the other; see `Normalizer` of frame.py."""

    steps: tuple[Step, ...]

    def normalize(
        self, data: NDArray[np.uint8], segments: Segments
    ) -> tuple[NDArray[np.uint8], Segments]:
        """Return the normalized bytes and segments."""
        for step in self.steps:
            data, segments = step(data, segments)
        return data, segments


@dataclass(frozen=True)
class CharsmapStep:
    """Applies a precompiled charsmap."""

    tables: CharsmapTables
    growth: int
    """Most bytes that one byte becomes."""

    def __call__(
        self, data: NDArray[np.uint8], segments: Segments
    ) -> tuple[NDArray[np.uint8], Segments]:
        """Normalize segments with the kernel `normalize_charsmap`."""
        starts, ends, tokens, first = segments
        out = np.empty(self.growth * int((ends - starts).sum()) + SLACK, np.uint8)
        new_starts, new_ends = np.empty_like(starts), np.empty_like(ends)
        normalize_charsmap(data, starts, ends, tokens, self.tables, out, new_starts, new_ends)
        return as_readonly(out, np.uint8), Segments(new_starts, new_ends, tokens, first)


@dataclass(frozen=True)
class RuleStep:
    """Applies one rule of text_rules.py."""

    rule: int
    table: tuple[NDArray[np.uint16], NDArray[np.int32]] = _NO_TABLE
    pattern: NDArray[np.uint8] = field(default_factory=lambda: _EMPTY)
    content: NDArray[np.uint8] = field(default_factory=lambda: _EMPTY)

    def __call__(
        self, data: NDArray[np.uint8], segments: Segments
    ) -> tuple[NDArray[np.uint8], Segments]:
        """Rewrite segments with the kernel `apply_text_rule`."""
        starts, ends, tokens, first = segments
        num_bytes = int((ends - starts).sum())
        # A mapped character grows from one byte to three at most (two of at most two bytes).
        growth = 3 if self.rule == text_rules.MAP else max(1, len(self.content))
        size = 0 if self.rule == text_rules.STRIP else growth * num_bytes + SLACK
        out = np.empty(size, np.uint8)
        new_starts, new_ends = np.empty_like(starts), np.empty_like(ends)
        text_rules.apply_text_rule(
            data, starts, ends, tokens, self.rule, *self.table, self.pattern, self.content,
            out, new_starts, new_ends,
        )  # fmt: skip
        new = Segments(new_starts, new_ends, tokens, first)
        return (data if size == 0 else as_readonly(out, np.uint8)), new


def compile_normalizer(normalizer: dict[str, Any] | None) -> TextNormalizer | None:
    """Return what applies a normalizer, or None if there is none.

    Raises:
        UnsupportedError: a step that is not reproduced, by its name.
    """
    steps = tuple(_compile_step(step) for step in _flatten(normalizer))
    return TextNormalizer(steps) if steps else None


def _flatten(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [step for part in normalizer["normalizers"] for step in _flatten(part)]
    return [normalizer]


def _compile_step(step: dict[str, Any]) -> Step:
    kind = step["type"]
    if kind == "Precompiled":
        return _compile_charsmap(base64.b64decode(step["precompiled_charsmap"]))
    if kind == "Strip":
        sides = step["strip_left"] | step["strip_right"] << 1
        return RuleStep(text_rules.STRIP, pattern=_bytes(bytes([sides])))
    if kind == "Replace":
        content = _bytes(step["content"].encode())
        pattern = step["pattern"].get("String")
        if pattern:
            return RuleStep(text_rules.REPLACE, pattern=_bytes(pattern.encode()), content=content)
        if step["pattern"] == {"Regex": " {2,}"}:
            return RuleStep(text_rules.REPLACE_RUNS, pattern=_bytes(b" "), content=content)
        raise UnsupportedError(f"Replace of {step['pattern']}")
    if kind == "Nmt":
        table = np.zeros(0x110000, np.int32)
        for ranges, result in ((_NMT_GONE, text_rules.GONE), (_NMT_SPACE, 0x20)):
            for low, high in ranges:
                table[low : high + 1] = result
        return RuleStep(text_rules.MAP, _folded(table))
    if kind == "Lowercase":
        table = np.zeros(0x110000, np.int32)
        for code_point, *result in load_bert()["lowered"].tolist():
            second = max(result[1], 0)
            if result[2] >= 0 or second >= 1 << 10:
                raise UnsupportedError(f"the lower case of U+{code_point:04X}")
            table[code_point] = result[0] | second << 21
        return RuleStep(text_rules.MAP, _folded(table))
    raise UnsupportedError(f"the normalizer {kind}")


def _compile_charsmap(raw: bytes) -> CharsmapStep:
    try:
        units, values = split_charsmap(raw)
    except ValueError as error:
        raise UnsupportedError(str(error)) from error
    if len(values) >= 1 << 22:
        raise UnsupportedError("a precompiled charsmap with more than 4 MB of values")
    found = np.empty(0x110000, np.int32)
    units = as_readonly(units, np.uint32)
    charsmap.find_values(units, np.empty(4, np.uint8), found)
    table = load_joins().astype(np.int32) | found + 1 << 8
    stage1, blocks = fold(table)
    longest = max(map(len, values.tobytes().split(b"\0")))
    return CharsmapStep(
        CharsmapTables(
            as_readonly(stage1, np.uint16),
            as_readonly(blocks, np.int32),
            units,
            as_readonly(values, np.uint8),
        ),
        growth=max(1, longest),
    )


@cache
def load_joins() -> NDArray[np.uint8]:
    """Return uint8[0x110000]: how each code point joins its neighbours; see probe_graphemes.py."""
    with np.load(Path(charsmap.__file__).with_name("graphemes.npz")) as file:
        joins: NDArray[np.uint8] = file["blocks"][file["stage1"]].reshape(-1)
    return joins


def _bytes(raw: bytes) -> NDArray[np.uint8]:
    view: NDArray[np.uint8] = as_readonly(np.frombuffer(raw, np.uint8), np.uint8)
    return view


def _folded(table: NDArray[np.int32]) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    stage1, blocks = fold(table)
    return as_readonly(stage1, np.uint16), as_readonly(blocks, np.int32)
