"""Files that stages leave for later ones: made, removed when these are done, made again if wanted.

A unit's marker says which of its files are scratch. That they are gone does not undo the unit, so a
finished run is found finished without them. When a later stage has a unit to run after all (it was
killed before it was done, a setting has changed, documents were added), the units whose scratch is
gone are done again first, and so on backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from .executors import Executor
from .progress import Progress
from .stage import Marker, Stage, Unit, finished_units, has_scratch, run_stage


class Chain:
    """Stages of one output folder that read each other's scratch.

    Args:
        output, executor, progress: as of `run_stage`.
        keep: remove nothing.
    """

    def __init__(
        self, output: Path, executor: Executor, progress: Progress, *, keep: bool = False
    ) -> None:
        self._where = output, executor, progress
        self._keep = keep
        self._known: dict[str, tuple[Stage, Sequence[Unit], Sequence[str]]] = {}
        self._markers: dict[str, dict[str, Marker]] = {}

    def run(
        self, stage: Stage, units: Sequence[Unit], reads: Sequence[str] = ()
    ) -> dict[str, Marker]:
        """Run the units of a stage that are not done; return the markers of all.

        Args:
            stage, units: as of `run_stage`.
            reads: names of earlier stages whose scratch the units read.
        """
        self._known[stage.name] = stage, units, reads
        markers = run_stage(stage, units, *self._where, prepare=partial(self._restore, reads))
        self._markers[stage.name] = markers
        return markers

    def remove(self, *names: str) -> None:
        """Remove what these stages left for others, which are done by now.

        A stage that these settings have not may have left something with others.
        """
        output = self._where[0]
        for name in () if self._keep else names:
            markers = self._markers.get(name)
            remove_scratch((markers or finished_units(output, name)).values(), output)

    def _restore(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self._known:  # else it has nothing to do with these settings
                stage, units, reads = self._known[name]
                restore(stage, units, *self._where, prepare=partial(self._restore, reads))


def restore(
    stage: Stage,
    units: Sequence[Unit],
    output: Path,
    executor: Executor,
    progress: Progress,
    prepare: Callable[[], None] = lambda: None,
) -> None:
    """Do those units again that are done but whose scratch is gone: a later stage reads it."""
    markers = finished_units(output, stage.name)
    lost = [unit.name for unit in units if not has_scratch(markers[unit.name], output)]
    if lost:
        run_stage(stage, units, output, executor, progress, frozenset(lost), prepare)


def remove_scratch(markers: Iterable[Marker], output: Path) -> None:
    """Remove what units left for later stages, which are done by now."""
    for marker in markers:
        for name, _ in marker.scratch:
            (output / name).unlink(missing_ok=True)
