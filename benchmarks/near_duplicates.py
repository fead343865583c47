"""Near-duplicates with labels: what each tool merges, beside brute force and the labels.

Usage: python benchmarks/near_duplicates.py [FOLDER of *.jsonl.zst with `text`, `lang`, `group`]
(default: ../shared/corpora/neardup). The peers come from `make peers`; without them only our rows
are printed. A file is one corpus. Columns:

- J>=t: pairs within a label group whose shingle sets have Jaccard 0.8 or more, by brute force, and
  the share of them of which at most one document was kept;
- wrong: documents removed for one of another label group with a similarity below 0.8;
- precision, recall, ARI: clusters against labels, over pairs;
- lost: documents removed while no document of their label group was kept;
- removed: all removed documents.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill import kernels
from gristmill.pipeline import PreprocessConfig, preprocess
from gristmill.pipeline.config import SourceConfig
from gristmill.pipeline.formats import compression_of
from gristmill.pipeline.lines import read_lines
from gristmill.pipeline.text_column import text_arrays

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ROOT.parent / "shared" / "corpora" / "neardup"
PEERS = ROOT / ".venv-peers" / "bin" / "python"
THRESHOLD = 0.8


@dataclass(frozen=True)
class Corpus:
    """One labelled file."""

    name: str
    texts: list[str]
    languages: list[str]
    groups: list[str]


@dataclass(frozen=True)
class Outcome:
    """What a tool made of a corpus: a cluster and a verdict for each document."""

    clusters: Sequence[object]
    kept: np.ndarray


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    print(
        f"{'corpus':<20} {'tool':<12} {'J>=0.8':>8} {'recall':>7} {'wrong':>6} {'precision':>9} "
        f"{'recall':>7} {'ARI':>6} {'lost':>5} {'removed':>8}"
    )
    for path in sorted(folder.glob("*.jsonl*")):
        corpus = read_corpus(path)
        pairs, sets, shifts = similar_pairs(corpus)
        for name, tool in (
            ("gristmill", ours),
            ("datatrove", datatrove),
            ("text-dedup", text_dedup),
        ):
            outcome = tool(corpus)
            if outcome is not None:
                print(row(corpus, name, outcome, pairs, sets), flush=True)


def read_corpus(path: Path) -> Corpus:
    rows = []
    for block in read_lines(path, compression_of(str(path))):
        rows += [json.loads(line) for line in block.data.split(b"\n") if line]
    return Corpus(
        name=path.name.split(".")[0],
        texts=[row["text"] for row in rows],
        languages=[row["lang"] for row in rows],
        groups=[row["group"] for row in rows],
    )


def similar_pairs(corpus: Corpus):
    """Return the in-group pairs at the threshold, by brute force, and all shingle sets."""
    data, offsets = text_arrays(pa.array(corpus.texts, pa.large_string()))
    values, bounds, shifts, _ = kernels.shingle_lists(data, offsets)
    sets = [np.unique(values[a:b]) for a, b in itertools.pairwise(bounds)]
    members = defaultdict(list)
    for number, group in enumerate(corpus.groups):
        members[group].append(number)
    pairs = []
    for those in members.values():
        for left, right in itertools.combinations(those, 2):
            sizes = sorted((len(sets[left]), len(sets[right])))
            if sizes[0] < THRESHOLD * sizes[1]:
                continue
            if kernels.set_jaccard(sets[left], sets[right]) >= THRESHOLD:
                pairs.append((left, right))
    return pairs, sets, shifts


def row(corpus: Corpus, tool: str, outcome: Outcome, pairs, sets) -> str:
    kept, clusters, groups = outcome.kept, outcome.clusters, corpus.groups
    found = sum(not (kept[left] and kept[right]) for left, right in pairs)
    leaders = {cluster: n for n, cluster in enumerate(clusters) if kept[n]}
    wrong = 0
    for number in np.flatnonzero(~kept).tolist():
        leader = leaders.get(clusters[number])
        if leader is not None and groups[leader] != groups[number]:
            wrong += kernels.set_jaccard(sets[leader], sets[number]) < THRESHOLD
    kept_groups = {groups[number] for number in np.flatnonzero(kept).tolist()}
    lost = sum(not k and group not in kept_groups for k, group in zip(kept, groups, strict=True))
    precision, recall, ari = agreement(clusters, groups)
    share = found / len(pairs) if pairs else float("nan")
    return (
        f"{corpus.name:<20} {tool:<12} {len(pairs):>8,} {share:>7.4f} {wrong:>6} {precision:>9.4f} "
        f"{recall:>7.4f} {ari:>6.3f} {lost:>5} {int((~kept).sum()):>8,}"
    )


def agreement(clusters: Sequence[object], labels: Sequence[object]) -> tuple[float, float, float]:
    """Return pairwise precision, pairwise recall and the adjusted Rand index (Hubert, Arabie)."""

    def pairs(counts) -> int:
        return sum(count * (count - 1) // 2 for count in counts)

    both = pairs(Counter(zip(clusters, labels, strict=True)).values())
    ours, theirs = pairs(Counter(clusters).values()), pairs(Counter(labels).values())
    everything = len(labels) * (len(labels) - 1) / 2
    expected = ours * theirs / everything
    ari = (both - expected) / ((ours + theirs) / 2 - expected) if ours + theirs else 1.0
    return (both / ours if ours else 1.0), (both / theirs if theirs else 1.0), ari


def ours(corpus: Corpus) -> Outcome:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"{corpus.name}.jsonl"
        write_jsonl(path, corpus)
        import io

        from rich.console import Console

        config = PreprocessConfig(sources=(SourceConfig(path=str(path)),))
        output = Path(name) / "output"
        preprocess(
            config, output=output, workers=1, until="dedup", console=Console(file=io.StringIO())
        )
        table = pa.concat_tables(
            pq.read_table(file) for file in sorted((output / "verdicts").glob("*.parquet"))
        )
    by_id = {int(row["input_id"]): row for row in table.to_pylist()}
    rows = [by_id[number] for number in range(len(corpus.texts))]
    return Outcome(
        [row["cluster_id"] or n for n, row in enumerate(rows)],
        np.array([row["kept"] for row in rows]),
    )


def write_jsonl(path: Path, corpus: Corpus) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number, (text, lang) in enumerate(zip(corpus.texts, corpus.languages, strict=True)):
            line = {"id": str(number), "text": text, "language": lang}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def peer(corpus: Corpus, script: str) -> Outcome | None:
    """Run a peer's script on a corpus; None where the peer is not installed."""
    if not PEERS.exists():
        return None
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "corpus.jsonl"
        write_jsonl(path, corpus)
        command = [str(PEERS), str(Path(__file__).parent / "peers" / script), str(path), name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{script} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
            return None
        result = json.loads((Path(name) / "result.json").read_text())
    return Outcome(result["clusters"], np.array(result["kept"]))


def datatrove(corpus: Corpus) -> Outcome | None:
    return peer(corpus, "datatrove_clusters.py")


def text_dedup(corpus: Corpus) -> Outcome | None:
    return peer(corpus, "text_dedup_clusters.py")


if __name__ == "__main__":
    main()
