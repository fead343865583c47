"""Results in, text out: the tables and lines at the end of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..indexed_dataset.atomic import write_atomically
from .evaluate import Evaluation, Score

FILE = "pretrain_report.json"
_PLAIN_WIDTH = 100


def write_report(output: Path, report: Mapping[str, Any]) -> None:
    """Write OUTPUT/pretrain_report.json."""
    text = json.dumps(report, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomically(output / FILE, text.encode())


def read_report(output: Path) -> dict[str, Any] | None:
    """Return the report of a finished training; None if there is none that can be read."""
    try:
        report = json.loads((output / FILE).read_bytes())
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) and "step" in report else None


def print_report(report: Mapping[str, Any], output: Path, *, file: TextIO | None = None) -> None:
    """Print the validation table, where everything lies, and the sampled continuations."""
    stream = file or sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else _PLAIN_WIDTH, highlight=False)
    if "total" in report:
        console.print(score_table(Evaluation.from_dict(report)))
        console.print(_verdict(Score(**report["total"])), soft_wrap=True)
    console.print()
    for name, where in {
        "checkpoint": str(output / report["checkpoint"]),
        "curves": f"tensorboard --logdir {output / 'tensorboard'}",
        "each step": str(output / "metrics.jsonl"),
        "this report": str(output / FILE),
        **_next_command(report, output),
    }.items():
        console.print(f"{name:<12} {where}", markup=False, soft_wrap=True)
    for sample in report.get("samples", ()):
        console.print()
        bound = "" if console.is_terminal else " ⟶"  # where no bold type shows the prompt
        console.print(
            Text.assemble((sample["prompt"], "bold"), bound, sample["text"]), soft_wrap=True
        )


def _next_command(report: Mapping[str, Any], output: Path) -> dict[str, str]:
    if "masked_share" in report:
        return {"classifier": f"gristmill classify {output} --train LABELLED.jsonl --output FOLDER"}
    return {"more text": f"gristmill generate {output} --prompt TEXT"}


def score_table(evaluation: Evaluation) -> Table:
    """Return the validation scores as a table, one row a group."""
    table = Table(title="Validation" if evaluation.complete else "Validation (a part of it)")
    table.add_column("group")
    for heading in ("tokens", "bytes", "loss", "bits/byte", "unigram", "vs unigram"):
        table.add_column(heading, justify="right")
    for name, score in evaluation.groups.items():
        table.add_row(name, *_cells(score))
    table.add_section()
    table.add_row("all", *_cells(evaluation.total), style="bold")
    return table


def _cells(score: Score) -> list[str]:
    bits, unigram = score.bits_per_byte, score.unigram_bits_per_byte
    return [
        f"{score.tokens:,}",
        "?" if score.text_bytes is None else f"{score.text_bytes:,}",
        f"{score.loss:.3f}",
        "?" if bits is None else f"{bits:.3f}",
        "" if unigram is None else f"{unigram:.3f}",
        "" if unigram is None or bits is None else f"{100 * (bits / unigram - 1):+.1f} %",
    ]


def _verdict(total: Score) -> str:
    if total.bits_per_byte is None:
        return f"validation loss {total.loss:.4f} nats per token"
    text = f"validation: {total.bits_per_byte:.4f} bits per byte"
    if total.unigram_bits_per_byte is not None:
        share = 100 * (1 - total.bits_per_byte / total.unigram_bits_per_byte)
        word = "below" if share >= 0 else "above"
        text += (
            f", {abs(share):.1f} % {word} the {total.unigram_bits_per_byte:.4f} of one add-one "
            "unigram model of all training tokens"
        )
    return text
