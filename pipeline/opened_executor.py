"""The name of an executor in, the executor out: local processes, or a Ray cluster."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

from .executors import Executor, LocalExecutor
from .shards import Shard

ExecutorName = Literal["local", "ray"]


def open_executor(
    name: ExecutorName,
    *,
    workers: int,
    ray_address: str,
    shard: Shard | None,
    max_failed_units: int,
) -> AbstractContextManager[Executor]:
    """Return the executor, to be entered.

    Raises:
        ValueError: a setting that cannot be meant, or Ray is not installed.
    """
    if max_failed_units < 0:
        raise ValueError(
            f"run.max_failed_units is {max_failed_units}: it counts units that may fail, so it "
            "must be 0 (stop at the first) or more"
        )
    if name == "local":
        if ray_address:
            raise ValueError(
                f"run.ray_address is {ray_address!r} and run.executor is local: nothing would run "
                "there. Take --executor ray, or leave the address out"
            )
        return LocalExecutor(workers, shard=shard, max_failed_units=max_failed_units)
    if shard is not None:
        raise ValueError(
            "--shard is for the pieces of a batch system's job array, and Ray hands out units by "
            "itself: take one of the two"
        )
    from .ray_executor import RayExecutor

    return RayExecutor(workers, address=ray_address, max_failed_units=max_failed_units)
