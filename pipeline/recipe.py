"""The recipe: sources in, indexed datasets out, one stage after the other on this page.

read, clean -> filters -> dedup -> tokenizer -> tokenize -> pack. Of fine-tuning data `clean` also
renders the conversations, and after pack those held out are written as they are. Each stage
leaves finished files and markers in the output folder and skips what is done, so the same call
resumes after any interruption.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from rich.console import Console

from ..indexed_dataset.atomic import disk_full, is_disk_full
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
from .executors import Executor, LocalExecutor
from .progress import Progress
from .report import Report, build_report, show_report
from .report_pages import CARD, PAGE, write_pages
from .stage import Marker

logger = logging.getLogger(__name__)

UntilStage = Literal["clean", "filters", "dedup", "tokenizer", "tokenize", "pack"]


def preprocess(
    config: PreprocessConfig,
    *,
    output: Path,
    workers: int = 0,
    until: UntilStage = "pack",
    write_kept: bool = False,
    console: Console | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> Report:
    """Run the pipeline up to and including the stage `until`; return the counts of the run.

    Args:
        config: sources and the settings of every stage.
        output: folder for everything that is written.
        workers: processes; 0: one for each usable CPU. Changes no byte of the output.
        until: last stage to run.
        write_kept: write the kept documents to `OUTPUT/kept` too, without what is cut from them.
        console: where tables go; standard output by default.
        on_start: called when the configuration makes sense and no other run works in `output`,
            before anything is read.

    Raises:
        ValueError: something in the configuration or the input cannot be used, or no document
            was kept.
        UnitError: a unit of work failed. Finished units are kept; run again to go on.
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
    recipe = None if chat is None else chat.recipe
    executor = LocalExecutor(workers)
    with _only_run(output), executor:

        def finish(report: Report) -> Report:
            report.config = pack.manifest_config(config)
            if until != "clean":
                report.contamination = contamination_report.describe(config, output, cleaned)
            return _finish(report, output, executor, progress, console)

        pack.refuse_foreign_prefixes(output)
        on_start()
        if chat is not None:
            for line in chat.describe():
                logger.info("%s", line)
            config = chat_tokenizer.with_tokenizer(
                config, chat, chat.write(output / "work" / "chat-tokenizer")
            )
        cleaned = clean.run(config, output, executor, progress, units, recipe)
        if until == "clean":
            return finish(build_report(until, cleaned))
        cleaned = filters.run(config, output, cleaned, executor, progress)
        if until == "filters":
            return finish(build_report(until, cleaned))

        verdicts = dedup.run(config, output, cleaned, executor, progress)
        cuts: dict[str, Marker] = {}
        if write_kept:
            cuts = passages.run(config, output, verdicts, executor, progress)
            dedup_inputs.run_kept(output, cleaned, verdicts, cuts, executor, progress)
        report = build_report("dedup", cleaned, verdicts)
        if until == "dedup":
            return finish(report)
        if report.total.kept == 0:
            finish(report)
            if report.total.documents_in == 0:
                raise ValueError("the input has no document: there is nothing to tokenize")
            raise ValueError(
                f"no document is left to tokenize: {report.total.documents_in:,} were read and "
                f"all were dropped. {output / 'report.json'} counts the reasons; "
                f"{output / 'verdicts'} and {output / 'rejected'} have every document"
            )

        if not write_kept:
            cuts = passages.run(config, output, verdicts, executor, progress)
        schedule = rehydration.run(config, output, verdicts, executor, progress)
        tokenizer = train_tokenizer.run(config, output, verdicts, executor, progress)
        if until == "tokenizer":
            report = build_report(until, cleaned, verdicts, fertility=tokenizer.fertility)
            return finish(report)

        tokenized = tokenize.run(config, output, verdicts, tokenizer, executor, progress, cuts)
        packed = None
        if until == "pack":
            packed = pack.run(
                config, output, tokenized, tokenizer, executor, progress, _versions(), schedule
            )
            if chat is not None:
                heldout.run(output, cleaned, packed, executor, progress)
        report = build_report(until, cleaned, verdicts, tokenized, packed, tokenizer.fertility)
        report.rehydration = rehydration.describe(schedule)
        if schedule is not None and packed is not None:
            report.repeats = rehydration.describe_groups(packed)
        return finish(report)


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


@contextlib.contextmanager
def _only_run(output: Path) -> Iterator[None]:
    """Hold the output folder's lock, so that two runs never write the same files."""
    path = output / "work" / "lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("a+")
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(path, error) from error
        why = error.strerror or str(error)
        if output.exists() and not output.is_dir():
            why = "it is a file"
        raise ValueError(
            f"cannot write to the output folder {output}: {why}. Choose another --output"
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"another run (process {file.read().strip() or 'unknown'}) is working in {output}: "
                "two runs would overwrite each other. Wait for it, or use another --output"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
