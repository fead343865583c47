"""Lines of JSON in; texts with labels out, and every line that is none, counted by its reason.

    {"text": "the mill grinds", "language": "eng_Latn"}

A bad line never ends a run and never passes in silence.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LabelledTexts:
    """What some files hold, in their order."""

    texts: list[str] = field(default_factory=list)
    """The texts."""
    labels: list[str] = field(default_factory=list)
    """The label of each; empty where none was asked for."""
    places: list[str] = field(default_factory=list)
    """File and line of each, e.g. a.jsonl:7."""
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Place and reason of each line that was left out."""

    def reasons(self) -> dict[str, int]:
        """Return how many lines were left out for each reason."""
        reasons = [reason for _, reason in self.rejected]
        return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def read_labelled(
    paths: Sequence[str | Path], text_field: str = "text", label_field: str | None = "label"
) -> LabelledTexts:
    """Return the texts and labels of .jsonl files (also .gz).

    Args:
        text_field: key of the text.
        label_field: key of the label, a text or a whole number; None: texts only.

    Raises:
        ValueError: a file that cannot be read, or none of whose lines is good.
    """
    found = LabelledTexts()
    for path in map(Path, paths):
        before = len(found.texts), len(found.rejected)
        try:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        _take(found, line, f"{path.name}:{number}", text_field, label_field)
        except (OSError, EOFError) as error:
            raise ValueError(
                f"{path} cannot be read ({error}): give .jsonl files, or .jsonl.gz; others can be "
                "written as such by any JSON tool (zstdcat FILE.zst > FILE)"
            ) from error
        rejected = found.rejected[before[1] :]
        if len(found.texts) == before[0]:
            place, reason = rejected[0] if rejected else (path.name, "it is empty")
            keys = f"{text_field!r}" + (f" and {label_field!r}" if label_field else "")
            raise ValueError(
                f"{path} has no line that can be used ({place}: {reason}): each line is a JSON "
                f"object with {keys}; --text-field and --label-field name other keys"
            )
        if rejected:
            kinds = LabelledTexts(rejected=rejected).reasons()
            counts = ", ".join(f"{reason} {count}" for reason, count in kinds.items())
            first = f"the first is {rejected[0][0]}"
            logger.warning("%s: %d lines are left out (%s); %s", path, len(rejected), counts, first)
    return found


def _take(
    found: LabelledTexts, line: bytes, place: str, text_field: str, label_field: str | None
) -> None:
    text, label, reason = _parse(line, text_field, label_field)
    if reason:
        found.rejected.append((place, reason))
        return
    found.texts.append(text)
    found.places.append(place)
    if label_field is not None:
        found.labels.append(label)


def _parse(line: bytes, text_field: str, label_field: str | None) -> tuple[str, str, str]:
    """Return text, label and "", or what is wrong."""
    try:
        values: Any = json.loads(line)
    except UnicodeDecodeError:
        return "", "", "rejected_utf8"
    except ValueError:
        return "", "", "rejected_json"
    if not isinstance(values, dict):
        return "", "", "no_object"
    text = values.get(text_field)
    if not isinstance(text, str):
        return "", "", "no_text"
    if not text.strip():
        return "", "", "empty_text"
    if label_field is None:
        return text, "", ""
    label = values.get(label_field)
    if isinstance(label, bool) or not isinstance(label, str | int) or label == "":
        return "", "", "no_label"
    return text, str(label), ""
