"""One stage of the pipeline: units of work in, finished files and their markers out.

A unit is a pure function of its input files and its stage's settings. When it has written its
files (each atomically), a small marker with the fingerprint of what went in, the counts and the
names of what came out is written last: the marker is the commit. Running again skips units whose
marker has the same fingerprint and whose files are there; so a run can be killed anywhere, and
the finished files are the same bytes as those of a run that was not.

Files that only later stages read are the unit's *scratch* (`scratch.py`): they may be removed, and
the unit stays done.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from ..indexed_dataset.atomic import write_atomically, write_lightly
from .executors import Executor, Running
from .progress import Progress
from .shards import PiecesMissingError
from .unit_runs import UNIT_BYTES, Outcome, UnitsFailedError, Work, outcomes

logger = logging.getLogger(__name__)

STALE = "stale"
"""Fingerprint of a marker whose unit is being done again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """A piece of a stage that can be done, and redone, alone."""

    name: str
    """Unique in the stage; a file name, so no slashes."""
    arguments: Any
    """What the stage's function gets: picklable, a dataclass as a rule."""
    inputs: tuple[str, ...]
    """Fingerprints of everything that is read: see `file_fingerprint`, `Marker.fingerprint`."""
    size_bytes: int = 0
    """Bytes of input, for the progress bar."""
    memory_bytes: int = UNIT_BYTES
    """Memory that it may need: a cluster places it by that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnitResult:
    """What a unit's function returns."""

    counts: dict[str, Any] = field(default_factory=dict)
    """JSON values that later stages and the report need."""
    outputs: tuple[Path, ...] = ()
    """Files written, all below the output folder."""
    scratch: tuple[Path, ...] = ()
    """Files written for later stages alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Marker:
    """A finished unit, as it stands on disk."""

    unit: str
    fingerprint: str
    counts: dict[str, Any]
    outputs: tuple[tuple[str, int], ...]  # path relative to the output folder, bytes
    scratch: tuple[tuple[str, int], ...] = ()  # the same; these may be gone


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A named step with its settings; `version` is raised by hand when its output changes."""

    name: str
    version: int
    settings: Any
    """The stage's config section (a dataclass) or any JSON value: part of the fingerprint."""
    function: Callable[[Any], UnitResult]
    """Module-level function of a unit's arguments."""


def fingerprint(*parts: Any) -> str:
    """Return 32 hex digits that name the given JSON values and dataclasses."""
    plain = [
        asdict(part) if is_dataclass(part) and not isinstance(part, type) else part
        for part in parts
    ]
    text = json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def file_fingerprint(path: Path, name: str) -> str:
    """Return the fingerprint of an input file: its relative name, size and modification time."""
    status = path.stat()
    return fingerprint(name, status.st_size, status.st_mtime_ns)


def unit_fingerprint(stage: Stage, unit: Unit) -> str:
    """Return the fingerprint that the unit's marker has when it is done with these settings."""
    return fingerprint(stage.name, stage.version, stage.settings, unit.name, unit.inputs)


def are_done(stage: Stage, units: Sequence[Unit], output: Path) -> bool:
    """Say whether `run_stage` would find nothing to do."""
    markers = finished_units(output, stage.name)
    return all(
        unit.name in markers and _is_done(markers[unit.name], unit_fingerprint(stage, unit), output)
        for unit in units
    )


def run_stage(
    stage: Stage,
    units: Sequence[Unit],
    output: Path,
    executor: Executor,
    progress: Progress,
    redo: frozenset[str] = frozenset(),
    prepare: Callable[[], None] = lambda: None,
) -> dict[str, Marker]:
    """Run the units of `stage` that are not done, and return the markers of all, by unit name.

    Files of units that are no longer part of the stage are removed. `redo` names units to be done
    whatever their markers say, because a file that is no output of theirs is wanted again.
    `prepare` is called before any unit runs, if one has to: it restores the scratch that they read.

    Raises:
        UnitsFailedError: units failed three times. At most `executor.max_failed_units` others may
            have failed before the rest was left; finished units are kept.
        PiecesMissingError: this is a piece of a job array, and the units of others are not done.
        DiskFullError: no space left.
    """
    folder = output / "work" / stage.name
    wanted = {unit.name: unit_fingerprint(stage, unit) for unit in units}
    assert len(wanted) == len(units), f"stage {stage.name}: unit names are not unique"
    markers = read_markers(folder)
    for name in sorted(markers.keys() - wanted.keys()):
        _remove(markers.pop(name), folder, output)
    done = {
        name: marker
        for name, marker in markers.items()
        if name not in redo and _is_done(marker, wanted[name], output)
    }
    shard = executor.shard
    own = wanted.keys() if shard is None else shard.own(list(wanted))
    others = [name for name in wanted if name not in done and name not in own]
    todo = [unit for unit in units if unit.name not in done and unit.name in own]
    # Large units first, so that no worker is alone with one in the end.
    todo.sort(key=lambda unit: -unit.size_bytes)
    if todo:
        prepare()
    for unit in todo:
        if unit.name in markers and markers[unit.name].fingerprint != STALE:
            # Its files are about to change: were this run killed and the old settings used again,
            # the old marker would vouch for the new files.
            markers[unit.name] = replace(markers[unit.name], fingerprint=STALE)
            write_atomically(folder / f"{unit.name}.json", _content(markers[unit.name]))

    total = sum(unit.size_bytes for unit in todo)
    failures: list[tuple[str, str]] = []
    log = progress.log
    log.begin_stage(
        stage.name, units=len(todo), skipped=len(done), others=len(others), size_bytes=total
    )
    with progress.stage(stage.name, total, num_units=len(todo), num_skipped=len(done)) as bar:

        def tell(num_bytes: int, running: Sequence[Running]) -> None:
            bar.update(num_bytes)
            log.progress(
                num_bytes,
                [
                    {"unit": todo[one.index].name, "worker": one.worker, "started": one.started}
                    for one in running
                ],
            )

        work = [Work(stage=stage.name, function=stage.function, unit=unit) for unit in todo]
        try:
            for index, outcome in outcomes(executor, work, tell):
                unit = todo[index]
                if outcome.error:
                    failures.append((unit.name, outcome.error))
                    log.unit_ended(_line(stage, unit, outcome, ()))
                    if len(failures) > executor.max_failed_units:
                        raise UnitsFailedError(stage.name, failures)
                    continue
                marker = _commit(stage, unit, outcome.result, markers.get(unit.name), output)
                done[unit.name] = marker
                log.unit_ended(_line(stage, unit, outcome, marker.outputs + marker.scratch))
                bar.unit_done()
        finally:
            log.end_stage()
    if failures:
        raise UnitsFailedError(stage.name, failures)
    if others and shard is not None:
        done |= _done_meanwhile(folder, others, wanted, output, redo)
        missing = [folder / f"{name}.json" for name in others if name not in done]
        if missing:
            raise PiecesMissingError(stage.name, shard, missing)
    return {unit.name: done[unit.name] for unit in units}


