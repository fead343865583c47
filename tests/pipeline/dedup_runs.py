"""Runs of dedup on texts, and texts of known similarity: what the tests of dedup share."""

import hashlib
import json

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.pipeline import dedup
from gristmill.pipeline.config import DedupConfig, PreprocessConfig, SourceConfig
from gristmill.pipeline.documents import VERDICT_SCHEMA, document_schema
from gristmill.pipeline.executors import LocalExecutor
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.stage import Marker

STARTS, ENDS = ["ba", "ke", "mi", "so", "tu", "ra", "ne", "vo"], ["lan", "dor", "pit", "sum"]
WORDS = [start + end for start in STARTS for end in ENDS]


def make_text(rng, num_words):
    return " ".join(rng.choice(WORDS) for _ in range(num_words))


def edit(rng, text, num_edits):
    """Replace words; each costs up to five shingles of a long text."""
    words = text.split()
    for place in rng.sample(range(len(words)), num_edits):
        words[place] = f"new{rng.randrange(10**6)}"
    return " ".join(words)


def document_id(text):
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


class Run:
    """A folder with clean documents, as the stage `clean` leaves it."""

    def __init__(self, output):
        self.output = output
        self.markers = {}
        (output / "documents").mkdir(parents=True, exist_ok=True)
        (output / "rejected").mkdir(exist_ok=True)

    def add(
        self, unit, texts, rejected=(), rows_per_group=3, source="web", languages=None, **columns
    ):
        path = self.output / "documents" / f"{unit}.parquet"
        rows = [
            {
                "id": document_id(text),
                "input_id": f"{unit}-{row}",
                "text": text,
                "language": languages[row] if languages else "eng_Latn",
                "source": source,
                "origin_file": f"{unit}.jsonl",
                "origin_offset": row,
                **{name: values[row] for name, values in columns.items()},
            }
            for row, text in enumerate(texts)
        ]
        table = pa.Table.from_pylist(rows, schema=document_schema(list(columns)))
        pq.write_table(table, path, row_group_size=rows_per_group)
        outputs = [(f"documents/{unit}.parquet", path.stat().st_size)]
        if rejected:
            reject_file = self.output / "rejected" / f"{unit}.jsonl"
            reject_file.write_text("".join(json.dumps(row) + "\n" for row in rejected))
            outputs.append((f"rejected/{unit}.jsonl", reject_file.stat().st_size))
        content = json.dumps([texts, list(rejected), source, languages, columns])
        self.markers[unit] = Marker(
            unit=unit,
            fingerprint=hashlib.blake2b(content.encode()).hexdigest(),
            counts={},
            outputs=tuple(outputs),
        )
        return self

    def dedup(self, workers=1, **settings):
        """Run dedup; return the rows of all verdicts."""
        self.run(workers, **settings)
        return self.verdicts()

    def scratch(self):
        """Return the files below work/ that are no markers."""
        files = (self.output / "work").rglob("*")
        return sorted(str(f) for f in files if f.is_file() and f.suffix != ".json")

    def run(self, workers=1, keep_scratch=False, **settings):
        """Run dedup."""
        config = PreprocessConfig(
            sources=(SourceConfig(path="."),), dedup=DedupConfig(**{"partitions": 3, **settings})
        )
        with LocalExecutor(workers) as executor:
            self.verdict_markers = dedup.run(
                config, self.output, self.markers, executor, Progress(quiet=True), keep_scratch
            )

    def reasons(self, **settings):
        """Run dedup; return the reason of each document, None where it was kept."""
        return [row["reason"] for row in self.dedup(**settings)]

    def verdicts(self):
        rows = []
        for unit in self.markers:
            table = pq.read_table(self.output / "verdicts" / f"{unit}.parquet")
            assert table.schema.equals(VERDICT_SCHEMA)
            rows += table.to_pylist()
        return rows

    def verdict_bytes(self):
        return {
            path.name: path.read_bytes() for path in (self.output / "verdicts").glob("*.parquet")
        }
