"""Run rensa's MinHash from Python on JSON lines and print the seconds of each pass.

Usage: .venv-peers/bin/python rensa_signatures.py FILE REPEATS
Shingles are word 5-grams of the lower-case text, 120 permutations. Of its two ways (a hasher a
document, or all documents in one call) the faster one is printed.
"""

import json
import sys
import time

import rensa

path, repeats = sys.argv[1], int(sys.argv[2])
with open(path, encoding="utf-8") as lines:
    texts = [json.loads(line)["text"] for line in lines]


def shingles(text):
    words = text.lower().split()
    return [" ".join(words[place : place + 5]) for place in range(max(len(words) - 4, 1))]


def one_by_one():
    for text in texts:
        hasher = rensa.RMinHash(num_perm=120, seed=42)
        hasher.update(shingles(text))
        hasher.digest()


def together():
    rensa.RMinHash.digest_matrix_from_token_sets([shingles(text) for text in texts], 120, 42)


for _ in range(repeats):
    times = []
    for way in (one_by_one, together):
        started = time.perf_counter()
        way()
        times.append(time.perf_counter() - started)
    print(min(times))
