"""Masks of a sample of 512 tokens: ours beside those of Megatron's BERTMaskedWordPieceDataset.

    python benchmarks/masking.py

Both choose 15 % of a WordPiece-like vocabulary's tokens, whole words, 80/10/10, from a seed and the
sample's number. Megatron's masking is called as its dataset calls it (megatron-core, of the extra
`test`); it is timed for single words, and with the n-grams of up to three words that are its
default. CPU time of one thread; ratios are medians of paired rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from gristmill.indexed_dataset import Masking

LENGTH, SHARE, SEED = 512, 0.15, 1234
NUM_IDS, CLS, SEP, MASK = 30_522, 101, 102, 103
CONTINUING_SHARE = 0.2  # of tokens, as of English text in BERT's vocabulary
ROUNDS, BATCH = 15, 32


def vocabulary() -> tuple[dict[int, str], np.ndarray]:
    chance = np.random.default_rng(0)
    continues = chance.random(NUM_IDS) < CONTINUING_SHARE
    continues[[CLS, SEP, MASK]] = False
    return {n: f"##{n}" if continues[n] else str(n) for n in range(NUM_IDS)}, continues


def samples(number: int) -> np.ndarray:
    tokens = np.random.default_rng(1).integers(999, NUM_IDS, (number, LENGTH))
    tokens[:, 0], tokens[:, -1] = CLS, SEP
    return tokens


def megatron(texts: dict[int, str], most_words: int) -> Callable[[np.ndarray, int], Any]:
    """Return Megatron's masking of one sample, without its files."""
    from megatron.core.datasets.bert_dataset import BERTMaskedWordPieceDataset

    dataset: Any = object.__new__(BERTMaskedWordPieceDataset)
    dataset.token_lookup = list(texts)
    dataset.config = SimpleNamespace(
        tokenizer=SimpleNamespace(cls=CLS, sep=SEP, mask=MASK, inv_vocab=texts),
        masking_probability=SHARE,
        masking_max_ngram=most_words,
        masking_do_full_word=True,
        masking_do_permutation=False,
        masking_use_longer_ngrams=False,
        masking_use_geometric_distribution=False,
    )

    def mask(tokens: np.ndarray, number: int) -> Any:
        chance = np.random.RandomState((SEED + number) % 2**32)
        return dataset._create_masked_lm_predictions(tokens.tolist(), LENGTH, chance)

    return mask


def seconds(run: Callable[[], Any], times: int) -> float:
    start = time.thread_time()
    for _ in range(times):
        run()
    return (time.thread_time() - start) / times


def main() -> None:
    texts, continues = vocabulary()
    special = np.zeros(NUM_IDS, dtype=bool)
    special[[CLS, SEP, MASK]] = True
    ours = Masking(special, MASK, SEED, SHARE, continues=continues)
    tokens = samples(BATCH)
    everywhere = np.ones(tokens.shape, dtype=bool)
    peers = {f"megatron, up to {n} words": megatron(texts, n) for n in (1, 3)}
    _, chosen = ours(tokens, everywhere, np.arange(BATCH))
    shares = {"ours": chosen.sum() / tokens.size}
    for name, mask in peers.items():
        found = sum(len(mask(row, number)[1]) for number, row in enumerate(tokens))
        shares[name] = found / tokens.size
    print("share of masked tokens:", ", ".join(f"{n} {s:.3f}" for n, s in shares.items()))
    ratios: dict[str, list[float]] = {name: [] for name in peers}
    times: dict[str, list[float]] = {name: [] for name in ("ours", "ours, 32 at once", *peers)}
    for number in range(ROUNDS):
        row, one = tokens[number : number + 1], everywhere[:1]
        own = seconds(lambda row=row, one=one, n=number: ours(row, one, [n]), 400)
        times["ours"].append(own)
        batch = seconds(lambda: ours(tokens, everywhere, range(BATCH)), 20) / BATCH
        times["ours, 32 at once"].append(batch)
        for name, mask in peers.items():
            peer = seconds(lambda mask=mask, n=number: mask(tokens[n], n), 3)
            times[name].append(peer)
            ratios[name].append(peer / own)
    for name, found in times.items():
        line = f"{name:24} {1e6 * statistics.median(found):10.1f} microseconds a sample"
        if name in ratios:
            line += f", {statistics.median(ratios[name]):,.0f} times ours"
        print(line)


if __name__ == "__main__":
    main()
