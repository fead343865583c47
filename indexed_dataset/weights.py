"""Weights of a blend: token counts, shares or manifests in, whole numbers out."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from decimal import Context, Decimal
from fractions import Fraction

from .errors import IndexedDatasetError
from .manifest import DatasetManifest

TOTAL_WEIGHT = 10**9
"""What weights add up to by default: a dataset of 1,000 tokens in a blend of 10**12 is one unit."""

_PRECISE = Context(prec=50)


def temperature_weights(
    token_counts: Sequence[int],
    alpha: float,
    *,
    languages: Sequence[Hashable] | None = None,
    total: int = TOTAL_WEIGHT,
) -> list[int]:
    """Return whole weights: languages by their tokens ** alpha, datasets of one by their tokens.

    alpha = 1 takes languages as they come, 0 takes all equally; 0.3 to 0.7 lifts the small ones
    (arXiv 1901.07291, section 3.1; arXiv 1911.02116, section 3.1). Computed in decimal
    arithmetic, so that every machine gets the same numbers.

    Args:
        token_counts: tokens of each dataset, 1 or more.
        alpha: 0 to 1 (above 1 lifts the large ones).
        languages: what each dataset belongs to; those of one language share its weight. Default:
            each is a language of its own.
        total: what the weights add up to; each is at least 1.

    Raises:
        IndexedDatasetError: a dataset without tokens, alpha out of range, or too small a total.

    Example: temperature_weights([900, 100], 0.5, total=100) == [75, 25], and in
    temperature_weights([800, 100, 100], 0.5, languages=["en", "en", "de"], total=100) the two of
    `en` share 75: [66, 9, 25].
    """
    if not token_counts or min(token_counts) < 1:
        raise IndexedDatasetError(
            f"the token counts are {list(token_counts)}: each dataset of a blend has one token or "
            "more. Leave the empty ones out"
        )
    if not 0 <= alpha < 100:
        raise IndexedDatasetError(f"alpha is {alpha}; it is a power from 0 (equal) to 1 (as is)")
    names = list(range(len(token_counts))) if languages is None else list(languages)
    if len(names) != len(token_counts):
        raise IndexedDatasetError(
            f"there are {len(names)} languages for {len(token_counts)} datasets: give one for each"
        )
    sums: dict[Hashable, int] = {}
    for name, count in zip(names, token_counts, strict=True):
        sums[name] = sums.get(name, 0) + int(count)
    power = Decimal(repr(float(alpha)))
    # tokens of the language ** alpha * (tokens of the dataset / tokens of the language)
    factors = {
        name: _PRECISE.divide(_PRECISE.power(Decimal(count), power), Decimal(count))
        for name, count in sums.items()
    }
    return _share_out(
        [
            _PRECISE.multiply(factors[name], Decimal(int(count)))
            for name, count in zip(names, token_counts, strict=True)
        ],
        total,
    )


def whole_weights(shares: Sequence[float]) -> list[int]:
    """Return the smallest whole weights in exactly the proportions of explicit shares.

    A share counts as it is written (0.1 is one tenth), so nothing is rounded.

    Raises:
        IndexedDatasetError: a negative or infinite share, or none above 0.

    Example: whole_weights([0.5, 0, 1.5]) == [1, 0, 3].
    """
    if not all(0 <= share < math.inf for share in shares) or not any(shares):
        raise IndexedDatasetError(
            f"the shares are {list(shares)}: give each dataset 0 (not drawn) or more, and one of "
            "them more than 0"
        )
    exact = [Fraction(repr(float(share))) for share in shares]
    unit = math.lcm(*(share.denominator for share in exact))
    weights = [int(share * unit) for share in exact]
    factor = math.gcd(*weights)
    return [weight // factor for weight in weights]


def manifest_repeat(name: str, manifests: Sequence[DatasetManifest]) -> int:
    """Return how often the manifests of a dataset's shards ask for it while others are drawn once.

    It stands in `config`: {"blend": {"repeat": 3}}, the same in every shard (`gristmill
    preprocess` writes it where rehydration is on). Without manifests, or where they say none, 1.

    Raises:
        IndexedDatasetError: the shards disagree, or it is no whole number from 1 on.
    """
    found = {_asked(manifest, "repeat") for manifest in manifests} or {None}
    repeat = found.pop() if len(found) == 1 else ""
    if repeat is None:
        return 1
    if isinstance(repeat, int) and repeat >= 1:
        return repeat
    raise IndexedDatasetError(
        f"{name}: the manifests of its shards do not agree on one whole number from 1 on as config "
        '{"blend": {"repeat": ...}}: write them again, or give the weights explicitly'
    )


def manifest_weight(name: str, manifests: Sequence[DatasetManifest]) -> float:
    """Return the share that the manifests of a dataset's shards ask for.

    It stands in `config`: {"blend": {"weight": 2.0}}, the same in every shard of the group, as a
    recommendation of whoever made the data. Where they say a `repeat` instead, the share is their
    tokens as often as that.

    Raises:
        IndexedDatasetError: no manifest says a weight, they disagree, or it is not a number.
    """
    found = {_asked(manifest, "weight") for manifest in manifests} or {None}
    if len(found) == 1:
        weight = found.pop()
        if isinstance(weight, (int, float)) and 0 <= weight < float("inf"):
            return float(weight)
        if weight is None and any(_asked(manifest, "repeat") for manifest in manifests):
            tokens = sum(manifest.num_tokens for manifest in manifests)
            return float(tokens * manifest_repeat(name, manifests))
        found = {weight}
    raise IndexedDatasetError(
        f"{name}: the manifests of its shards say the blend weights {sorted(map(str, found))}, but "
        'one number from 0 on in all of them was expected, in config: {"blend": {"weight": 2.0}}. '
        "Write the datasets with one, or give the weights explicitly"
    )


def language_of(name: str, manifests: Sequence[DatasetManifest]) -> str:
    """Return the language of a dataset: the only one in its manifests, else the dataset's name."""
    languages = {language for manifest in manifests for language in manifest.languages}
    return languages.pop() if len(languages) == 1 else name


def _asked(manifest: DatasetManifest, key: str) -> object:
    """Return what a manifest asks of the blend; None: nothing."""
    blend = manifest.config.get("blend")
    value = blend.get(key) if isinstance(blend, dict) else None
    return repr(value) if isinstance(value, (bool, dict, list)) else value


def _share_out(scores: Sequence[Decimal], total: int) -> list[int]:
    """Return whole numbers from 1 on that add up to `total`, in proportion to the scores.

    Each gets 1, the rest is shared out by largest remainder, ties by place in the list.
    """
    if total < len(scores):
        raise IndexedDatasetError(
            f"{len(scores)} weights cannot add up to {total}: each is at least 1"
        )
    whole = sum(scores, Decimal(0))
    spare = Decimal(total - len(scores))
    shares = [_PRECISE.divide(_PRECISE.multiply(score, spare), whole) for score in scores]
    weights = [1 + int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (int(shares[i]) - shares[i], i))
    for i in by_remainder[: total - sum(weights)]:
        weights[i] += 1
    return weights
