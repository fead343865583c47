"""What a run would do: the configuration in, a page of sizes, memory and times out.

Nothing is written to the output folder. A sample of the input goes through the real stages in a
temporary folder, on one core; the estimates are its measured figures, scaled to the whole.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table

from .. import kernels
from . import (
    chat_tokenizer,
    clean,
    dedup,
    filters,
    pack,
    passages,
    tokenize,
    train_tokenizer,
)
from .chat_check import for_conversations
from .check import check_config, open_given_tokenizer
from .cleaner import without_hook
from .config import PreprocessConfig, SourceConfig
from .dedup_components import GROUP_BYTES_A_DOCUMENT
from .executors import LocalExecutor, count_workers
from .filter_config import FilterConfig
from .progress import Progress
from .report import build_report
from .stage import Marker
from .unit_runs import UNIT_BYTES
from .units import ReadUnit, read_unit

SAMPLE_TEXT_BYTES = 2_000_000
"""Text that is run through the stages to measure this machine and this input."""

SAMPLE_UNITS = 16
"""Units that the sample is taken from, spread over the input."""

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """What came out of running a part of the input, and how much there is in all."""

    whole_text_bytes: float
    """Text of the whole input, by what was read of its units."""
    whole_documents: float
    """The same in documents."""
    text_bytes: int
    """Text of the sample."""
    documents: int
    tokens: int
    seconds: dict[str, float]
    """Stage -> seconds on one core."""
    training_seconds: float
    """Seconds to train the tokenizer on the sample; 0 where one is given."""
    disk_bytes: dict[str, int]
    """Folder of the output -> bytes."""


def plan_preprocess(
    config: PreprocessConfig, *, output: Path, workers: int = 0, console: Console | None = None
) -> None:
    """Print what `preprocess` would do with this configuration, and do nothing.

    Raises:
        ValueError, FileNotFoundError: the configuration or the input cannot be used.
    """
    console = console or Console()
    check_config(config)
    chat = None
    if config.kind != "text":
        config = for_conversations(config)
        chat = chat_tokenizer.resolve(config)
    units = clean.plan(config)
    open_given_tokenizer(config.tokenizer)
    workers = workers or count_workers()
    _show_sources(units, output, console)
    if chat is not None:
        for line in chat.describe():
            console.print(line, highlight=False, soft_wrap=True)
        return
    sample = measure(config, units)
    if sample is None:
        console.print("The size of the input is not known beforehand (a stream), or it is empty.")
        return
    _show_estimates(config, sample, units, workers, console)


def measure(config: PreprocessConfig, units: Sequence[ReadUnit]) -> Sample | None:
    """Run a sample of the input through every stage; None if its size cannot be told."""
    chosen = _spread([unit for unit in units if unit.size_bytes], SAMPLE_UNITS)
    if not chosen:
        return None
    kernels.warm_kernels()
    with (
        tempfile.TemporaryDirectory(prefix="gristmill-plan-") as name,
        LocalExecutor(1) as executor,
    ):
        folder = Path(name)
        drawn = _draw(chosen, folder / "sample.jsonl")
        text_bytes = drawn.text_bytes
        if not text_bytes:
            return None
        # More is read at once than is taken: only the taken share counts.
        seconds = {"read and clean": drawn.read_seconds * text_bytes / drawn.read_bytes}
        share = sum(unit.size_bytes for unit in units) / sum(unit.size_bytes for unit in chosen)
        searched = config.filters.decontamination
        small = dataclasses.replace(
            config,
            sources=(SourceConfig(path=str(folder / "sample.jsonl")),),
            # The sample has not all columns; deciding takes no time, searching does.
            filters=FilterConfig(decontamination=dataclasses.replace(searched, action="annotate")),
            clean=without_hook(filters.needed_columns(config).clean),
            tokenizer=dataclasses.replace(
                config.tokenizer, train_bytes=min(config.tokenizer.train_bytes, text_bytes)
            ),
        )
        output, progress = folder / "output", Progress(quiet=True)

        def timed(name: str, call: Callable[[], Result]) -> Result:
            started = time.perf_counter()
            result = call()
            seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
            return result

        read = timed("read and clean", lambda: clean.run(small, output, executor, progress))
        cleaned = read
        if filters.is_on(small.filters):
            cleaned = timed(
                "search for evaluation data",
                lambda: filters.run(small, output, read, executor, progress),
            )
        verdicts = timed("dedup", lambda: dedup.run(small, output, cleaned, executor, progress))
        cuts: dict[str, Marker] = {}
        if passages.is_on(config.passages):
            cuts = timed(
                "repeated passages",
                lambda: passages.run(small, output, verdicts, executor, progress),
            )
        started = time.perf_counter()
        tokenizer = train_tokenizer.run(small, output, verdicts, executor, progress)
        training_seconds = 0.0 if config.tokenizer.path else time.perf_counter() - started
        runs = timed(
            "tokenize",
            lambda: tokenize.run(small, output, verdicts, tokenizer, executor, progress, cuts),
        )
        timed("pack", lambda: pack.run(small, output, runs, tokenizer, executor, progress))
        report = build_report("tokenize", cleaned, verdicts, runs)
        return Sample(
            whole_text_bytes=drawn.units_text_bytes * share,
            whole_documents=drawn.units_documents * share,
            text_bytes=text_bytes,
            documents=report.total.documents_in,
            tokens=report.total.tokens,
            seconds=seconds,
            training_seconds=training_seconds,
            disk_bytes={
                "documents, verdicts": _size(
                    output, "documents", "rejected", "contamination", "verdicts", "cuts"
                ),
                "work (may be deleted afterwards)": _size(output, "work"),
                "data": _size(output, "data/train", "data/validation"),
            },
        )


@dataclasses.dataclass(kw_only=True, slots=True)
class _Drawn:
    """A sample as it was drawn from some units, and what these units hold by its measure."""

    text_bytes: int = 0
    read_bytes: int = 0
    """Text of the batches that were read to draw it."""
    read_seconds: float = 0.0
    units_text_bytes: float = 0.0
    units_documents: float = 0.0


def _draw(units: Sequence[ReadUnit], path: Path) -> _Drawn:
    """Write the first documents of each unit as JSON lines."""
    drawn = _Drawn()
    wanted = SAMPLE_TEXT_BYTES // len(units)
    with path.open("w", encoding="utf-8") as file:
        for unit in units:
            started = time.perf_counter()
            found = next((one for one in read_unit(unit) if len(one[1].documents)), None)
            drawn.read_seconds += time.perf_counter() - started
            if found is None:
                continue
            source_file, batch = found
            size = batch.documents.column("text").nbytes
            drawn.read_bytes += size
            whole = unit.size_bytes / max(1, batch.input_bytes)
            drawn.units_text_bytes += size * whole
            drawn.units_documents += len(batch.documents) * whole
            taken = 0
            for text, code in zip(
                batch.documents.column("text").to_pylist(),
                batch.documents.column("language").to_pylist(),
                strict=True,
            ):
                row = {"text": text, "language": source_file.language or code}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                taken += len(text.encode())
                if taken >= wanted:
                    break
            drawn.text_bytes += taken
    return drawn


def _spread(units: Sequence[ReadUnit], count: int) -> list[ReadUnit]:
    """Return up to `count` units, evenly over the list."""
    count = min(count, len(units))
    return [units[number * len(units) // count] for number in range(count)]


def _size(output: Path, *folders: str) -> int:
    return sum(path.stat().st_size for path in _files(output, folders))


def _files(output: Path, folders: Sequence[str]) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in (output / folder).rglob("*") if path.is_file())


def _show_sources(units: Sequence[ReadUnit], output: Path, console: Console) -> None:
    table = Table(title="Input", title_justify="left", header_style="bold")
    for name in ("source", "files", "MB on disk", "units", "finished"):
        table.add_column(name, justify="left" if name == "source" else "right")
    by_source: dict[str, list[ReadUnit]] = {}
    for unit in units:
        by_source.setdefault(unit.pieces[0].file.source_name, []).append(unit)
    for name, those in sorted(by_source.items()):
        files = {piece.file.path for unit in those for piece in unit.pieces}
        markers = [output / "work" / "clean" / f"{unit.name}.json" for unit in those]
        table.add_row(
            name,
            f"{len(files):,}",
            f"{sum(unit.size_bytes for unit in those) / 1e6:,.1f}",
            f"{len(those):,}",
            f"{sum(marker.exists() for marker in markers):,}",
        )
    console.print(table)


def _show_estimates(
    config: PreprocessConfig,
    sample: Sample,
    units: Sequence[ReadUnit],
    workers: int,
    console: Console,
) -> None:
    scale = sample.whole_text_bytes / sample.text_bytes
    busy = min(workers, len(units))
    console.print(
        f"Estimates from {sample.documents:,} documents ({sample.text_bytes / 1e6:.1f} MB of text) "
        f"run on this machine, for {workers} workers ({busy} of them busy: {len(units)} units):",
        highlight=False,
    )
    table = Table(header_style="bold")
    table.add_column("what")
    table.add_column("estimate", justify="right")
    table.add_row("documents", f"{sample.whole_documents:,.0f}")
    table.add_row("text", f"{sample.whole_text_bytes / 1e6:,.1f} MB")
    table.add_row("tokens", f"{sample.tokens * scale:,.0f}")
    table.add_section()
    for name, seconds in sample.seconds.items():
        rate = sample.text_bytes / seconds / 1e6
        table.add_row(f"time: {name}", f"{_time(seconds * scale / busy)} ({rate:.1f} MB/s a core)")
    # The tokenizer learns from train_bytes, not from all; GPT-2's splitting is trained beside it.
    learnt = min(config.tokenizer.train_bytes, sample.whole_text_bytes)
    training = sample.training_seconds * learnt / sample.text_bytes / min(2, workers)
    if training:
        table.add_row("time: train the tokenizer", _time(training))
    whole = sum(sample.seconds.values()) * scale / busy + training
    table.add_row("time: in all", _time(whole), style="bold")
    table.add_section()
    for name, size in sample.disk_bytes.items():
        table.add_row(f"disk: {name}", f"{size * scale / 1e6:,.1f} MB")
    table.add_section()
    group = GROUP_BYTES_A_DOCUMENT * sample.whole_documents
    table.add_row("memory: each worker", f"below {UNIT_BYTES / 1e6:,.0f} MB")
    table.add_row("memory: grouping duplicates", f"{group / 1e6:,.0f} MB")
    console.print(table)
    if training:
        console.print(
            "The tokenizer behind the estimate has learnt from the sample alone, which it fits "
            "too well: expect more tokens, up to half as many again."
        )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
