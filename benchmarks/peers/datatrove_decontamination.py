"""Run datatrove's n-gram decontamination on JSON lines; one JSON object comes out.

Usage: .venv-peers/bin/python datatrove_decontamination.py EVALUATION TEXTS NGRAMS

{"seconds": of one pass over the texts, loading of the index left out, "removed": [true, ...]}. The
index has the n-grams of the evaluation texts, made by the filter's own words and hash: its indexer
needs lighteval.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.utils.text import ngrams, simplify_text


def read(path):
    return [json.loads(line)["text"] for line in Path(path).read_text().splitlines()]


evaluation, texts, words = read(sys.argv[1]), read(sys.argv[2]), int(sys.argv[3])
with tempfile.TemporaryDirectory() as folder:
    config = NGramsDecontConfig(n_grams=words)
    decontaminate = NGramsDecontFilter(folder, config=config)
    hashes = set()
    for text in evaluation:
        tokens = decontaminate.tokenizer.word_tokenize(simplify_text(text, config.norm_config))
        hashes.update(decontaminate.hash_func(" ".join(n)) for n in ngrams(tokens, words))
    np.array(sorted(hashes), config.hash_config.np_descr).tofile(f"{folder}/task.index.hashes")
    decontaminate.filter(Document(text="warm", id="0"))
    started = time.process_time()
    passed = [decontaminate.filter(Document(text=text, id="0")) for text in texts]
    seconds = time.process_time() - started
print(json.dumps({"seconds": seconds, "removed": [one is not True for one in passed]}))
