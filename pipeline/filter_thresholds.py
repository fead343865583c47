"""Config and the corpus's statistics flow in, the thresholds of each language flow out.

In this order, the first that says something holds: `languages` of the language, `languages` of its
script, a quantile of the corpus, the family's config. A quantile comes from histograms of one unit
each that are added up: bins of equal relative width (1/2048), so that nothing needs to be known of
a statistic beforehand and no order of adding matters (as in FineWeb2: Penedo et al., 2025).
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .filter_config import OFF, FilterConfig
from .filter_rules import RULE_NAMES, RULES, Counts, Rule, rule_values

Histograms = dict[str, dict[str, dict[int, int]]]
"""Language -> rule -> bin -> documents."""


def enabled_rules(config: FilterConfig) -> tuple[Rule, ...]:
    """Return the rules of the families that are on."""
    return tuple(rule for rule in RULES if getattr(config, rule.family).enabled)


def quantile_rules(config: FilterConfig) -> tuple[Rule, ...]:
    """Return the rules whose thresholds need the corpus."""
    wanted = {*config.quantiles.shares, *config.quantiles.transfer}
    return tuple(rule for rule in enabled_rules(config) if rule.name in wanted)


def check_filters(config: FilterConfig) -> None:
    """Raise ValueError for a setting that cannot be meant; it names the setting."""
    for where, names in (
        ("quantiles.shares", config.quantiles.shares),
        ("quantiles.transfer", config.quantiles.transfer),
        *((f"languages.{one}", names) for one, names in config.languages.items()),
    ):
        for name in names:
            if name not in RULE_NAMES:
                raise ValueError(
                    f"filters.{where} names the rule {name!r}, which does not exist; there are "
                    f"{', '.join(RULE_NAMES)}"
                )
            if not getattr(config, name.partition(".")[0]).enabled:
                raise ValueError(
                    f"filters.{where} sets {name}, but filters.{name.partition('.')[0]}.enabled "
                    "is false: set it to true, or leave the rule out"
                )
    for name, share in config.quantiles.shares.items():
        if not 0 <= share < 1:
            raise ValueError(
                f"filters.quantiles.shares of {name} is {share}: it is the share of documents to "
                "drop, so it must be at least 0 and below 1"
            )
    if config.quantiles.transfer and not config.quantiles.reference_language:
        raise ValueError(
            "filters.quantiles.transfer needs filters.quantiles.reference_language, the language "
            "whose thresholds are carried over (eng_Latn, say)"
        )
    for name, score in {"": config.min_language_score, **config.language_scores}.items():
        if not 0 <= score <= 1:
            raise ValueError(
                f"filters.min_language_score{' of ' + name if name else ''} is {score}: it is a "
                "probability, from 0 to 1"
            )


def bin_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of non-negative values: the upper bits of their float32."""
    return (values.astype(np.float32).view(np.int32) >> 12).astype(np.int64)


def bin_value(number: int) -> float:
    """Return the smallest value of a bin."""
    return float(np.array([number << 12], np.int32).view(np.float32)[0])


def count_values(
    rules: Sequence[Rule], counts: Counts, languages: NDArray[np.object_], any_ending: bool
) -> Histograms:
    """Return the histograms of some documents."""
    found: Histograms = {}
    for rule in rules:
        bins = bin_of(rule_values(rule, counts, any_ending))
        for language in sorted(set(languages.tolist())):
            numbers, sizes = np.unique(bins[languages == language], return_counts=True)
            by_rule = found.setdefault(language, {}).setdefault(rule.name, {})
            for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True):
                by_rule[number] = by_rule.get(number, 0) + size
    return found


def add_up(parts: Iterable[Mapping[str, Mapping[str, Sequence[Sequence[int]]]]]) -> Histograms:
    """Add histograms as markers hold them: language -> rule -> [[bin, documents], ...]."""
    total: Histograms = {}
    for part in parts:
        for language, by_rule in part.items():
            for rule, bins in by_rule.items():
                found = total.setdefault(language, {}).setdefault(rule, {})
                for number, size in bins:
                    found[number] = found.get(number, 0) + size
    return total


def quantile(bins: Mapping[int, int], share: float) -> float:
    """Return the value below which a share of the documents lies."""
    wanted, below = share * sum(bins.values()), 0
    for number in sorted(bins):
        below += bins[number]
        if below > wanted:
            return bin_value(number)
    return bin_value(max(bins)) if bins else math.nan


def share_below(bins: Mapping[int, int], value: float) -> float:
    """Return the share of documents whose bin begins below a value."""
    total = sum(bins.values())
    return (
        sum(n for number, n in bins.items() if bin_value(number) < value) / total if total else 0.0
    )


class Thresholds:
    """The threshold of each rule for each language."""

    def __init__(
        self, config: FilterConfig, histograms: Histograms, stop_words: Container[str]
    ) -> None:
        self._config, self._histograms, self._stop_words = config, histograms, stop_words

    def __call__(self, rule: Rule, language: str) -> float:
        """Return a threshold; NaN for a rule that is off."""
        if rule.needs_stop_words and language not in self._stop_words:
            return math.nan
        for name in (language, language.partition("_")[2]):
            own = self._config.languages.get(name, {}).get(rule.name)
            if own is not None:
                return math.nan if own == OFF else own
        set_value: float = getattr(getattr(self._config, rule.family), rule.threshold)
        set_value = math.nan if set_value == OFF else set_value
        quantiles = self._config.quantiles
        bins = self._histograms.get(language, {}).get(rule.name, {})
        if sum(bins.values()) < quantiles.min_documents:
            return set_value
        if rule.name in quantiles.shares:
            share = quantiles.shares[rule.name]
            return quantile(bins, share if rule.is_minimum else 1 - share)
        reference = self._histograms.get(quantiles.reference_language, {}).get(rule.name)
        if rule.name in quantiles.transfer and reference and not math.isnan(set_value):
            if language == quantiles.reference_language:
                return set_value
            return quantile(bins, share_below(reference, set_value))
        return set_value

    def table(self, rules: Sequence[Rule], languages: Iterable[str]) -> dict[str, dict[str, float]]:
        """Return language -> rule -> threshold, for the units and for report.json."""
        return {
            language: {rule.name: self(rule, language) for rule in rules}
            for language in sorted(languages)
        }
