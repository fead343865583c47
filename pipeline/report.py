"""What became of every document: the stages' counts in, report.json and tables out.

The law of the house is checked here at the end of every run:
documents in = documents kept + documents dropped, by reason, for each source and language.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..indexed_dataset.atomic import write_atomically
from .curation_counts import curation_counts
from .documents import REASONS
from .stage import Marker

MAX_TABLE_ROWS = 40
"""Languages shown in a table; report.json has all."""

MAX_DROPPED_ROWS = 15


class AccountingError(AssertionError):
    """Documents in and documents out differ: a defect of gristmill, never of the input."""


@dataclass(kw_only=True, slots=True)
class Tally:
    """What happened to the documents of one language (or source, or of all)."""

    documents_in: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason -> documents."""
    text_bytes: int = 0
    """Bytes of clean text kept."""
    tokens: int = 0
    """Tokens written, EOD included; 0 before tokenizing."""
    target_tokens: int = 0
    """Of them those that the assistant says, where the documents are conversations."""
    validation_documents: int = 0
    validation_tokens: int = 0
    cut_documents: int = 0
    """Documents kept that repeated passages were left out of."""
    cut_bytes: int = 0
    """Bytes of text left out so; they do not count as kept."""

    def drop(self, reason: str, documents: int) -> None:
        """Count `documents` as dropped for `reason`."""
        self.dropped[reason] = self.dropped.get(reason, 0) + documents


