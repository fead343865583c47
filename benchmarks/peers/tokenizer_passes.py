"""Time one tokenizer library over groups of documents; run in the environment that has it.

Usage: python tokenizer_passes.py LIBRARY TOKENIZER.json DOCUMENTS.npz GROUP[,GROUP...]

DOCUMENTS.npz has, for each group G, `G.data` (uint8) and `G.offsets` (int64). Each group meets a
tokenizer just loaded (loading, and a first line, are outside the clock) and is encoded twice.
Prints one JSON object: group -> [seconds of the first pass, of the second, ids, their hash].
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Encode = Callable[[], Any]
FIRST = "first <|endoftext|> <unk> [SEP] e\u0301 \u4f60\u597d"
"""Has whatever a library may make ready when it first meets it."""


def open_gristmill(path: str) -> Callable[[np.ndarray, np.ndarray], tuple[Encode, Callable]]:
    from gristmill.pipeline.tokenizer import Tokenizer

    tokenizer = Tokenizer(path)
    tokenizer.encode_batch([FIRST])

    def prepare(data: np.ndarray, offsets: np.ndarray) -> tuple[Encode, Callable]:
        return lambda: tokenizer.encode(data, offsets), lambda result: result[0]

    return prepare


def open_gigatoken(path: str) -> Callable[[np.ndarray, np.ndarray], tuple[Encode, Callable]]:
    import awkward
    import gigatoken

    tokenizer = gigatoken.Tokenizer(path)
    tokenizer.encode_batch([FIRST.encode()], parallel=False)

    def prepare(data: np.ndarray, offsets: np.ndarray) -> tuple[Encode, Callable]:
        documents = [bytes(data[a:b]) for a, b in itertools.pairwise(offsets)]
        return (
            lambda: tokenizer.encode_batch(documents, parallel=False),
            lambda result: awkward.to_numpy(awkward.flatten(result)),
        )

    return prepare


def open_tokenizers(path: str) -> Callable[[np.ndarray, np.ndarray], tuple[Encode, Callable]]:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(path)
    new = int(tokenizers.__version__.split(".")[0]) >= 1
    # As ours: documents are encoded whole.
    if new:
        tokenizer.truncation = tokenizer.padding = None
    else:
        tokenizer.no_truncation()
        tokenizer.no_padding()
    encode = tokenizer.encode_batch if new else tokenizer.encode_batch_fast
    encode([FIRST], add_special_tokens=False)

    def prepare(data: np.ndarray, offsets: np.ndarray) -> tuple[Encode, Callable]:
        documents = [bytes(data[a:b]).decode() for a, b in itertools.pairwise(offsets)]

        def run() -> list[Any]:
            encodings = encode(documents, add_special_tokens=False)
            return [encoding.ids_array if new else encoding.ids for encoding in encodings]

        return run, lambda result: np.concatenate([np.asarray(ids) for ids in result])

    return prepare


def main() -> None:
    library, path, documents, groups = sys.argv[1:5]
    arrays = np.load(documents)
    opened = {"gristmill": open_gristmill, "gigatoken": open_gigatoken}.get(
        library, open_tokenizers
    )
    results = {}
    for group in groups.split(","):
        encode, to_ids = opened(path)(arrays[f"{group}.data"], arrays[f"{group}.offsets"])
        seconds = []
        for _ in range(2):
            start = time.process_time()
            result = encode()
            seconds.append(time.process_time() - start)
        ids = np.ascontiguousarray(to_ids(result), np.uint32)
        digest = hashlib.blake2b(ids.tobytes(), digest_size=8).hexdigest()
        results[group] = [*seconds, len(ids), digest]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
