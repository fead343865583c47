"""Functions that the tests of stages run in worker processes, which import them by name."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from gristmill.indexed_dataset.atomic import atomic_path, write_atomically
from gristmill.pipeline.stage import UnitResult


@dataclass(frozen=True)
class Work:
    path: Path
    text: str


def write(work: Work) -> UnitResult:
    """Write the text; some texts misbehave."""
    if work.text == "fail":
        raise ValueError("bad text")
    if work.text == "die":
        os._exit(9)
    if work.text == "fail after the others":
        while all(".tmp-" in path.name for path in work.path.parent.glob("*")):
            time.sleep(0.01)
        raise ValueError("bad text")
    if work.text == "fail after one began":
        while not any(work.path.parent.iterdir()):
            time.sleep(0.01)
        raise ValueError("bad text")
    if work.text == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if work.text == "sleep":
        with atomic_path(work.path) as temporary:
            temporary.touch()
            time.sleep(60)
    write_atomically(work.path, work.text.encode())
    return UnitResult(counts={"bytes": len(work.text)}, outputs=(work.path,))
