"""Run datatrove's four MinHash stages on JSON lines or Parquet; write clusters, print seconds.

Usage: .venv-peers/bin/python datatrove_clusters.py FILE FOLDER
FOLDER/result.json gets `clusters`, `kept` (by input order; ids must be 0, 1, ...) and `seconds` of
each stage. The configuration is datatrove's default (English words, 5-grams, 14 bands of 8).
Start-up is not counted.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader, ParquetReader
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger

logger.remove()
path, folder = Path(sys.argv[1]), Path(sys.argv[2])
config = MinhashConfig()
kind = ParquetReader if path.suffix == ".parquet" else JsonlReader
reader = kind(str(path.parent), glob_pattern=path.name)
seconds = {}


def timed(name, call):
    started = time.process_time()
    call()
    seconds[name] = time.process_time() - started


signature = MinhashDedupSignature(str(folder / "signatures"), config=config, language="eng_Latn")
signature.get_signature(signature.get_shingles("some words of a text to load the tokenizer"))
buckets = MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config)
cluster = MinhashDedupCluster(
    str(folder / "buckets"), str(folder / "removed"), config=config, save_cluster_id=True
)
output = JsonlWriter(str(folder / "kept"), compression=None)
drop = MinhashDedupFilter(
    str(folder / "removed"),
    exclusion_writer=JsonlWriter(str(folder / "dropped"), compression=None),
    load_cluster_ids=True,
)


def filter_documents():
    with output:
        for document in drop.run(reader.run(), 0, 1):
            output.write(document)


timed("signatures", lambda: signature.run(reader.run(), 0, 1))


def run_buckets():
    for rank in range(config.num_buckets):
        buckets.run(None, rank, config.num_buckets)


timed("buckets", run_buckets)
timed("cluster", lambda: cluster.run(None, 0, 1))
timed("filter", filter_documents)

clusters, kept = {}, {}
for name, is_kept in (("kept", True), ("dropped", False)):
    for file in (folder / name).rglob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            number = int(document["id"])
            kept[number] = is_kept
            cluster_id = document["metadata"].get("minhash_cluster_id", -1)
            clusters[number] = f"c{cluster_id}" if cluster_id not in (-1, None) else f"d{number}"
numbers = range(len(kept))
result = {
    "clusters": [clusters[number] for number in numbers],
    "kept": [kept[number] for number in numbers],
    "seconds": seconds,
}
(folder / "result.json").write_text(json.dumps(result))
print(json.dumps(seconds))
