"""Units of reading that failed three times: their reasons in, a run without them and a list out.

Whatever stage a unit failed in, the run begins again from its first stage without that unit (what
is done is skipped), so that no later stage sees half of it. `work/set-aside/UNIT.json` says which
and why; the next call without `--shard` tries them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..indexed_dataset.atomic import write_atomically
from .unit_runs import UnitsFailedError
from .units import ReadUnit

FOLDER = "work/set-aside"

MAX_NAMED_FILES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """A unit that the run goes on without."""

    unit: str
    stage: str
    """Where it failed."""
    files: tuple[str, ...]
    """What it reads: file, and bytes or rows of it."""
    error: str

    def __str__(self) -> str:
        named = ", ".join(self.files[:MAX_NAMED_FILES])
        more = len(self.files) - MAX_NAMED_FILES
        return (
            f"{named}{f' and {more} more' if more > 0 else ''} (stage {self.stage}): {self.error}"
        )


def note_failures(
    failed: UnitsFailedError, units: Sequence[ReadUnit], output: Path
) -> list[SetAside]:
    """Write down which units are set aside; raise what failed if it is no unit of reading."""
    by_name = {unit.name: unit for unit in units}
    if any(name not in by_name for name, _ in failed.failures) or len(by_name) <= len(
        failed.failures
    ):
        raise failed
    noted = []
    for name, reason in failed.failures:
        one = SetAside(unit=name, stage=failed.stage, files=_files(by_name[name]), error=reason)
        content = json.dumps(asdict(one), indent=1, ensure_ascii=False) + "\n"
        write_atomically(output / FOLDER / f"{name}.json", content.encode())
        noted.append(one)
    return noted


def load_set_aside(output: Path) -> Mapping[str, SetAside]:
    """Return what is set aside, by unit."""
    found = {}
    for path in sorted((output / FOLDER).glob("*.json")):
        value = json.loads(path.read_bytes())
        found[value["unit"]] = SetAside(**{**value, "files": tuple(value["files"])})
    return found


def try_again(output: Path) -> None:
    """Forget what was set aside."""
    for path in (output / FOLDER).glob("*.json"):
        path.unlink(missing_ok=True)


def _files(unit: ReadUnit) -> tuple[str, ...]:
    return tuple(
        piece.file.path + (f" from {piece.start:,} to {piece.end:,}" if piece.end else "")
        for piece in unit.pieces
    )
