"""The command `gristmill preprocess`: its arguments in, one call of the pipeline's door out."""

from __future__ import annotations

import sys
from pathlib import Path

from ..config import ConfigError, save_config
from ..pipeline import plan_preprocess
from ..pipeline import preprocess as run_pipeline
from ..pipeline.shards import PiecesMissingError, parse_shard
from .arguments import PreprocessArguments


def preprocess(arguments: PreprocessArguments) -> None:
    """Run the pipeline, or plan it; exits with 3 or 75 where the run is not whole."""
    if not arguments.config.sources:
        raise ConfigError(
            "nothing to preprocess: name files (gristmill preprocess texts/*.jsonl --output DIR), "
            "or a config file with [[preprocess.sources]] (gristmill init prints one)"
        )
    if arguments.plan:
        plan_preprocess(
            arguments.config,
            output=Path(arguments.run.output),
            workers=arguments.run.workers,
            until=arguments.until,
            write_kept=arguments.write_kept,
            keep_scratch=arguments.run.keep,
            check_space=arguments.run.check_space,
        )
        return
    settings, shard = arguments.run, parse_shard(arguments.shard)
    if arguments.wait and shard is None:
        raise ConfigError("--wait is for the pieces of a job array: give --shard NUMBER/COUNT too")
    output = Path(settings.output)
    try:
        report = run_pipeline(
            arguments.config,
            output=output,
            workers=settings.workers,
            until=arguments.until,
            write_kept=arguments.write_kept,
            keep_scratch=settings.keep,
            check_space=settings.check_space,
            # Not before it is known that the run can start: the folder may be another run's.
            on_start=lambda: save_config(
                output / "config.toml", settings, preprocess=arguments.config
            ),
            executor=settings.executor,
            ray_address=settings.ray_address,
            shard=shard,
            wait_seconds=60 * arguments.wait,
            max_failed_units=settings.max_failed_units,
        )
    except PiecesMissingError as missing:
        sys.stderr.write(f"gristmill: {missing}\n")
        sys.exit(75 if arguments.wait else 0)  # 75: EX_TEMPFAIL, the others were not in time
    if report.set_aside:
        files = ", ".join(name for one in report.set_aside for name in one["files"])
        sys.stderr.write(
            f"gristmill: finished without {len(report.set_aside)} units that failed three times: "
            f"{files}. report.json has the reasons; run the same command again to try them once "
            "more\n"
        )
        sys.exit(3)
