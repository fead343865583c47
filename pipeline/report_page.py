"""Counts, a summary and samples in; the report page, one HTML file without anything around it, out.

The page loads nothing and runs nothing: no script, font, image or link from elsewhere, and a
content security policy that forbids them. Whatever a document holds is escaped by the template.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import langcodes

from .charts import Chart, Share, byte_edge, histogram, plain_edge, shares, short
from .differences import Piece, side_by_side
from .documents import REASONS, UNKNOWN_LANGUAGE
from .histogram import quantile
from .report import Report, Tally
from .report_rules import rule_rows
from .report_samples import KEPT, NEAR, Sample
from .summary import Summary

EXCERPT_CHARACTERS = 700
"""Shown of a document."""

OPEN_ROWS = 40
"""Rows of a table that are shown before the rest is folded away."""

OPEN_CHARTS = 6
"""Histograms that are shown before the rest is folded away; those of scores come first."""

MAX_CHARTS = 60
"""Histograms in all."""

NUM_COLORS = 10
"""Reasons have their own colour up to this number, then they share."""

TEMPLATES = Path(__file__).with_name("templates")

_OWN_CHARTS = {"text_bytes", "cluster_size", "jaccard"}


@dataclass(frozen=True, slots=True)
class Row:
    """One language or source in a table."""

    name: str
    tally: Tally
    bar: list[Share]
    figures: list[str]
    """Under the headings that depend on the run: see `Table.headings`."""


@dataclass(frozen=True, slots=True)
class Table:
    """Languages or sources with what became of their documents."""

    noun: str
    headings: list[str]
    rows: list[Row]
    open_rows: int


@dataclass(frozen=True, slots=True)
class Step:
    """One bar of the funnel."""

    name: str
    meaning: str
    count: int
    share: str
    bar: list[Share]
    is_drop: bool


@dataclass(frozen=True, slots=True)
class Group:
    """All that is shown of one reason."""

    reason: str
    meaning: str
    style: str
    documents: int
    share: str
    languages: list[tuple[str, int]]
    samples: list[Sample]
    is_paired: bool
    """Whether the samples stand among the pairs."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A near duplicate beside the document that was kept."""

    sample: Sample
    left: list[Piece]
    right: list[Piece]


def render_page(report: Report, summary: Summary, samples: Mapping[str, list[Sample]]) -> bytes:
    """Return the page.

    Args:
        report: the counts.
        summary: histograms; empty where no verdicts were written.
        samples: of each reason, and of `kept`.
    """
    reasons = reasons_in_order(report)
    styles = {reason: f"r{number % NUM_COLORS}" for number, reason in enumerate(reasons)}
    styles[KEPT] = KEPT
    pairs = [
        Pair(one, *side_by_side(one.text, one.other["text"]))
        for one in samples.get(NEAR, [])
        if one.text is not None and one.other is not None
    ]
    text = (
        environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            total=report.total,
            dropped=report.total.documents_in - report.total.kept,
            reasons=reasons,
            styles=styles,
            steps=_funnel(report, reasons, styles),
            tables=[
                _table("language", report.languages, report, summary, reasons, styles),
                _table("source", report.sources, report, summary, reasons, styles),
            ],
            charts=_charts(summary, reasons, styles),
            open_charts=OPEN_CHARTS,
            groups=[
                _group(report, reason, styles, samples, reason == NEAR and bool(pairs))
                for reason in reasons
            ],
            # What only the tokenizer dropped is kept by its verdict, and has a detail.
            kept=[one for one in samples.get(KEPT, []) if not one.detail],
            pairs=pairs,
            meanings=REASONS,
            rules=rule_rows(report.curation),
            mismatches=sorted(
                report.curation.get("mismatches", []), key=lambda one: (-one[2], one[0], one[1])
            ),
            open_rows=OPEN_ROWS,
            excerpt_characters=EXCERPT_CHARACTERS,
        )
    )
    return text.encode("utf-8", errors="replace")


def reasons_in_order(report: Report) -> list[str]:
    """Return the reasons that occur, in the order of the flow, unknown ones last."""
    places = {reason: number for number, reason in enumerate(REASONS)}
    return sorted(report.total.dropped, key=lambda name: (places.get(name, len(places)), name))


@functools.cache  # compiling the templates takes longer than filling them
def environment() -> jinja2.Environment:
    """Return the templates with the filters that they use; `.html` templates escape everything."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters["count"] = lambda number: f"{number:,}"
    found.filters["figure"] = lambda number: f"{number:,}" if number < 10**9 else short(number)
    found.filters["percent"] = percent
    found.filters["size"] = size
    found.filters["tag"] = language_tag
    found.filters["visible"] = visible
    found.filters["fact"] = _fact
    return found


def percent(part: float, whole: float) -> str:
    """Return a share as text, with more digits where it is near nothing or all."""
    if not whole:
        return "-"
    share = 100 * part / whole
    if 1 <= share <= 99 or share in (0, 100):
        return f"{share:.1f} %"
    if share < 1:
        return f"{share:.2g} %"
    return f"{min(share, 99.99):.2f} %"  # not all is never written as all


def size(num_bytes: float) -> str:
    """Return a number of bytes in decimal units."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= scale:
            return f"{num_bytes / scale:,.1f} {unit}"
    return f"{num_bytes:,.0f} bytes"


def language_tag(language: str) -> str:
    """Return the value of a lang attribute for our form of a language: arb_Arab -> ar-Arab."""
    if language == UNKNOWN_LANGUAGE or not language:
        return ""
    try:
        return langcodes.standardize_tag(language, macro=True)
    except ValueError:
        return ""


