"""Special tokens that texts spell out: encoded ids in, how often each token is among them out.

A text that holds the characters `<|endoftext|>` gets that token's id by default, as with
`tokenizers`: a document then seems to end where it does not. So they are counted, and the user is
told; `special_strings = "as_text"` encodes them as any other text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .tokenizer import Tokenizer


class SpecialStrings:
    """Counts special tokens in what a tokenizer gave.

    Args:
        tokenizer: its special tokens are counted.
        add_special_tokens: whether it was asked to add some itself; those are not counted.
    """

    def __init__(self, tokenizer: Tokenizer, *, add_special_tokens: bool = False) -> None:
        self._names = {number: name for name, number in tokenizer.special_ids.items()}
        self._ids = np.array(sorted(self._names), np.int64)
        self._added: Counter[str] = Counter()
        if add_special_tokens and self._names:
            around, alone = (tokenizer.encode_batch(["a"], added)[0] for added in (True, False))
            self._added = self._by_name(around) - self._by_name(alone)
        # Nearly always one look at the smallest and the largest id is enough: special ids lie at
        # the ends of a vocabulary, so the largest gap between two of them holds the ordinary ones.
        edges = np.concatenate([[-1], self._ids, [np.iinfo(np.int64).max]])
        widest = int(np.argmax(np.diff(edges)))
        self._low, self._high = int(edges[widest]), int(edges[widest + 1])

    def count(
        self, tokens: NDArray[Any], low: int, high: int, *, num_documents: int
    ) -> Counter[str]:
        """Return how often each special token was spelled out in some documents.

        Args:
            tokens: integer[num_tokens], as the tokenizer gave them.
            low: the smallest of them (anything if there are none).
            high: the largest.
            num_documents: how many there are.
        """
        if len(tokens) == 0 or self._low < low <= high < self._high:
            return Counter()
        found = self._by_name(tokens[(tokens <= self._low) | (tokens >= self._high)])
        return found - Counter({name: n * num_documents for name, n in self._added.items()})

    def _by_name(self, tokens: NDArray[Any]) -> Counter[str]:
        special = tokens[np.isin(tokens, self._ids)]
        numbers, counts = np.unique(special, return_counts=True)
        pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
        return Counter({self._names[number]: count for number, count in pairs})


def describe_special(counts: Mapping[str, int], largest: int = 5) -> str:
    """Return "12 x <|endoftext|>, 3 x <|im_end|>", the most frequent first."""
    ranked = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    named = ", ".join(f"{count} x {name}" for name, count in ranked[:largest])
    return named + (f" and {len(ranked) - largest} others" if len(ranked) > largest else "")
