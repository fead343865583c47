"""What it costs to hand out units: 10,000 that do nothing, markers and log included.

    python benchmarks/executors.py [--units 10000] [--workers 2] [--ray]

Prints seconds for a first run and for one that finds everything done. The limit that the project
sets itself is 20 s for 10,000 units on two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from gristmill.pipeline.opened_executor import open_executor
from gristmill.pipeline.progress import Progress
from gristmill.pipeline.run_log import RunLog
from gristmill.pipeline.stage import Stage, Unit, UnitResult, run_stage


def nothing(arguments: None) -> UnitResult:
    return UnitResult()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--ray", action="store_true")
    chosen = parser.parse_args()
    stage = Stage(name="nothing", version=1, settings=None, function=nothing)
    units = [
        Unit(name=f"unit-{number:06}", arguments=None, inputs=(str(number),))
        for number in range(chosen.units)
    ]
    with (
        tempfile.TemporaryDirectory() as folder,
        open_executor(
            "ray" if chosen.ray else "local",
            workers=chosen.workers,
            ray_address="",
            shard=None,
            max_failed_units=0,
        ) as executor,
    ):
        progress = Progress(quiet=True)
        progress.log = RunLog(Path(folder))
        warm = [Unit(name="warm", arguments=None, inputs=())]
        run_stage(
            Stage(name="warm", version=1, settings=None, function=nothing),
            warm,
            Path(folder),
            executor,
            progress,
        )
        for what in ("first run", "found done"):
            started, cpu = time.perf_counter(), time.process_time()
            run_stage(stage, units, Path(folder), executor, progress)
            print(
                f"{what}: {len(units):,} units in {time.perf_counter() - started:.1f} s, "
                f"{time.process_time() - cpu:.1f} CPU s of the parent"
            )


if __name__ == "__main__":
    main()