def visible(text: str) -> str:
    """Return text with control characters as pictures of themselves, which HTML can hold."""
    return text.translate(_CONTROLS)


_CONTROLS = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {0x7F: 0x2421}
_CONTROLS |= {code: 0xFFFD for code in range(0x80, 0xA0)}


def _fact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _funnel(report: Report, reasons: Sequence[str], styles: Mapping[str, str]) -> list[Step]:
    total = report.total
    whole = total.documents_in
    steps = [
        Step("documents in", "", whole, "", shares([("in", "documents", whole)], whole), False)
    ]
    left = whole
    for reason in reasons:
        count = total.dropped[reason]
        left -= count
        bar = shares([("left", "left", left), (styles[reason], reason, count)], whole)
        steps.append(Step(reason, REASONS.get(reason, ""), count, percent(count, whole), bar, True))
    bar = shares([(KEPT, "kept", total.kept)], whole)
    steps.append(Step("kept", "", total.kept, percent(total.kept, whole), bar, False))
    return steps


def _table(
    noun: str,
    tallies: Mapping[str, Tally],
    report: Report,
    summary: Summary,
    reasons: Sequence[str],
    styles: Mapping[str, str],
) -> Table:
    has_tokens = report.total.tokens > 0
    headings = ["kept text"]
    if has_tokens:
        headings += ["tokens", "bytes per token"]
        if report.total.target_tokens:
            headings.append("tokens with loss")
        if noun == "language":
            headings.append("validation documents")
    scores: list[str] = []
    if noun == "language" and summary.by_language:
        scores = ["text_bytes", *sorted(c for c in summary.by_language if c.endswith("score"))]
        headings += ["median length", *(f"median {column}" for column in scores[1:])]
    rows = []
    for name, tally in sorted(tallies.items(), key=lambda one: (-one[1].text_bytes, one[0])):
        figures = [size(tally.text_bytes)]
        if has_tokens:
            ratio = f"{tally.text_bytes / tally.tokens:.2f}" if tally.tokens else "-"
            figures += [f"{tally.tokens:,}", ratio]
            if report.total.target_tokens:
                figures.append(f"{tally.target_tokens:,}")
            if noun == "language":
                figures.append(f"{tally.validation_documents:,}")
        for column in scores:
            buckets = summary.by_language.get(column, {}).get(name)
            median = quantile(buckets, 0.5) if buckets else None
            if median is None:
                figures.append("-")
            else:
                figures.append(size(median) if column == "text_bytes" else f"{median:.2f}")
        parts = [(KEPT, "kept", tally.kept)]
        parts += [
            (styles[reason], reason, tally.dropped[reason])
            for reason in reasons
            if reason in tally.dropped
        ]
        rows.append(Row(name, tally, shares(parts, tally.documents_in), figures))
    return Table(noun, headings, rows, OPEN_ROWS)


def _charts(summary: Summary, reasons: Sequence[str], styles: Mapping[str, str]) -> list[Chart]:
    by_reason = summary.by_reason
    lengths = by_reason.get("text_bytes", {})
    dropped = [name for name in reasons if name in lengths]
    sizes: Mapping[int, int] = by_reason.get("cluster_size", {}).get(KEPT, {})
    found = [
        histogram(
            "Length of documents",
            "documents by bytes of clean text",
            [(styles[name], name, lengths[name]) for name in (KEPT, *dropped) if name in lengths],
            byte_edge,
        ),
        histogram(
            "Cluster size",
            "kept documents by the number of documents each stands for, logarithmic",
            [(KEPT, "kept documents", sizes)],
            plain_edge,
            logarithmic=True,
        ),
        histogram(
            "Similarity of near duplicates",
            "documents dropped, by Jaccard similarity to the kept one",
            [(styles.get(NEAR, "left"), "documents", by_reason.get("jaccard", {}).get(NEAR, {}))],
            plain_edge,
        ),
    ]
    others = sorted(
        (name for name in by_reason if name not in _OWN_CHARTS),
        key=lambda name: (not name.endswith("score"), name),
    )
    for column in others:
        series = [
            (styles.get(name, "left"), name, buckets)
            for name, buckets in sorted(
                by_reason[column].items(), key=lambda one: (one[0] != KEPT, one[0])
            )
        ]
        found.append(histogram(column, "documents by this column of verdicts/", series, plain_edge))
    for column, buckets in sorted(
        summary.columns.items(), key=lambda one: (not one[0].endswith("score"), one[0])
    ):
        if column not in by_reason:
            note = "clean documents by this column of documents/"
            found.append(histogram(column, note, [("left", "documents", buckets)], plain_edge))
    return [chart for chart in found if chart is not None][:MAX_CHARTS]


def _group(
    report: Report,
    reason: str,
    styles: Mapping[str, str],
    samples: Mapping[str, list[Sample]],
    is_paired: bool,
) -> Group:
    total = report.total
    languages = sorted(
        (
            (name, tally.dropped[reason])
            for name, tally in report.languages.items()
            if reason in tally.dropped
        ),
        key=lambda one: (-one[1], one[0]),
    )
    return Group(
        reason=reason,
        meaning=REASONS.get(reason, ""),
        style=styles[reason],
        documents=total.dropped[reason],
        share=percent(total.dropped[reason], total.documents_in),
        languages=languages,
        samples=samples.get(reason, []),
        is_paired=is_paired,
    )