def _commit(
    stage: Stage, unit: Unit, result: UnitResult, before: Marker | None, output: Path
) -> Marker:
    """Write the marker of a unit that is done; files that only its older version had go first."""
    outputs, scratch = (
        tuple((str(path.relative_to(output)), path.stat().st_size) for path in paths)
        for paths in (result.outputs, result.scratch)
    )
    content = _content(
        Marker(
            unit=unit.name,
            fingerprint=unit_fingerprint(stage, unit),
            counts=result.counts,
            outputs=outputs,
            scratch=scratch,
        )
    )
    marker = _parse(content)  # as a later run will read it, key order and all
    if before is not None:
        kept = {path for path, _ in marker.outputs + marker.scratch}
        for path, _ in before.outputs + before.scratch:
            if path not in kept:
                (output / path).unlink(missing_ok=True)
    # Not synced: the files that it vouches for are, and a marker that a crash of the machine has
    # lost or damaged means that its unit is done again.
    write_lightly(output / "work" / stage.name / f"{unit.name}.json", content)
    return marker


def _done_meanwhile(
    folder: Path,
    names: Sequence[str],
    wanted: Mapping[str, str],
    output: Path,
    redo: frozenset[str],
) -> dict[str, Marker]:
    """Return the markers of those units of other pieces that are done by now."""
    found = {}
    for name in names:
        marker = _read_marker(folder / f"{name}.json")
        if marker is None or not _is_done(marker, wanted[name], output):
            continue
        if name not in redo or has_scratch(marker, output):
            found[name] = marker
    return found


def _line(
    stage: Stage, unit: Unit, outcome: Outcome, outputs: Sequence[tuple[str, int]]
) -> dict[str, Any]:
    """Return what the log says of a unit."""
    return {
        "stage": stage.name,
        "unit": unit.name,
        "state": "failed" if outcome.error else "done",
        "tries": outcome.tries,
        "seconds": round(outcome.seconds, 3),
        "cpu_seconds": round(outcome.cpu_seconds, 3),
        "peak_bytes": outcome.peak_bytes,
        "size_bytes": unit.size_bytes,
        "output_bytes": sum(size for _, size in outputs),
        "worker": outcome.worker,
        "error": outcome.error,
    }


def finished_units(output: Path, stage: str) -> dict[str, Marker]:
    """Return the markers that a stage has left, whatever their fingerprints, by unit name."""
    return read_markers(output / "work" / stage)


def read_markers(folder: Path) -> dict[str, Marker]:
    """Return the markers in the work folder of a stage, by unit name."""
    found = {path.stem: _read_marker(path) for path in sorted(folder.glob("*.json"))}
    return {name: marker for name, marker in found.items() if marker is not None}


def _read_marker(path: Path) -> Marker | None:
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        return None  # another piece of a job array has just removed it
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s is not a marker (%s): its unit is done again", path, error)
        return None


def _content(marker: Marker) -> bytes:
    return json.dumps(asdict(marker), sort_keys=True, ensure_ascii=False).encode()


def _parse(content: bytes) -> Marker:
    value = json.loads(content)
    return Marker(
        unit=value["unit"],
        fingerprint=value["fingerprint"],
        counts=value["counts"],
        outputs=tuple((name, size) for name, size in value["outputs"]),
        scratch=tuple((name, size) for name, size in value.get("scratch", ())),
    )


def _is_done(marker: Marker, wanted: str, output: Path) -> bool:
    if marker.fingerprint != wanted:
        return False
    for name, size in marker.outputs:
        path = output / name
        if not path.is_file() or path.stat().st_size != size:
            logger.warning("%s is missing or has another size: its unit is done again", path)
            return False
    return True


def has_scratch(marker: Marker, output: Path) -> bool:
    """Say whether the files that a unit left for later stages are there."""
    paths = ((output / name, size) for name, size in marker.scratch)
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def _remove(marker: Marker, folder: Path, output: Path) -> None:
    (folder / f"{marker.unit}.json").unlink(missing_ok=True)
    for name, _ in marker.outputs + marker.scratch:
        (output / name).unlink(missing_ok=True)
