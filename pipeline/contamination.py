"""Clean documents and evaluation data in; which documents hold which of it, out.

Two stages: `evaluations` hashes the evaluation data into an index (see `evaluation_index`), and
`contamination` searches each unit's documents for it and writes

```
contamination/UNIT.parquet     a row for each document and evaluation row that match: MATCH_SCHEMA
work/contamination/UNIT.npy    RANGE[n]: the bytes of documents that are shared, joined
```
What becomes of such documents is decided by `filters` (dropped) and `passages` (cut). All documents
are searched, also those that filters or dedup drop, so that other thresholds search nothing again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from .. import kernels
from ..indexed_dataset.atomic import atomic_path
from .array_files import save_array
from .config import PreprocessConfig
from .contamination_matches import Matches, hit_ranges, match_rows
from .decontamination_config import DecontaminationConfig
from .evaluation_files import find_evaluations
from .evaluation_index import EvaluationIndex, IndexArguments, window_weights, write_index
from .executors import Executor
from .filter_config import FilterConfig
from .input_files import open_input
from .progress import Progress
from .stage import Marker, Stage, Unit, UnitResult, finished_units, run_stage
from .text_column import read_all_rows, text_arrays

logger = logging.getLogger(__name__)

VERSIONS = {"evaluations": 1, "contamination": 1}
"""Raised by hand when a stage's output changes."""

FOLDER = "contamination"

MAX_ROWS_A_DOCUMENT = 100
"""Matches of one document that are written, those of the largest shares; `matches` counts all."""

PASSAGE_BYTES = 400
"""Beginning of the longest shared passage that is written with a match."""

RANGE = np.dtype([("row", "<i8"), ("start", "<u4"), ("end", "<u4")])
"""Bytes of the document at a row of documents/UNIT.parquet."""

