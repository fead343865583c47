"""The recipe: sources in, indexed datasets out, one stage after the other on this page.

read, clean -> filters -> dedup -> tokenizer -> tokenize -> pack. Of fine-tuning data `clean` also
renders the conversations, and after pack those held out are written as they are. Each stage
leaves finished files and markers in the output folder and skips what is done, so the same call
resumes after any interruption.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from . import (
    chat_tokenizer,
    clean,
    contamination_report,
    dedup,
    dedup_inputs,
    filters,
    heldout,
    pack,
    passages,
    rehydration,
    tokenize,
    train_tokenizer,
)
from .chat_check import for_conversations
from .check import check_config, open_given_tokenizer
from .config import PreprocessConfig
from .executors import Executor, count_workers
from .opened_executor import ExecutorName, open_executor
from .passes import in_passes, noting_the_end
from .plan_needs import Needs
from .progress import Progress
from .report import Report, build_report, show_report
from .report_pages import CARD, PAGE, write_pages
from .run_lock import only_run
from .run_log import RunLog
from .running_page import RunningPage
from .scratch import remove_scratch, restore
from .set_aside import load_set_aside, try_again
from .shards import Shard, alone
from .space import refuse_without_space
from .stage import Marker, fingerprint
from .units import ReadUnit

logger = logging.getLogger(__name__)

UntilStage = Literal["clean", "filters", "dedup", "tokenizer", "tokenize", "pack"]


def preprocess(
    config: PreprocessConfig,
    *,
    output: Path,
    workers: int = 0,
    until: UntilStage = "pack",
    write_kept: bool = False,
    keep_scratch: bool = False,
    check_space: bool = True,
    console: Console | None = None,
    on_start: Callable[[], None] = lambda: None,
    executor: ExecutorName = "local",
    ray_address: str = "",
    shard: Shard | None = None,
    wait_seconds: float = 0.0,
    max_failed_units: int = 0,
) -> Report:
    """Run the pipeline up to and including the stage `until`; return the counts of the run.

    Args:
        config: sources and the settings of every stage.
        output: folder for everything that is written.
        workers: processes; 0: one for each usable CPU. Changes no byte of the output.
        until: last stage to run.
        write_kept: write the kept documents to `OUTPUT/kept` too, without what is cut from them.
        keep_scratch: leave the files that only later stages read, which are removed as soon as
            these are done. A later run with other settings then has less to do again.
        check_space: refuse to begin what will not fit on the disk or into memory.
        console: where tables go; standard output by default.
        on_start: called when the configuration makes sense and no other run works in `output`,
            before anything is read.
        executor: local processes, or a Ray cluster.
        ray_address: of the cluster; empty: RAY_ADDRESS, else one is started on this machine.
        shard: do the units of this piece of a job array only.
        wait_seconds: how long a piece waits for units of the others before it ends.
        max_failed_units: units of reading that may fail three times: the run goes on without them,
            and the report lists them as `set_aside`.

    Raises:
        ValueError: something in the configuration or the input cannot be used, or no document
            was kept.
        NoRoomError: a ValueError; the disk or the memory is too small for the run.
        UnitError: a unit of work failed. Finished units are kept; run again to go on.
        PiecesMissingError: the piece has done what it can.
    """
    console = console or Console()
    progress = Progress()
    if write_kept and until in ("clean", "filters"):
        raise ValueError(
            f"--until {until} stops before it is known which documents are kept: take --until "
            "dedup, or leave --write-kept out"
        )
    # What is wrong is said now, not after hours of work.
    check_config(config)
    config = filters.needed_columns(config)
    chat: chat_tokenizer.ChatTokenizer | None = None
    if config.kind != "text":
        config = for_conversations(config)
        chat = chat_tokenizer.resolve(config)
    units = clean.plan(config)
    if until not in ("clean", "filters", "dedup"):
        open_given_tokenizer(config.tokenizer)
    if check_space:
        here = (workers or count_workers()) if executor == "local" else 0
        estimate = partial(_estimate, config, units, here, until, write_kept, keep_scratch)
        is_trained = not config.tokenizer.path and until in ("tokenizer", "tokenize", "pack")
        learnt = config.tokenizer.train_bytes if is_trained else 0
        refuse_without_space(units, output, here, estimate, learnt)
    settings = fingerprint(config, until, write_kept)
    workplace = open_executor(
        executor,
        workers=workers,
        ray_address=ray_address,
        shard=shard,
        max_failed_units=max_failed_units,
    )
    with only_run(output, shard, settings), workplace as place:
        page = RunningPage(output)
        progress.log = RunLog(output, shard, None if shard else page)
        with noting_the_end(progress.log):
            pack.refuse_foreign_prefixes(output)
            with alone(shard, output):
                on_start()
                if chat is not None:
                    for line in chat.describe():
                        logger.info("%s", line)
                    config = chat_tokenizer.with_tokenizer(
                        config, chat, chat.write(output / "work" / "chat-tokenizer")
                    )
            if shard is None:
                try_again(output)
            run = Run(
                config,
                output,
                place,
                progress,
                console,
                until,
                write_kept,
                keep_scratch,
                chat,
                page,
            )
            return in_passes(run.once, units, run, wait_seconds)


def _estimate(
    config: PreprocessConfig, units: Sequence[ReadUnit], workers: int, *stages: Any
) -> Needs | None:
    from .plan import estimate  # which runs a sample through the stages of this file

    return None if config.kind != "text" else estimate(config, units, workers or 1, *stages)


@dataclass(slots=True)
class Run:
    """One run: its settings, and where it works and tells of it."""

    config: PreprocessConfig
    output: Path
    executor: Executor
    progress: Progress
    console: Console
    until: UntilStage
    write_kept: bool
    keep_scratch: bool
    chat: chat_tokenizer.ChatTokenizer | None
    page: RunningPage

    def once(self, units: Sequence[ReadUnit]) -> Report:
        """Do all stages with these units of reading; return the counts."""
        config, output, until = self.config, self.output, self.until
        executor, progress = self.executor, self.progress
        recipe = None if self.chat is None else self.chat.recipe
        cleaned = clean.run(config, output, executor, progress, units, recipe)
        self.page.counts = build_report("clean", cleaned)
        if until == "clean":
            return self.finish(self.page.counts, cleaned)
        cleaned = filters.run(config, output, cleaned, executor, progress)
        if until == "filters":
            return self.finish(build_report(until, cleaned), cleaned)

        keep = self.keep_scratch
        verdicts = dedup.run(config, output, cleaned, executor, progress, keep)
        cuts: dict[str, Marker] = {}
        if self.write_kept:
            cuts = passages.run(config, output, verdicts, executor, progress, keep)
            dedup_inputs.run_kept(output, cleaned, verdicts, cuts, executor, progress)
        self.page.counts = report = build_report("dedup", cleaned, verdicts)
        if until == "dedup":
            return self.finish(report, cleaned)
        if report.total.kept == 0:
            self.finish(report, cleaned)
            if report.total.documents_in == 0:
                raise ValueError("the input has no document: there is nothing to tokenize")
            raise ValueError(
                f"no document is left to tokenize: {report.total.documents_in:,} were read and "
                f"all were dropped. {output / 'report.json'} counts the reasons; "
                f"{output / 'verdicts'} and {output / 'rejected'} have every document"
            )

        if not self.write_kept:
            cuts = passages.run(config, output, verdicts, executor, progress, keep)
        schedule = rehydration.run(config, output, verdicts, executor, progress)
        tokenizer = train_tokenizer.run(config, output, verdicts, executor, progress)
        if until == "tokenizer":
            report = build_report(until, cleaned, verdicts, fertility=tokenizer.fertility)
            return self.finish(report, cleaned)

        tokenized = tokenize.run(config, output, verdicts, tokenizer, executor, progress, cuts)
        packed = None
        if until == "pack":
            stage, units_to_tokenize = tokenize.plan(config, output, verdicts, tokenizer, cuts)
            again = partial(restore, stage, units_to_tokenize, output, executor, progress)
            packed = pack.run(
                config,
                output,
                tokenized,
                tokenizer,
                executor,
                progress,
                _versions(),
                schedule,
                again,
            )
            if not keep:
                remove_scratch(tokenized.values(), output)
            if self.chat is not None:
                heldout.run(output, cleaned, packed, executor, progress)
        report = build_report(until, cleaned, verdicts, tokenized, packed, tokenizer.fertility)
        report.rehydration = rehydration.describe(schedule)
        if schedule is not None and packed is not None:
            report.repeats = rehydration.describe_groups(packed)
        return self.finish(report, cleaned)

    def finish(self, report: Report, cleaned: Mapping[str, Marker]) -> Report:
        """Write the report and its pages, which one piece of a job array does after the other."""
        shard = self.executor.shard
        with alone(shard, self.output):
            self.executor.shard = None  # all is done: the pages are one call's work
            self.page.end()
            try:
                report.config = pack.manifest_config(self.config)
                report.set_aside = [asdict(one) for one in load_set_aside(self.output).values()]
                if self.until != "clean":
                    report.contamination = contamination_report.describe(
                        self.config, self.output, cleaned
                    )
                return _finish(report, self.output, self.executor, self.progress, self.console)
            finally:
                self.executor.shard = shard


def _versions() -> dict[str, int]:
    """Return the version of each stage before the tokenizer's, for the manifests."""
    return {
        "clean": clean.VERSION,
        **filters.VERSIONS,
        **dedup.VERSIONS,
        **passages.VERSIONS,
    }


def _finish(
    report: Report, output: Path, executor: Executor, progress: Progress, console: Console
) -> Report:
    report.write(output / "report.json")
    write_pages(output, executor, progress)
    show_report(report, console)
    places = {
        "documents": "clean documents (Parquet)",
        "filters": "what the filters decided of each document (Parquet)",
        "contamination": "documents that hold evaluation data, and which (Parquet)",
        "kept": "documents that were kept (Parquet)",
        "rejected": "documents dropped while reading and cleaning (JSON lines)",
        "verdicts": "what became of each document (Parquet)",
        "cuts": "repeated passages that are left out of the token files (Parquet)",
        "index": "index for `--against`, together with documents",
        "data": "token files (train, validation) and their tokenizer",
        "report.json": "these tables",
        CARD: "sources, licences, languages, what was dropped and why",
        PAGE: "the report as a page: open it in a browser",
    }
    console.print()
    for name, meaning in places.items():
        if (output / name).exists():
            console.print(f"{output / name}: {meaning}", highlight=False, soft_wrap=True)
    return report
