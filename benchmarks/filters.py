"""Filter decisions and their speed on one core: ours beside datatrove, on the same documents.

Usage: python benchmarks/filters.py FILE.jsonl[.zst] [--decisions FILE]

Prints how often both decide the same, for each family (the published thresholds) and each rule
alone, the documents that differ, and the ratio of times, measured in turn. datatrove comes from
`make peers`. Texts are normalized first, as filters see them. `--decisions` keeps datatrove's
decisions (they take minutes) and uses them when the file is there.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from gristmill import kernels
from gristmill.kernels.statistics_columns import COLUMNS
from gristmill.pipeline.config import CleanConfig
from gristmill.pipeline.filter_config import FilterConfig
from gristmill.pipeline.filter_rules import RULES, rule_values
from gristmill.pipeline.formats import compression_of
from gristmill.pipeline.lines import read_lines
from gristmill.pipeline.normalize import clean_text
from gristmill.pipeline.text_column import text_arrays

ROOT = Path(__file__).resolve().parents[1]
PEER = ROOT / ".venv-peers" / "bin" / "python"
SCRIPT = Path(__file__).parent / "peers" / "datatrove_filters.py"
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
FAMILIES = ("gopher_quality", "gopher_repetition", "c4", "fineweb")
TIMED_BYTES = 1_500_000
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--decisions", type=Path)
    parser.add_argument("--skip-speed", action="store_true")
    options = parser.parse_args()
    texts = read_texts(options.file)
    print(f"{options.file.name}: {len(texts)} documents, {size(texts) / 1e6:.2f} MB, one core")
    theirs = peer_decisions(texts, options.decisions)
    _counts, values, ours = decide(texts)
    print(f"\n{'rule':48} {'same':>8} {'differ':>7} {'we drop':>8} {'they drop':>9}")
    for name, passes in ours.items():
        peer = np.array([row[name] for row in theirs])
        differ = np.flatnonzero(passes != peer)
        print(
            f"{name:48} {100 * np.mean(passes == peer):7.2f}% {len(differ):7} "
            f"{np.sum(~passes):8} {np.sum(~peer):9}"
        )
        if name in values and len(differ):
            shown = ", ".join(f"#{d} {values[name][d]:.4g}" for d in differ[:8].tolist())
            print(f"    our values where it differs: {shown}")
    all_ours = np.all([ours[name] for name in FAMILIES], axis=0)
    all_theirs = np.array([all(row[name] for name in FAMILIES) for row in theirs])
    print(f"{'all four families':48} {100 * np.mean(all_ours == all_theirs):7.2f}%")
    if not options.skip_speed:
        compare_speed([text for text in texts if len(text) < 100_000])


def read_texts(path: Path) -> list[str]:
    texts = []
    for block in read_lines(path, compression_of(str(path))):
        for line in block.data.split(b"\n"):
            if line:
                texts.append(clean_text(json.loads(line)["text"], CleanConfig()))
    return texts


def size(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


def count(data: np.ndarray, offsets: np.ndarray) -> dict[str, np.ndarray]:
    lists = np.zeros(len(offsets) - 1, np.int32)
    rows = kernels.text_statistics(data, offsets, [STOP_WORDS], lists)
    return {name: rows[:, number] for number, name in enumerate(COLUMNS)}


def decide(
    texts: list[str],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return counts, the values that rules compare, and for each family and rule who passes."""
    counts = count(*text_arrays(pa.array(texts, pa.large_string())))
    config = FilterConfig()
    values, passes = {}, {}
    families = {name: np.ones(len(texts), np.bool_) for name in FAMILIES}
    for rule in RULES:
        thresholds = np.full(len(texts), getattr(getattr(config, rule.family), rule.threshold))
        found = rule_values(rule, counts)
        fails = rule.fails(found, thresholds)
        families[rule.family] &= ~fails
        if rule.family != "c4":  # datatrove's C4 filter cannot be asked rule by rule
            values[rule.name], passes[rule.name] = found, ~fails
    any_ending = [
        ~rule.fails(rule_values(rule, counts, any_ending=True), getattr(config.c4, rule.threshold))
        for rule in RULES
        if rule.family == "c4"
    ]
    values["c4"] = counts["c4_sentences"]
    return counts, values, {**families, "c4_any_ending": np.all(any_ending, axis=0), **passes}


def peer_decisions(texts: list[str], path: Path | None) -> list[dict[str, bool]]:
    if path and path.exists():
        lines = path.read_text().splitlines()
    else:
        lines = run_peer(texts, "decisions").splitlines()
        if path:
            path.write_text("\n".join(lines))
    return [json.loads(line) for line in lines]


def run_peer(texts: list[str], mode: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
        file.flush()
        command = [str(PEER), str(SCRIPT), file.name, mode]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compare_speed(texts: list[str]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    chosen, num_bytes = [], 0
    for text in texts[:: max(1, size(texts) // TIMED_BYTES)]:
        chosen.append(text)
        num_bytes += len(text.encode())
    data, offsets = text_arrays(pa.array(chosen, pa.large_string()))
    ratios, rates = [], []
    for _ in range(REPEATS):
        started = time.thread_time()
        for _ in range(10):
            found = count(data, offsets)
            for rule in RULES:
                rule.fails(rule_values(rule, found), np.zeros(len(chosen)))
        seconds = (time.thread_time() - started) / 10
        theirs = json.loads(run_peer(chosen, "seconds"))
        rates.append((num_bytes / seconds / 1e6, num_bytes / sum(theirs.values()) / 1e6))
        ratios.append(sum(theirs.values()) / seconds)
    print(f"\nspeed on {len(chosen)} documents, {num_bytes / 1e6:.2f} MB: statistics and rules")
    print(f"gristmill  {statistics.median(ours for ours, _ in rates):8.2f} MB/s")
    print(f"datatrove  {statistics.median(theirs for _, theirs in rates):8.2f} MB/s")
    print(f"ratio      {statistics.median(ratios):8.1f} (median of {REPEATS} pairs)")


if __name__ == "__main__":
    main()
