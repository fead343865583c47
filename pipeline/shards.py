"""Several calls of one run, each with its part of every stage: `--shard 2/8` in, its units out.

The pieces of a job array know of each other only through files on a shared file system: a unit
belongs to one piece, by its place among the stage's names, and its marker says when it is done. A
stage that needs all units of the one before can go on when all pieces have done theirs; until then
a piece waits, or ends and is called again. Nobody hands out work, so nobody can be lost.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Shard:
    """Piece `number` of `count`, counted from 0."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def own(self, names: Sequence[str]) -> set[str]:
        """Return those of a stage's units that are this piece's, whatever order they come in."""
        return set(sorted(names)[self.number :: self.count])


class PiecesMissingError(RuntimeError):
    """This piece has done what it can: units of other pieces are needed to go on."""

    def __init__(self, stage: str, shard: Shard, missing: Sequence[Path]) -> None:
        self.missing = tuple(missing)
        units = "1 unit" if len(missing) == 1 else f"{len(missing):,} units"
        super().__init__(
            f"piece {shard} has done its part as far as it goes: stage {stage} still needs {units} "
            "of other pieces. Call the pieces again when they have ended, or finish in one call "
            "without --shard"
        )


def parse_shard(text: str) -> Shard | None:
    """Return the piece that `2/8` names, None for an empty text.

    Raises:
        ValueError: it names none.
    """
    if not text:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or int(found[1]) >= int(found[2]):
        raise ValueError(
            f"--shard is {text!r}: it must be NUMBER/COUNT, the number from 0 to COUNT - 1 (0/4, "
            "1/4, 2/4 and 3/4 are the pieces of 4; in a Slurm array from 0 on "
            "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT)"
        )
    return Shard(int(found[1]), int(found[2]))


@contextlib.contextmanager
def alone(shard: Shard | None, output: Path) -> Iterator[None]:
    """Keep other pieces out for a moment: a file is written that all of them write alike."""
    if shard is None:
        yield
        return
    path = output / "work" / "lock.alone"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
