"""Anyone's files flow in, their documents without copies, and a verdict for each one, flow out.

What `gristmill dedup` runs: reading and cleaning, dedup, and the stage `kept`, which writes
OUTPUT/kept: the documents that were kept, with the size of the cluster that each stands for.
`gristmill preprocess --write-kept` writes them too, without the passages that are cut.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from ..indexed_dataset.atomic import atomic_path
from .config import CleanConfig, DedupConfig, PreprocessConfig, SourceConfig
from .executors import Executor, advance
from .filter_verdicts import TEXT_BYTES
from .kept_documents import read_kept
from .passage_cuts import Cuts, apply_cuts
from .progress import Progress
from .report import Report
from .stage import Marker, Stage, Unit, UnitResult, run_stage

VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptArguments:
    """What one unit of the stage `kept` gets."""

    documents: Path
    verdicts: Path
    cuts: Path | None
    """Ranges that are left out of the texts."""
    kept: Path
    """The file to write."""


def dedup_files(
    inputs: Sequence[str],
    output: Path,
    *,
    text_key: str = "text",
    id_key: str = "id",
    language: str = "",
    columns: Sequence[str] = (),
    clean: CleanConfig | None = None,
    dedup: DedupConfig | None = None,
    workers: int = 0,
    check_space: bool = True,
    console: Console | None = None,
) -> Report:
    """Write the documents of some files without their copies, and a verdict for every document.

    Args:
        inputs: files, folders and globs. Each folder is a source of its own, all files are one.
        output: folder for everything that is written; run again with the same one to resume.
        text_key, id_key, language, columns: as in `SourceConfig`.
        clean, dedup: how texts are cleaned, and which are copies; None: the defaults.
        workers: processes; 0: one for each usable CPU. Changes no byte of the output.
        check_space: refuse to begin what will not fit on the disk or into memory.
        console: where tables go; standard output by default.

    Raises:
        ValueError, FileNotFoundError: something in the options or the input cannot be used.
        UnitError: a unit of work failed. Finished units are kept; run again to go on.
    """
    from .recipe import preprocess  # which imports this module

    config = PreprocessConfig(
        sources=tuple(
            SourceConfig(
                path=path,
                text_key=text_key,
                id_key=id_key,
                language=language,
                columns=tuple(columns),
            )
            for path in _sources_of(inputs)
        ),
        clean=clean or CleanConfig(),
        dedup=dedup or DedupConfig(),
    )
    return preprocess(
        config,
        output=output,
        workers=workers,
        until="dedup",
        write_kept=True,
        check_space=check_space,
        console=console,
    )


def run_kept(
    output: Path,
    clean: Mapping[str, Marker],
    verdicts: Mapping[str, Marker],
    cuts: Mapping[str, Marker],
    executor: Executor,
    progress: Progress,
) -> dict[str, Marker]:
    """Write the kept documents of every unit to OUTPUT/kept; return the units' markers.

    Args:
        cuts: markers of `passages`; none: texts are whole.
    """
    units = []
    for name, marker in clean.items():
        documents = f"documents/{name}.parquet"
        size_bytes = dict(marker.outputs).get(documents)
        if size_bytes is None:
            continue
        arguments = KeptArguments(
            documents=output / documents,
            verdicts=output / "verdicts" / f"{name}.parquet",
            cuts=output / "cuts" / f"{name}.parquet" if name in cuts else None,
            kept=output / "kept" / f"{name}.parquet",
        )
        markers = [marker, verdicts[name], *([cuts[name]] if name in cuts else [])]
        inputs = tuple(one.fingerprint for one in markers)
        units.append(Unit(name=name, arguments=arguments, inputs=inputs, size_bytes=size_bytes))
    stage = Stage(name="kept", version=VERSION, settings=[], function=write_kept)
    return run_stage(stage, units, output, executor, progress)


def write_kept(arguments: KeptArguments) -> UnitResult:
    """Write the kept documents of one unit: all their columns, and `cluster_size`.

    Passages that are cut are left out of the text, and of `text_bytes` where that column is there
    (other columns stay those of the whole text); a document of which nothing is left goes.
    """
    schema = pq.read_schema(arguments.documents)
    schema = schema.remove_metadata().append(pa.field("cluster_size", pa.int64(), nullable=False))
    columns = [name for name in schema.names if name != "cluster_size"]
    cuts = Cuts.load(arguments.cuts) if arguments.cuts else None
    num_kept = 0
    with (
        atomic_path(arguments.kept) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for batch in read_kept(arguments.documents, arguments.verdicts, columns):
            sizes = pa.array(batch.cluster_sizes)
            kept = batch.table.append_column(schema.field("cluster_size"), sizes)
            if cuts is not None:
                kept, lost = apply_cuts(kept, batch.rows, cuts)
                if TEXT_BYTES in columns:
                    place = kept.schema.get_field_index(TEXT_BYTES)
                    left = pc.subtract(kept[TEXT_BYTES], pa.array(lost))
                    kept = kept.set_column(place, kept.schema.field(place), left)
                kept = kept.filter(pc.greater(pc.binary_length(kept["text"]), 0))
            num_kept += kept.num_rows
            if kept.num_rows:
                writer.write_table(kept.cast(schema), row_group_size=kept.num_rows)
            advance(batch.table.nbytes)
    return UnitResult(counts={"documents": num_kept}, outputs=(arguments.kept,))


def _sources_of(inputs: Sequence[str]) -> list[str | tuple[str, ...]]:
    """Return the paths of each source: a folder alone, all files and globs together."""
    folders: list[str | tuple[str, ...]] = []
    files = []
    for path in inputs:
        if os.path.isdir(os.path.expanduser(path)):
            folders.append(path)
        else:
            files.append(path)
    return [*folders, tuple(files)] if files else folders
