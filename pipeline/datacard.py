"""Counts, manifests and the configuration in; DATACARD.md, what a user of the data must know, out.

The card says only what the run knows: a licence that nobody named is unknown, and where nothing
was redacted it says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..indexed_dataset import find_prefixes
from ..indexed_dataset.manifest import DatasetManifest
from .documents import REASONS
from .report import Report
from .report_page import environment, percent, reasons_in_order, size
from .summary import Summary

MAX_LICENCES = 8
"""Licences of its documents that are named of one source; the rest is counted."""

MAX_CELL = 200
"""Characters of a name in a table."""


def render_datacard(report: Report, summary: Summary, output: Path) -> bytes:
    """Return the card.

    Args:
        report: the counts, with the configuration.
        summary: licences that documents carry.
        output: its data/ is read for manifests, where it is there.
    """
    config = report.config
    policy = list(redaction_policy(config))
    template = environment().get_template("datacard.md.jinja")
    text = template.render(
        report=report,
        total=report.total,
        sources=list(_sources(report, summary)),
        languages=sorted(report.languages.items(), key=lambda one: (-one[1].text_bytes, one[0])),
        reasons=[
            (reason, report.total.dropped[reason], REASONS.get(reason, ""))
            for reason in reasons_in_order(report)
        ],
        datasets=list(_datasets(output / "data")),
        mismatches=sorted(
            report.curation.get("mismatches", []), key=lambda one: (-one[2], one[0], one[1])
        ),
        redaction=policy,
        is_redacted=any(value == "yes" for _, value in policy) or any(report.redacted.values()),
        settings=[
            (name, list(_flat(section)))
            for name, section in sorted(config.items())
            if name != "sources"
        ],
        cell=cell,
        percent=percent,
        size=size,
    )
    return text.encode("utf-8", errors="replace")


def cell(text: Any) -> str:
    """Return text as it stands in a Markdown table: one line, nothing that Markdown would read."""
    plain = " ".join(str(text).split())
    if len(plain) > MAX_CELL:
        plain = plain[: MAX_CELL - 1] + "…"
    for mark in "\\`*[]<>|~":
        plain = plain.replace(mark, "\\" + mark)
    return plain


def redaction_policy(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (setting, value) of every section of the configuration that is about redaction."""
    for name, section in sorted(config.items()):
        if "redact" in name:
            for key, value in _flat(section):
                yield (f"{name}.{key}" if key else name), value
        elif isinstance(section, Mapping):
            for key, value in redaction_policy(section):
                yield f"{name}.{key}", value


def _flat(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if not isinstance(section, Mapping):
        yield prefix, _written(section)
        return
    for name, value in section.items():
        yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_written, value)) or "none"
    return "none" if value in ("", None) else str(value)


def _sources(report: Report, summary: Summary) -> Iterator[dict[str, Any]]:
    """Yield what is known of each source."""
    licences: dict[str, set[str]] = {}
    for source in report.config.get("sources", ()):
        licences.setdefault(source.get("name", ""), set()).add(source.get("licence", ""))
    for name, tally in sorted(report.sources.items()):
        said = sorted(licences.get(name, set()) - {""})
        carried = sorted(summary.licences.get(name, {}).items(), key=lambda one: (-one[1], one[0]))
        if not said:
            said = [
                f"{licence or 'not stated'} ({documents:,} documents)"
                for licence, documents in carried[:MAX_LICENCES]
            ]
            if len(carried) > MAX_LICENCES:
                said.append(f"{len(carried) - MAX_LICENCES} more")
        yield {"name": name, "tally": tally, "licence": "; ".join(said) or "unknown"}


def _datasets(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each group of prefixes below data/."""
    for split in ("train", "validation"):
        if not (folder / split).is_dir():
            continue
        for group, prefixes in find_prefixes(folder / split).items():
            loaded = (DatasetManifest.load(Path(f"{prefix}.json")) for prefix in prefixes)
            manifests = [manifest for manifest in loaded if manifest is not None]
            yield {
                "split": split,
                "group": group,
                "shards": len(prefixes),
                "documents": sum(manifest.num_documents for manifest in manifests),
                "tokens": sum(manifest.num_tokens for manifest in manifests),
                "text_bytes": sum(manifest.text_bytes or 0 for manifest in manifests),
                "tokenizer": next(
                    (m.tokenizer["fingerprint"] for m in manifests if m.tokenizer), ""
                ),
            }
