"""Values flow in, counts of small buckets flow out, which add up whatever order they come in.

A bucket is a binary exponent and the first four bits behind it, so a bucket is at most 1/16 of its
lower edge wide and whole numbers up to 32 have one each. Buckets do not depend on the data: the
histograms of any parts of a corpus add up to that of the whole. (The scheme of HdrHistogram,
https://hdrhistogram.github.io/HdrHistogram/, for floating-point numbers.)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SUB_BUCKETS = 16
_BIAS = 1_100
"""Makes every exponent of a float64 positive."""

MAX_BARS = 32
"""Bars of a plot at most, but for the one of zero."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a plot: values from `low` up to but not including `high`."""

    low: float
    high: float
    count: int


def bucket_codes(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the bucket of each value: int32[n]; 0 is zero's, negative values have negative codes.

    Args:
        values: float64[n], finite.

    Example: bucket_codes of [1.0, 1.06, 1.07] are three codes k, k, k + 1.
    """
    mantissa, exponent = np.frexp(np.abs(values))  # mantissa in [0.5, 1), 0 for 0
    part = np.floor((mantissa * 2 - 1) * _SUB_BUCKETS).astype(np.int32)
    codes = (exponent.astype(np.int32) + _BIAS) * _SUB_BUCKETS + part
    signed: NDArray[np.int32] = np.where(values < 0, -codes, np.where(values == 0, 0, codes))
    return signed.astype(np.int32)


def lower_edge(code: int) -> float:
    """Return the smallest value of a bucket (of a negative one: the largest)."""
    if code == 0:
        return 0.0
    exponent, part = divmod(abs(code), _SUB_BUCKETS)
    edge = math.ldexp(1 + part / _SUB_BUCKETS, exponent - _BIAS - 1)
    return math.copysign(edge, code)


def count_by_group(
    groups: NDArray[np.int64], values: NDArray[np.float64]
) -> dict[int, Counter[int]]:
    """Return bucket counts of each group; values that are not finite are left out.

    Args:
        groups: int64[n], a number from 0 on for each value.
        values: float64[n].
    """
    finite = np.isfinite(values)
    codes = bucket_codes(values[finite]).astype(np.int64)
    pairs, counts = np.unique((groups[finite] << 32) + (codes + (1 << 20)), return_counts=True)
    found: dict[int, Counter[int]] = {}
    for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
        code = (pair & 0xFFFFFFFF) - (1 << 20)
        found.setdefault(pair >> 32, Counter())[code] += count
    return found


def quantile(buckets: Mapping[int, int], share: float) -> float:
    """Return the lower edge of the bucket that holds the quantile, at most 1/16 below it.

    Raises:
        ValueError: there is no value.
    """
    total = sum(buckets.values())
    if total == 0:
        raise ValueError("a quantile of nothing")
    wanted = min(int(share * total), total - 1)
    before = 0
    for code in sorted(buckets):
        before += buckets[code]
        if before > wanted:
            return lower_edge(code)
    raise AssertionError("unreachable: the counts add up to the total")


def bars(buckets: Mapping[int, int]) -> list[Bar]:
    """Return equally wide bars from the first value to the last, empty ones between them too.

    Shares (all values in [0, 1]) get 32 bars of 1/32 and one for 1 itself, other values one bar for
    each power of two. Negative values, where there are any, share the first bar.
    """
    if not buckets:
        return []
    edges = {code: lower_edge(code) for code in buckets}
    if min(edges.values()) >= 0 and max(edges.values()) <= 1:
        counts = [0] * (MAX_BARS + 1)
        for code, count in buckets.items():
            counts[int(edges[code] * MAX_BARS)] += count
        step = 1 / MAX_BARS
        return [Bar(n * step, min((n + 1) * step, 1.0), count) for n, count in enumerate(counts)]
    by_power: Counter[int] = Counter()
    below, zero = 0, 0
    for code, count in buckets.items():
        if code < 0:
            below += count
        elif code == 0:
            zero += count
        else:
            by_power[code // _SUB_BUCKETS - _BIAS - 1] += count
    found = []
    if below:
        found.append(Bar(min(edges.values()), 0.0, below))
    if zero:
        found.append(Bar(0.0, 0.0, zero))
    if by_power:
        first = max(min(by_power), max(by_power) - MAX_BARS + 1)
        by_power[first] += sum(count for power, count in by_power.items() if power < first)
        found += [
            Bar(math.ldexp(1, power), math.ldexp(1, min(power + 1, 1023)), by_power[power])
            for power in range(first, max(by_power) + 1)
        ]
    return found
