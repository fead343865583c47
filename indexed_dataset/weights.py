"""Weights of a blend: token counts in, whole numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal

from .errors import IndexedDatasetError


def temperature_weights(
    token_counts: Sequence[int], alpha: float, *, total: int = 1_000_000
) -> list[int]:
    """Return whole weights proportional to token_counts ** alpha.

    alpha = 1 takes languages as they come, 0 takes all equally; 0.3 to 0.7 lifts the small ones
    (arXiv 1901.07291, section 3.1; arXiv 1911.02116, section 3.1). Computed in decimal
    arithmetic, so that every machine gets the same numbers.

    Args:
        token_counts: tokens of each dataset, 1 or more.
        alpha: 0 to 1 (above 1 lifts the large ones).
        total: what the weights add up to; each is at least 1.

    Example: temperature_weights([900, 100], 0.5, total=100) == [75, 25].
    """
    if not token_counts or min(token_counts) < 1:
        raise IndexedDatasetError(
            f"the token counts are {list(token_counts)}: each dataset of a blend has one token or "
            "more. Leave the empty ones out"
        )
    if not 0 <= alpha < 100:
        raise IndexedDatasetError(f"alpha is {alpha}; it is a power from 0 (equal) to 1 (as is)")
    if total < len(token_counts):
        raise IndexedDatasetError(
            f"{len(token_counts)} weights cannot add up to {total}: each is at least 1"
        )
    context = Context(prec=50)
    power = Decimal(repr(float(alpha)))
    scores = [context.power(Decimal(int(count)), power) for count in token_counts]
    whole = sum(scores, Decimal(0))
    # Each gets 1, the rest is shared out by largest remainder, ties by place in the list.
    spare = total - len(scores)
    shares = [context.divide(context.multiply(score, Decimal(spare)), whole) for score in scores]
    weights = [1 + int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: (int(shares[i]) - shares[i], i))
    for i in by_remainder[: total - sum(weights)]:
        weights[i] += 1
    return weights
