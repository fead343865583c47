"""Run datatrove's MinHash signatures on JSON lines and print the seconds of each pass.

Usage: .venv-peers/bin/python datatrove_signatures.py FILE REPEATS
The configuration is datatrove's default (word 5-grams, 14 bands of 8); start-up is not counted.
"""

import json
import sys
import time

from datatrove.data import Document
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig

path, repeats = sys.argv[1], int(sys.argv[2])
with open(path, encoding="utf-8") as lines:
    documents = [Document(text=json.loads(line)["text"], id="") for line in lines]
step = MinhashDedupSignature(output_folder="/tmp", config=MinhashConfig(), language="eng_Latn")
step.get_signature(step.get_shingles(documents[0].text))  # loads the word tokenizer
for _ in range(repeats):
    started = time.perf_counter()
    for document in documents:
        shingles = step.get_shingles(document.text)
        if shingles.size:
            step.get_signature(shingles)
    print(time.perf_counter() - started)
