"""A run's report.json, verdicts and documents in; report.html and DATACARD.md beside them out.

summary -> pages. Both pages follow from files in the output folder alone, so they can be made again
at any time, and are the same bytes for any number of workers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..indexed_dataset.atomic import write_atomically
from .datacard import render_datacard
from .executors import Executor, LocalExecutor
from .progress import Progress
from .report import load_report
from .report_page import TEMPLATES, render_page
from .report_samples import Sample, collect_samples
from .stage import Stage, Unit, UnitResult, file_fingerprint, finished_units, run_stage
from .summary import Summary, SummaryArguments, summarize

SUMMARY_VERSION = 1
PAGES_VERSION = 1

PAGE = "report.html"
CARD = "DATACARD.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class PagesArguments:
    """The work of the one unit of the stage `pages`."""

    output: Path
    summaries: tuple[Path, ...]


def make_pages(output: Path, *, workers: int = 0, progress: Progress | None = None) -> list[Path]:
    """Write the pages of a finished run, where they are not there already; return where they lie.

    Args:
        output: the run's output folder.
        workers: processes; 0: one for each usable CPU.
        progress: what the user sees; bars by default.

    Raises:
        ValueError: the folder holds no report.json, or one of another version.
        UnitError: verdicts or documents cannot be read.
    """
    with LocalExecutor(workers) as executor:
        return write_pages(output, executor, progress or Progress())


def write_pages(output: Path, executor: Executor, progress: Progress) -> list[Path]:
    """Write both pages; report.json, verdicts/, documents/, rejected/ and data/ are read."""
    path = output / "report.json"
    if not path.is_file():
        raise ValueError(
            f"{output} holds no report.json, so there is nothing to make a page of: run "
            f"`gristmill preprocess ... --output {output}` first"
        )
    summaries: tuple[Path, ...] = ()
    inputs: tuple[str, ...] = ()
    if load_report(path).stage != "clean":  # else the verdicts there are of an earlier run
        units = _summary_units(output)
        stage = Stage(name="summary", version=SUMMARY_VERSION, settings=[], function=summarize)
        markers = run_stage(stage, units, output, executor, progress)
        summaries = tuple(unit.arguments.summary for unit in units)
        inputs = tuple(marker.fingerprint for marker in markers.values())
    manifests = sorted((output / "data").glob("*/*.json"))
    unit = Unit(
        name="pages",
        arguments=PagesArguments(output=output, summaries=summaries),
        inputs=(_digest([path, *manifests]), *inputs),
        size_bytes=path.stat().st_size,
    )
    stage = Stage(
        name="pages",
        version=PAGES_VERSION,
        settings=_digest(sorted(TEMPLATES.iterdir())),
        function=render_pages,
    )
    run_stage(stage, [unit], output, executor, progress)
    return [output / PAGE, output / CARD]


def render_pages(arguments: PagesArguments) -> UnitResult:
    """Write the pages from the summaries of all units."""
    output = arguments.output
    report = load_report(output / "report.json")
    summary = Summary()
    for path in arguments.summaries:
        summary.add(Summary.from_json(path.read_bytes()))
    samples: dict[str, list[Sample]] = collect_samples(output, summary)
    write_atomically(output / PAGE, render_page(report, summary, samples))
    write_atomically(output / CARD, render_datacard(report, summary, output))
    return UnitResult(outputs=(output / PAGE, output / CARD))


def _summary_units(output: Path) -> list[Unit]:
    """Return a unit for each file of verdicts."""
    verdict_markers = finished_units(output, "verdicts")
    units = []
    for verdicts in sorted((output / "verdicts").glob("*.parquet")):
        name = verdicts.stem
        documents = output / "documents" / verdicts.name
        if name in verdict_markers:
            inputs = [verdict_markers[name].fingerprint]  # it covers the documents too
        else:  # work/ was removed: the files are known by size and time
            files = (path for path in (verdicts, documents) if path.is_file())
            inputs = [file_fingerprint(path, path.name) for path in files]
        arguments = SummaryArguments(
            documents=documents if documents.is_file() else None,
            verdicts=verdicts,
            summary=output / "work" / "summary" / f"{name}.summary",
        )
        size_bytes = verdicts.stat().st_size
        units.append(
            Unit(name=name, arguments=arguments, inputs=tuple(inputs), size_bytes=size_bytes)
        )
    return units


def _digest(paths: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()
