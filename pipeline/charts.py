"""Counts in, the geometry of small charts out: rectangles and labels that a template draws as SVG.

Bars are all the report needs, so this page and one template macro stand where a plotting library
would: those that draw SVG without a browser bring rasterizers or numeric stacks along, and fonts or
scripts from elsewhere; and their colours do not follow the reader's theme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .histogram import Bar, bars, lower_edge

WIDTH, HEIGHT = 440, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 14, 24


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A part of a bar."""

    x: float
    y: float
    width: float
    height: float
    style: str
    """Name of its colour."""
    title: str
    """Shown when it is pointed at."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text at a place; ticks of the vertical axis have a line across."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A histogram, ready to be drawn."""

    title: str
    note: str
    """What is counted."""
    rectangles: tuple[Rectangle, ...]
    x_labels: tuple[Label, ...]
    y_labels: tuple[Label, ...]
    legend: tuple[tuple[str, str], ...] = ()
    """(style, name) where bars have several parts."""
    width: int = WIDTH
    height: int = HEIGHT
    baseline: float = HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a bar from 0 to 100."""

    x: float
    width: float
    style: str
    title: str


def histogram(
    title: str,
    note: str,
    series: Sequence[tuple[str, str, Mapping[int, int]]],
    edge: Callable[[float], str],
    *,
    logarithmic: bool = False,
) -> Chart | None:
    """Return stacked bars of several histograms over one axis; None where there is no value.

    Args:
        title, note: what the chart is called, and what it counts.
        series: (style, name, buckets) from the bottom up.
        edge: writes a value under the axis.
        logarithmic: bars as high as the logarithm of their count (of one series).
    """
    together: dict[int, int] = {}
    for _, _, buckets in series:
        for code, count in buckets.items():
            together[code] = together.get(code, 0) + count
    outline = bars(together)
    if not outline:
        return None
    highest = max(bar.count for bar in outline)
    scale = (lambda count: math.log10(count + 1)) if logarithmic else float
    top = scale(highest)
    room, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    step = min(room / len(outline), 48.0)
    heights = [0.0] * len(outline)
    rectangles = []
    for style, name, buckets in series:
        own = _aligned(buckets, outline)
        for place, count in enumerate(own):
            if count == 0:
                continue
            height = tall * scale(count) / top
            heights[place] += height
            bar = outline[place]
            rectangles.append(
                Rectangle(
                    x=round(_LEFT + place * step + min(1.0, step / 8), 2),
                    y=round(HEIGHT - _BOTTOM - heights[place], 2),
                    width=round(step - 2 * min(1.0, step / 8), 2),
                    height=round(height, 2),
                    style=style,
                    title=f"{_range(bar, edge)}: {count:,} {name}",
                )
            )
    every = max(1, math.ceil(46 / step))
    x_labels = [
        Label(round(_LEFT + place * step + step / 2, 2), HEIGHT - 8, edge(outline[place].low))
        for place in range(0, len(outline), every)
    ]
    y_labels = [
        Label(_LEFT - 5, round(HEIGHT - _BOTTOM - tall * scale(tick) / top, 2), short(tick))
        for tick in _ticks(highest, logarithmic)
    ]
    return Chart(
        title=title,
        note=note,
        rectangles=tuple(rectangles),
        x_labels=tuple(x_labels),
        y_labels=tuple(y_labels),
        legend=tuple((style, name) for style, name, _ in series) if len(series) > 1 else (),
    )


def shares(parts: Sequence[tuple[str, str, int]], whole: int) -> list[Share]:
    """Return the parts of a bar of 100: (style, name, count) one after the other.

    Parts of less than a thousandth are not drawn; they stand in the table beside.
    """
    found, before = [], 0
    for style, name, count in parts:
        width = 100 * count / whole if whole else 0.0
        if width >= 0.1:
            place = round(100 * before / whole, 3)
            found.append(Share(place, round(width, 3), style, f"{count:,} {name}"))
        before += count
    return found


def short(number: float) -> str:
    """Return a count in a few characters: 950, 12 k, 3.4 M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            value = number / size
            return (
                f"{value:.0f} {unit}"
                if value >= 10 or value == int(value)
                else f"{value:.1f} {unit}"
            )
    return f"{number:,.0f}"


def plain_edge(value: float) -> str:
    """Return a value under an axis: whole numbers short, others with three digits."""
    if value == int(value):
        return short(value) if abs(value) >= 10_000 else f"{int(value)}"
    return f"{value:.3g}"


def byte_edge(value: float) -> str:
    """Return a power of two as bytes: 512, 4 KiB, 16 MiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value >= size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f}"


def _range(bar: Bar, edge: Callable[[float], str]) -> str:
    whole = bar.low == int(bar.low) and bar.high == int(bar.high)
    if bar.low == bar.high or (whole and bar.high - bar.low == 1 and bar.low >= 1):
        return edge(bar.low)
    return f"{edge(bar.low)} to {edge(bar.high)}"


def _aligned(buckets: Mapping[int, int], outline: Sequence[Bar]) -> list[int]:
    """Return how many values of one series fall into each bar of all series together."""
    counts = [0] * len(outline)
    for code, count in buckets.items():
        value = lower_edge(code)
        place = 0
        for number, bar in enumerate(outline):
            if bar.low <= value:
                place = number
        counts[place] += count
    return counts


def _ticks(highest: int, logarithmic: bool) -> list[int]:
    if logarithmic:
        return [10**power for power in range(len(str(highest)))]
    step = 10 ** (len(str(highest)) - 1)
    for finer in (step / 5, step / 2, step, step * 2):
        if finer >= 1 and highest / finer <= 5:
            return [int(finer * n) for n in range(1, int(highest / finer) + 1)]
    return [highest]