@dataclass(kw_only=True, slots=True)
class Report:
    """The counts of a run, per language, per source, and in all."""

    total: Tally
    languages: dict[str, Tally]
    sources: dict[str, Tally]
    stage: str
    """The last stage that ran."""
    fertility: list[dict[str, Any]] = field(default_factory=list)
    """A row a language: bytes per token, beside GPT-2-style splitting (when one was trained)."""
    config: dict[str, Any] = field(default_factory=dict)
    """The settings that made the data, without folders, as manifests hold them."""
    redacted: dict[str, int] = field(default_factory=dict)
    """Kind of personal data -> replacements in the texts."""
    rehydration: dict[str, list[list[int]]] = field(default_factory=dict)
    """Language (`*`: all) -> pairs of a cluster size and the repetitions from that size on."""
    repeats: list[dict[str, Any]] = field(default_factory=list)
    """With rehydration, of each train group: group, repeat, documents, tokens."""
    curation: dict[str, Any] = field(default_factory=dict)
    """What cleaning replaced, and which filter rules documents fail: see `curation_counts`."""
    contamination: dict[str, Any] = field(default_factory=dict)
    """What was found of evaluation data: see `contamination_report`."""
    special_strings: dict[str, int] = field(default_factory=dict)
    """Special token -> how often texts spell it out."""
    set_aside: list[dict[str, Any]] = field(default_factory=list)
    """Units of reading that failed, which the run went on without: unit, stage, files, error."""

    def to_json(self) -> str:
        """Return the text of report.json."""
        value = {
            "stage": self.stage,
            "total": _plain(self.total),
            "languages": {name: _plain(tally) for name, tally in sorted(self.languages.items())},
            "sources": {name: _plain(tally) for name, tally in sorted(self.sources.items())},
            "fertility": self.fertility,
            "config": self.config,
            "redacted": self.redacted,
            "rehydration": self.rehydration,
            "repeats": self.repeats,
            "curation": self.curation,
            "contamination": self.contamination,
            "special_strings": dict(sorted(self.special_strings.items())),
            "set_aside": self.set_aside,
        }
        return json.dumps(value, indent=1, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write report.json."""
        write_atomically(path, self.to_json().encode())


def build_report(
    stage: str,
    clean: Mapping[str, Marker],
    verdicts: Mapping[str, Marker] | None = None,
    tokenized: Mapping[str, Marker] | None = None,
    packed: Mapping[str, Marker] | None = None,
    fertility: list[dict[str, Any]] | None = None,
) -> Report:
    """Add up the counts of the stages that ran and check that no document is missing.

    Args:
        stage: name of the last stage that ran.
        clean, verdicts, tokenized, packed: markers of each stage, None where it did not run.
        fertility: rows of the tokenizer stage.

    Raises:
        AccountingError: documents in differ from kept plus dropped.
    """
    report = Report(total=Tally(), languages={}, sources={}, stage=stage, fertility=fertility or [])
    report.curation = curation_counts(clean)
    outcomes = _rows(verdicts if verdicts is not None else clean)
    for source, language, outcome, documents, text_bytes in outcomes:
        for tally in _tallies(report, source, language):
            tally.documents_in += documents
            if outcome in ("kept", "clean"):
                tally.kept += documents
                tally.text_bytes += text_bytes
            else:
                tally.drop(outcome, documents)
    for marker in clean.values():
        for kind, count in marker.counts.get("redacted", {}).items():
            report.redacted[kind] = report.redacted.get(kind, 0) + count
    documents_in = sum(marker.counts["documents_in"] for marker in clean.values())
    _check("read", documents_in, report.total.documents_in)

    if tokenized is not None:
        documents = 0
        for source, language, num_documents, tokens, _ in _rows(tokenized):
            documents += num_documents
            for tally in _tallies(report, source, language):
                tally.tokens += tokens
        for marker in tokenized.values():
            for name, count in marker.counts.get("special", {}).items():
                report.special_strings[name] = report.special_strings.get(name, 0) + count
        for source, language, targets in _rows(tokenized, "targets"):
            for tally in _tallies(report, source, language):
                tally.target_tokens += targets
        for source, language, reason, dropped, text_bytes in _rows(tokenized, "dropped"):
            for tally in _tallies(report, source, language):
                tally.kept -= dropped
                tally.text_bytes -= text_bytes
                tally.drop(reason, dropped)
        for source, language, cut, cut_bytes in _rows(tokenized, "cut"):
            for tally in _tallies(report, source, language):
                tally.cut_documents += cut
                tally.cut_bytes += cut_bytes
                tally.text_bytes -= cut_bytes
        _check("kept", report.total.kept, documents)
    if packed is not None:
        _check("kept", report.total.kept, sum(m.counts["documents"] for m in packed.values()))
        for marker in packed.values():
            if marker.counts["split"] == "validation":
                for language, counts in marker.counts["languages"].items():
                    for tally in (report.total, report.languages[language]):
                        tally.validation_documents += counts["documents"]
                        tally.validation_tokens += counts["tokens"]
    for tally in (report.total, *report.languages.values(), *report.sources.values()):
        _check("in", tally.documents_in, tally.kept + sum(tally.dropped.values()))
    return report


def show_report(report: Report, console: Console) -> None:
    """Print the run's tables: what was kept and dropped per language, and the tokenizer's.

    They fit into 80 columns, so that terminals and log files show them as they are.
    """
    with_tokens = report.total.tokens > 0
    table = _table()
    for name in ("in", "kept", "dropped", "kept MB"):
        table.add_column(name, justify="right", no_wrap=True)
    if with_tokens:
        for name in ("tokens", "bytes/\ntoken", "valid-\nation"):
            table.add_column(name, justify="right", no_wrap=True)
    rows = sorted(report.languages.items(), key=lambda item: (-item[1].text_bytes, item[0]))
    for name, tally in rows[:MAX_TABLE_ROWS]:
        table.add_row(name, *_cells(tally, with_tokens))
    if len(rows) > MAX_TABLE_ROWS:
        rest = _sum(tally for _, tally in rows[MAX_TABLE_ROWS:])
        table.add_row(f"{len(rows) - MAX_TABLE_ROWS} more", *_cells(rest, with_tokens), style="dim")
    table.add_section()
    table.add_row(f"all ({len(rows)})", *_cells(report.total, with_tokens), style="bold")
    _print("Documents", table, console)
    _show_dropped(report, console)
    if report.fertility:
        show_fertility(report.fertility, console)


def _show_dropped(report: Report, console: Console) -> None:
    """Print which languages lost documents, and for which reasons."""
    total = report.total
    rows = sorted(
        ((name, tally) for name, tally in report.languages.items() if tally.dropped),
        key=lambda item: (-sum(item[1].dropped.values()), item[0]),
    )
    if rows:
        table = _table()
        table.add_column("documents", justify="right", no_wrap=True)
        table.add_column("share", justify="right", no_wrap=True)
        table.add_column("reasons")
        for name, tally in rows[:MAX_DROPPED_ROWS]:
            table.add_row(name, *_dropped_cells(tally))
        if len(rows) > MAX_DROPPED_ROWS:
            rest = _sum(tally for _, tally in rows[MAX_DROPPED_ROWS:])
            name = f"{len(rows) - MAX_DROPPED_ROWS} more"
            table.add_row(name, *_dropped_cells(rest), style="dim")
        table.add_section()
        table.add_row(f"all ({len(rows)})", *_dropped_cells(total), style="bold")
        _print("Dropped, by reason", table, console)
        for reason in _by_number(total):
            console.print(f"{reason}: {REASONS.get(reason, '')}", highlight=False, soft_wrap=True)
    dropped = "".join(f" + {total.dropped[reason]:,} {reason}" for reason in _by_number(total))
    if total.target_tokens:
        console.print(
            f"loss mask: {total.target_tokens:,} of {total.tokens:,} tokens are the assistant's "
            f"({100 * total.target_tokens / total.tokens:.1f} %); the others carry no loss",
            highlight=False,
            soft_wrap=True,
        )
    if total.cut_bytes:
        console.print(
            f"repeated passages: {total.cut_bytes / 1e6:,.2f} MB left out of "
            f"{total.cut_documents:,} documents",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"\n{total.documents_in:,} documents in = {total.kept:,} kept{dropped}",
        highlight=False,
        soft_wrap=True,
    )


def show_fertility(rows: list[dict[str, Any]], console: Console) -> None:
    """Print bytes per token of the tokenizer beside GPT-2-style splitting and the references."""
    table = _table()
    is_trained = "gpt2_split_bytes_per_token" in rows[0]
    references = list(rows[0].get("references", {}))
    for name in ("ours", *(("GPT-2 split", "ratio") if is_trained else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for path in references:
        named = Path(path)
        name = named.parent.name if named.name == "tokenizer.json" else named.name.split(".")[0]
        table.add_column(name or path, justify="right", no_wrap=True)
    for row in rows[:MAX_TABLE_ROWS]:
        ours, cells = row["bytes_per_token"], []
        if is_trained:
            other = row["gpt2_split_bytes_per_token"]
            cells = [f"{other:.2f}", f"{ours / other:.2f}"]
        for path in references:
            measured = row["references"][path]
            cells.append(f"{measured['bytes_per_token']:.2f}" if measured else "")
        table.add_row(row["language"], f"{ours:.2f}", *cells)
    _print("Tokenizer: bytes per token, on a sample of each language", table, console)
    if len(rows) > MAX_TABLE_ROWS:
        left = len(rows) - MAX_TABLE_ROWS
        console.print(f"and {left} more languages in report.json", highlight=False)


def _print(title: str, table: Table, console: Console) -> None:
    console.print(f"\n[bold]{title}[/bold]", highlight=False, soft_wrap=True)
    console.print(table)


def _table() -> Table:
    """Return a table without lines between columns: its first column holds the language."""
    table = Table(
        header_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("language", no_wrap=True)
    return table


def load_report(path: Path) -> Report:
    """Read a report.json back.

    Raises:
        ValueError: it is damaged, or another version wrote it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return Report(
            total=Tally(**value["total"]),
            languages={name: Tally(**tally) for name, tally in value["languages"].items()},
            sources={name: Tally(**tally) for name, tally in value["sources"].items()},
            stage=value["stage"],
            fertility=value["fertility"],
            config=value.get("config", {}),
            redacted=value.get("redacted", {}),
            rehydration=value.get("rehydration", {}),
            repeats=value.get("repeats", []),
            curation=value.get("curation", {}),
            contamination=value.get("contamination", {}),
            special_strings=value.get("special_strings", {}),
            set_aside=value.get("set_aside", []),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not a report of this version ({type(error).__name__}: {error}): run "
            "`gristmill preprocess` again with the same output folder, which writes it anew"
        ) from error


def _check(what: str, expected: int, found: int) -> None:
    if expected != found:
        raise AccountingError(
            f"documents do not add up: {expected:,} {what}, {found:,} accounted for. This is a "
            "defect of gristmill; the output must not be used. Please report it with report.json"
        )


def _rows(markers: Mapping[str, Marker], key: str = "rows") -> Iterable[list[Any]]:
    for marker in markers.values():
        yield from marker.counts.get(key, [])


def _tallies(report: Report, source: str, language: str) -> tuple[Tally, Tally, Tally]:
    return (
        report.total,
        report.languages.setdefault(language, Tally()),
        report.sources.setdefault(source, Tally()),
    )


def _cells(tally: Tally, with_tokens: bool) -> list[str]:
    dropped = sum(tally.dropped.values())
    cells = [_short(number) for number in (tally.documents_in, tally.kept, dropped)]
    megabytes = tally.text_bytes / 1e6
    cells.append(f"{megabytes:,.2f}" if megabytes < 100_000 else f"{megabytes:,.0f}")
    if with_tokens:
        ratio = f"{tally.text_bytes / tally.tokens:.2f}" if tally.tokens else "-"
        cells += [_short(tally.tokens), ratio, f"{tally.validation_documents:,}"]
    return cells


def _short(number: int) -> str:
    """Return a number as tables show it: to the last digit below a hundred million."""
    if number < 100_000_000:
        return f"{number:,}"
    return f"{number / 1e6:,.1f} M" if number < 100_000_000_000 else f"{number / 1e9:,.1f} G"


def _dropped_cells(tally: Tally) -> list[str]:
    dropped = sum(tally.dropped.values())
    reasons = ", ".join(f"{tally.dropped[reason]:,} {reason}" for reason in _by_number(tally))
    return [_short(dropped), f"{100 * dropped / tally.documents_in:.2f} %", reasons]


def _by_number(tally: Tally) -> list[str]:
    """Return the reasons why documents were dropped, the commonest first."""
    return sorted(tally.dropped, key=lambda reason: (-tally.dropped[reason], reason))


def _sum(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    dropped: dict[str, int] = defaultdict(int)
    for tally in tallies:
        for name in Tally.__slots__:
            if name != "dropped":
                setattr(total, name, getattr(total, name) + getattr(tally, name))
        for reason, documents in tally.dropped.items():
            dropped[reason] += documents
    total.dropped = dict(dropped)
    return total


def _plain(tally: Tally) -> dict[str, Any]:
    value = asdict(tally) | {"dropped": dict(sorted(tally.dropped.items()))}
    if not tally.target_tokens:
        del value["target_tokens"]  # texts have no loss mask
    return value