MATCH_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # of the document in documents/UNIT.parquet
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("origin_file", pa.string(), nullable=False),
        pa.field("origin_offset", pa.int64(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("matches", pa.int64(), nullable=False),  # evaluation rows that the document holds
        pa.field("evaluation_file", pa.string(), nullable=False),  # SET/FILE
        pa.field("evaluation_row", pa.int64(), nullable=False),  # line, or row of the table, from 0
        pa.field("evaluation_tokens", pa.int64(), nullable=False),
        pa.field("covered_tokens", pa.int64(), nullable=False),  # of them, in shared passages
        pa.field("share", pa.float64(), nullable=False),  # the ratio of the two
        pa.field("longest_run", pa.int64(), nullable=False),  # tokens of the longest passage
        pa.field("start", pa.int64(), nullable=False),  # its bytes in the clean text: from
        pa.field("end", pa.int64(), nullable=False),  # up to but not including
        pa.field("passage", pa.string(), nullable=False),  # its beginning
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchArguments:
    """The work of one unit of the stage `contamination`."""

    documents: Path
    index: Path
    names: tuple[str, ...]
    """Names of the evaluation files, in the order that the index counts them in."""
    words: int
    short_words: int
    min_share: float
    matches: Path
    ranges: Path


def is_on(config: DecontaminationConfig) -> bool:
    """Say whether there is evaluation data to look for."""
    return bool(config.evaluations)


def is_cut(config: FilterConfig) -> bool:
    """Say whether shared passages are left out of the token files."""
    settings = config.decontamination
    return is_on(settings) and settings.action == "cut" and config.mode == "drop"


def check_decontamination(config: DecontaminationConfig) -> None:
    """Raise ValueError or FileNotFoundError for settings and files that cannot be used."""
    where = "filters.decontamination"
    if not 1 <= config.words <= 1_000:
        raise ValueError(
            f"{where}.words is {config.words}: it must be from 1 to 1000 (13 is usual)"
        )
    if config.short_words < 1:
        raise ValueError(f"{where}.short_words is {config.short_words}: it must be 1 or more")
    if not 0 <= config.min_share <= 1:
        raise ValueError(
            f"{where}.min_share is {config.min_share}: it is a share of an evaluation row, from 0 "
            "(one match is enough) to 1"
        )
    for one in find_evaluations(config.evaluations):
        with open_input(one.file.input):
            pass


def run(
    config: PreprocessConfig,
    output: Path,
    documents: Mapping[str, tuple[Path, str]],
    executor: Executor,
    progress: Progress,
) -> dict[str, Marker]:
    """Search all documents; return the markers of the search by unit, none where it is off.

    Args:
        documents: unit -> its file of clean documents, and the fingerprint of it.

    Counts of a marker: `contaminated`, [evaluation file, documents that match it].
    """
    settings = config.filters.decontamination
    if not is_on(settings):
        for name in VERSIONS:  # what an earlier run found is removed
            if finished_units(output, name):
                nothing = Stage(name=name, version=0, settings=[], function=search_unit)
                run_stage(nothing, [], output, executor, progress)
        return {}
    files = find_evaluations(settings.evaluations)
    index = output / "work" / "evaluations"
    cut = [settings.words, settings.short_words]
    clean = replace(config.clean, unit_bytes=1)
    form = {"unicode_form", "newlines", "control_characters", "mojibake", "strip"}
    stage = Stage(
        name="evaluations",
        version=VERSIONS["evaluations"],
        settings=[cut, {name: value for name, value in asdict(clean).items() if name in form}],
        function=write_index,
    )
    unit = Unit(
        name="index",
        arguments=IndexArguments(
            files=tuple(files),
            words=settings.words,
            short_words=settings.short_words,
            clean=clean,
            index=index,
        ),
        inputs=tuple(one.digest() for one in files),
        size_bytes=sum(one.file.size_bytes for one in files),
    )
    made = run_stage(stage, [unit], output, executor, progress)["index"]
    for name, rows, used, _ in made.counts["files"]:
        if used < rows:
            logger.warning("%s: %d of %d rows have no text to look for", name, rows - used, rows)
    stage = Stage(
        name=FOLDER,
        version=VERSIONS["contamination"],
        settings=[cut, settings.min_share],
        function=search_unit,
    )
    units = [
        Unit(
            name=name,
            arguments=SearchArguments(
                documents=path,
                index=index,
                names=tuple(one.name for one in files),
                words=settings.words,
                short_words=settings.short_words,
                min_share=settings.min_share,
                matches=output / FOLDER / f"{name}.parquet",
                ranges=ranges_file(output, name),
            ),
            inputs=(found, made.fingerprint),
            size_bytes=path.stat().st_size,
        )
        for name, (path, found) in documents.items()
    ]
    return run_stage(stage, units, output, executor, progress)


def ranges_file(output: Path, unit: str) -> Path:
    """Return where the shared bytes of a unit's documents stand."""
    return output / "work" / FOLDER / f"{unit}.npy"


def contaminated_rows(matches: Path) -> NDArray[np.int64]:
    """Return the rows of documents/UNIT.parquet that match, by contamination/UNIT.parquet."""
    rows: NDArray[np.int64] = np.unique(pq.read_table(matches, columns=["row"])["row"].to_numpy())
    return rows


def search_unit(arguments: SearchArguments) -> UnitResult:
    """Search the documents of one unit and write its two files."""
    index, names = EvaluationIndex.load(arguments.index), arguments.names
    wanted = (index.windows, index.anchors, index.wholes, index.shorts["length"].astype(np.int64))
    weights = window_weights(arguments.words, arguments.short_words)
    documents_of: Counter[str] = Counter()
    ranges: list[NDArray[np.void]] = [np.zeros(0, RANGE)]
    first_row = 0
    columns = ["text", *(name for name in MATCH_SCHEMA.names[1:6])]
    with (
        atomic_path(arguments.matches) as temporary,
        pq.ParquetWriter(temporary, MATCH_SCHEMA, compression="zstd") as writer,
    ):
        for table in read_all_rows(arguments.documents, columns):
            data, offsets = text_arrays(table["text"])
            hits = kernels.find_windows(data, offsets, *weights, *wanted)
            matches = match_rows(hits, index)
            share = matches.covered / np.maximum(index.rows["tokens"][matches.rows], 1)
            is_found = share >= arguments.min_share
            found = np.unique(matches.documents[is_found])
            if len(found):
                writer.write_table(
                    _rows(table, first_row, (data, offsets), matches, is_found, share, index, names)
                )
                pairs = np.stack([matches.documents, index.rows["file"][matches.rows]], axis=1)
                for file in np.unique(pairs[is_found], axis=0)[:, 1].tolist():
                    documents_of[names[file]] += 1
                documents, starts, ends = hit_ranges(hits, np.isin(hits[0], found))
                part = np.zeros(len(documents), RANGE)
                part["row"] = documents + first_row
                part["start"], part["end"] = starts - offsets[documents], ends - offsets[documents]
                ranges.append(part)
            first_row += table.num_rows
    save_array(arguments.ranges, np.concatenate(ranges))
    counts: dict[str, Any] = {"contaminated": sorted([*one] for one in documents_of.items())}
    return UnitResult(counts=counts, outputs=(arguments.matches, arguments.ranges))


def _rows(
    table: pa.Table,
    first_row: int,
    texts: tuple[NDArray[np.uint8], NDArray[np.int64]],
    matches: Matches,
    is_found: NDArray[np.bool_],
    share: NDArray[np.float64],
    index: EvaluationIndex,
    names: tuple[str, ...],
) -> pa.Table:
    """Return rows of MATCH_SCHEMA of the matches that are found."""
    data, offsets = texts
    chosen = np.flatnonzero(is_found)
    documents = matches.documents[chosen]
    order = np.lexsort((matches.rows[chosen], -share[chosen], documents))
    chosen, documents = chosen[order], documents[order]
    firsts = np.searchsorted(documents, documents, side="left")
    total = np.searchsorted(documents, documents, side="right") - firsts
    few = np.arange(len(documents)) - firsts < MAX_ROWS_A_DOCUMENT
    chosen, documents, total = chosen[few], documents[few], total[few]
    rows = index.rows[matches.rows[chosen]]
    starts, ends = matches.starts[chosen], matches.ends[chosen]
    passages = [
        data[start : min(end, start + PASSAGE_BYTES)].tobytes().decode("utf-8", "ignore")
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    ]
    taken = table.take(pa.array(documents))
    columns = {
        **{name: taken[name] for name in MATCH_SCHEMA.names[1:6]},
        "row": documents + first_row,
        "matches": total,
        "evaluation_file": pa.array(names).take(pa.array(rows["file"])),
        "evaluation_row": rows["number"],
        "evaluation_tokens": rows["tokens"],
        "covered_tokens": matches.covered[chosen],
        "share": share[chosen],
        "longest_run": matches.longest[chosen],
        "start": starts - offsets[documents],
        "end": ends - offsets[documents],
        "passage": passages,
    }
    return pa.table([columns[name] for name in MATCH_SCHEMA.names], schema=MATCH_SCHEMA)
