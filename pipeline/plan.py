"""What a run would do: the configuration in, a page of sizes, time, memory and disk out.

Nothing is written to the output folder. A sample of the input goes through the real stages in a
temporary folder, on one core, first a fifth of it and then all: two points tell what a stage costs
once and what it costs for each byte of text. `plan_needs.py` makes the whole run's needs of that,
and says whether they fit.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .. import kernels
from . import chat_tokenizer, clean, filters
from .chat_check import for_conversations
from .check import check_config, open_given_tokenizer
from .cleaner import without_hook
from .config import PreprocessConfig, SourceConfig
from .executors import LocalExecutor, count_workers
from .filter_config import FilterConfig
from .plan_needs import Cost, Needs, Room, Sample, needs_of, show_needs
from .progress import Progress
from .recipe import Run, UntilStage
from .run_log import RunLog
from .running_page import RunningPage
from .units import ReadUnit, read_unit

SAMPLE_TEXT_BYTES = 2_000_000
"""Text that is run through the stages to measure this machine and this input."""

FIRST_SHARE = 5
"""One document in so many is in the first, smaller run."""

SAMPLE_UNITS = 16
"""Units that the sample is taken from, spread over the input."""


def plan_preprocess(
    config: PreprocessConfig,
    *,
    output: Path,
    workers: int = 0,
    until: UntilStage = "pack",
    write_kept: bool = False,
    keep_scratch: bool = False,
    check_space: bool = True,
    console: Console | None = None,
) -> None:
    """Print what `preprocess` would do with these arguments, and do nothing.

    Raises:
        ValueError, FileNotFoundError: the configuration or the input cannot be used.
        NoRoomError: the run does not fit on the disk or into memory, and `check_space` is on.
    """
    console = console or Console()
    check_config(config)
    chat = None
    if config.kind != "text":
        config = for_conversations(config)
        chat = chat_tokenizer.resolve(config)
    units = clean.plan(config)
    if until not in ("clean", "filters", "dedup"):
        open_given_tokenizer(config.tokenizer)
    workers = workers or count_workers()
    _show_sources(units, output, console)
    if chat is not None:
        for line in chat.describe():
            console.print(line, highlight=False, soft_wrap=True)
        return
    sample = measure(config, units, until=until, write_kept=write_kept, keep_scratch=keep_scratch)
    if sample is None:
        console.print("The size of the input is not known beforehand (a stream), or it is empty.")
        return
    needs = needs_of(config, sample, units, workers)
    room = Room.of(output)
    show_needs(needs, sample, room, workers, len(units), console)
    if check_space:
        needs.refuse_without(room, output)


def estimate(
    config: PreprocessConfig,
    units: Sequence[ReadUnit],
    workers: int,
    until: UntilStage,
    write_kept: bool,
    keep_scratch: bool,
) -> Needs | None:
    """Return what a run needs, by a sample; None if the size of the input cannot be told."""
    sample = measure(config, units, until=until, write_kept=write_kept, keep_scratch=keep_scratch)
    return None if sample is None else needs_of(config, sample, units, workers)


def measure(
    config: PreprocessConfig,
    units: Sequence[ReadUnit],
    *,
    until: UntilStage = "pack",
    write_kept: bool = False,
    keep_scratch: bool = False,
) -> Sample | None:
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
        drawn = _draw(chosen)
        if not drawn.rows:
            return None
        sizes: list[int] = []
        meters: list[Meter] = []
        few = drawn.rows[::FIRST_SHARE]
        # The first run loads kernels, models and libraries, which later ones find there.
        for number, rows in enumerate((few, few, drawn.rows)):
            path, output = folder / f"sample-{number}.jsonl", folder / f"output-{number}"
            sizes.append(sum(len(row["text"].encode()) for row in rows))
            path.write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
                encoding="utf-8",
            )
            small = _settings(config, path, sizes[-1])
            progress = Progress(quiet=True)
            progress.log = meter = Meter(output)
            meters.append(meter)
            quiet = Console(quiet=True)
            chosen_stages = until, write_kept, keep_scratch
            run = Run(
                small, output, executor, progress, quiet, *chosen_stages, None, RunningPage(output)
            )
            report = run.once(clean.plan(small))
        share = sum(unit.size_bytes for unit in units) / sum(unit.size_bytes for unit in chosen)
        return Sample(
            whole_text_bytes=drawn.units_text_bytes * share,
            whole_documents=drawn.units_documents * share,
            text_bytes=(sizes[-2], sizes[-1]),
            documents=len(drawn.rows),
            tokens=report.total.tokens,
            read_seconds=drawn.read_seconds / drawn.read_bytes * sizes[-1],
            stages={
                stage: (meters[-2].costs.get(stage, cost), cost)
                for stage, cost in meters[-1].costs.items()
            },
        )


class Meter(RunLog):
    """Notes the CPU time of each stage (in this process), and the size of the output folder then.

    A sample's stages take milliseconds: on the clock, whatever else the machine does would count
    hundred times over in the whole.
    """

    def __init__(self, output: Path) -> None:
        super().__init__()
        self.costs: dict[str, Cost] = {}
        self._output = output
        self._cpu_before = 0.0

    def begin_stage(
        self, name: str, *, units: int, skipped: int, others: int, size_bytes: int
    ) -> None:
        """Note what this process has used up before."""
        super().begin_stage(
            name, units=units, skipped=skipped, others=others, size_bytes=size_bytes
        )
        self._cpu_before = time.process_time()

    def end_stage(self) -> None:
        """Note what the stage has cost."""
        stage, cpu_seconds = self._now, time.process_time() - self._cpu_before
        super().end_stage()
        if stage is not None and stage["units"]:
            self.costs[stage["name"]] = Cost(
                seconds=cpu_seconds,
                units=stage["units"],
                disk_bytes={
                    path.name: sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
                    for path in self._output.iterdir()
                },
            )


def _settings(config: PreprocessConfig, path: Path, text_bytes: int) -> PreprocessConfig:
    """Return the settings that a sample is run with."""
    searched = config.filters.decontamination
    return dataclasses.replace(
        config,
        sources=(SourceConfig(path=str(path)),),
        # The sample has not all columns; deciding takes no time, searching does.
        filters=FilterConfig(decontamination=dataclasses.replace(searched, action="annotate")),
        clean=without_hook(filters.needed_columns(config).clean),
        tokenizer=dataclasses.replace(
            config.tokenizer, train_bytes=min(config.tokenizer.train_bytes, text_bytes)
        ),
    )


@dataclasses.dataclass(kw_only=True, slots=True)
class _Drawn:
    """A sample as it was drawn from some units, and what these units hold by its measure."""

    rows: list[dict[str, str]] = dataclasses.field(default_factory=list)
    read_bytes: int = 0
    """Text of the batches that were read to draw it."""
    read_seconds: float = 0.0
    units_text_bytes: float = 0.0
    units_documents: float = 0.0


def _draw(units: Sequence[ReadUnit]) -> _Drawn:
    """Take the first documents of each unit."""
    drawn = _Drawn()
    wanted = SAMPLE_TEXT_BYTES // len(units)
    for unit in units:
        started = time.process_time()
        found = next((one for one in read_unit(unit) if len(one[1].documents)), None)
        drawn.read_seconds += time.process_time() - started
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
            drawn.rows.append({"text": text, "language": source_file.language or code})
            taken += len(text.encode())
            if taken >= wanted:
                break
    return drawn


def _spread(units: Sequence[ReadUnit], count: int) -> list[ReadUnit]:
    """Return up to `count` units, evenly over the list."""
    count = min(count, len(units))
    return [units[number * len(units) // count] for number in range(count)]


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
