"""Run text-dedup's MinHash on JSON lines, and write which documents it clusters and keeps.

Usage: .venv-text-dedup/bin/python text_dedup_clusters.py FILE FOLDER
FOLDER/result.json gets `clusters` and `kept` by input order (ids must be 0, 1, ...). The
configuration is its default (5-grams, 256 permutations) at threshold 0.8.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path

from datasets import load_from_disk

path, folder = Path(sys.argv[1]), Path(sys.argv[2])
output = folder / "output"
command = [sys.executable, "-m", "text_dedup.minhash", "--path", "json", "--data_files", str(path)]
command += ["--split", "train", "--cache_dir", str(folder / "cache"), "--output", str(output)]
command += ["--column", "text", "--batch_size", "10000", "--threshold", "0.8", "--debug"]
command += ["--num_proc", "1"]
done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
if done.returncode:
    sys.exit(done.stdout + done.stderr)
kept_ids = {int(number) for number in load_from_disk(str(output))["id"]}
with open(output / "uf.pkl", "rb") as file:
    union_find = pickle.load(file)
num_documents = sum(1 for line in path.open(encoding="utf-8") if line.strip())
parents = getattr(union_find, "parent", union_find)


def root(number):
    while parents.get(number, number) != number:
        number = parents[number]
    return number


result = {
    "clusters": [root(number) for number in range(num_documents)],
    "kept": [number in kept_ids for number in range(num_documents)],
}
(folder / "result.json").write_text(json.dumps(result))
