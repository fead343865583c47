"""Units in, results of a Ray cluster out: the same units as local processes run, on many machines.

Ray hands out tasks, restarts those of a lost machine, and places them by CPUs and memory; nothing
of that is done here. Everything else goes through files that all machines see, so the results that
travel are counts of a few kilobytes. A machine that joins gets units as soon as it is there.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from .executors import (
    GRACE_SECONDS,
    POLL_SECONDS,
    WAITING_UNITS,
    OnProgress,
    Running,
    WorkerDiedError,
    count_workers,
)
from .shards import Shard
from .worker import BYTES, SLOT_SIZE, limit_threads, use_slot

logger = logging.getLogger(__name__)

RETRIES = 3
"""Times that a unit is begun again because its machine or process was lost."""

CANCEL_SECONDS = 10.0
"""Time that units have to remove their unfinished files: Ray's interrupt reaches them between two
steps of Python, so after the kernel that is running."""

OBJECT_STORE_BYTES = 100_000_000
"""Shared memory of a cluster that is started here: only counts travel."""


class RayExecutor:
    """Runs units as tasks of a Ray cluster.

    Args:
        workers: units at a time; 0: one for each CPU of the cluster, whatever joins or leaves.
        address: of the cluster; empty: that of RAY_ADDRESS, else one is started on this machine
            and ended with the run.
        max_failed_units: see `Executor`.

    Raises:
        ValueError: Ray is not installed, or no cluster answers at the address (on entering).
    """

    def __init__(self, workers: int = 0, *, address: str = "", max_failed_units: int = 0) -> None:
        if workers < 0:
            raise ValueError(f"run.workers is {workers}: it must be 0 (every CPU) or more")
        self.shard: Shard | None = None
        self.max_failed_units = max_failed_units
        self._workers, self._address = workers, address
        self._ray: Any = None
        self._started_here = False
        self._largest_bytes = 0

    def __enter__(self) -> Self:
        try:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            import ray
        except ImportError as error:
            raise ValueError(
                "run.executor is ray, which is not installed: pip install 'gristmill[ray]', or "
                "take --executor local"
            ) from error
        self._ray = ray
        if not ray.is_initialized():
            self._connect()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._started_here:
            self._ray.shutdown()

    def map(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        on_progress: OnProgress,
    ) -> Iterator[tuple[int, Any]]:
        """Yield (index, result) as tasks finish; see `Executor`."""
        ray = self._ray
        task = ray.remote(_run)
        waiting: dict[Any, Running] = {}
        handed_out = num_bytes = 0
        dead: list[int] = []
        try:
            while waiting or handed_out < len(items):
                room = self._room() if handed_out < len(items) else 0
                while handed_out < len(items) and len(waiting) < room:
                    item = items[handed_out]
                    options = {"num_cpus": 1, "max_retries": RETRIES, "memory": self._bytes(item)}
                    reference = task.options(**options).remote(function, item)
                    waiting[reference] = Running(handed_out, "ray", time.time())
                    handed_out += 1
                ready, _ = ray.wait(list(waiting), timeout=POLL_SECONDS, fetch_local=False)
                on_progress(num_bytes, list(waiting.values()))
                for reference in ready:
                    index = waiting.pop(reference).index
                    try:
                        result, done = ray.get(reference)
                    except ray.exceptions.RayTaskError as error:
                        raise error.cause from error  # what the unit raised, not Ray's wrapping
                    except ray.exceptions.RayError as error:
                        logger.warning("a unit was lost with its machine or process: %s", error)
                        dead.append(index)
                        continue
                    num_bytes += done
                    on_progress(num_bytes, list(waiting.values()))
                    yield index, result
        finally:
            self._cancel(list(waiting))
        if dead:
            raise WorkerDiedError(dead)

    def _connect(self) -> None:
        ray = self._ray
        address = self._address or os.environ.get("RAY_ADDRESS", "")
        own: dict[str, Any] = {"address": address}
        if not address:
            own = {
                "num_cpus": self._workers or count_workers(),
                "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES,
            }
        in_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(**own, logging_level=logging.WARNING, configure_logging=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"no Ray cluster answers at {address or 'this machine'} ({error}): start one "
                "(ray start --head), give its --ray-address, or take --executor local"
            ) from error
        if in_main:
            signal.signal(signal.SIGTERM, handler)  # the command's own: it ends units first
        self._started_here = True

    def _room(self) -> int:
        """Return how many units may be handed out at a time, by the cluster as it is now."""
        cpus = int(self._ray.cluster_resources().get("CPU", 0)) or 1
        return WAITING_UNITS * min(cpus, self._workers) if self._workers else WAITING_UNITS * cpus

    def _bytes(self, item: Any) -> int:
        """Return the memory to ask for: what the unit may need, or all that a machine has."""
        wanted: int = item.memory_bytes
        if wanted > self._largest_bytes:
            sizes = [node["Resources"].get("memory", 0) for node in self._ray.nodes()]
            self._largest_bytes = int(max(sizes, default=0))
        if wanted > self._largest_bytes:
            logger.warning(
                "a unit may need %.1f GB of memory, and no machine of the Ray cluster offers more "
                "than %.1f GB: it gets one of these, alone",
                wanted / 1e9,
                self._largest_bytes / 1e9,
            )
            return self._largest_bytes
        return wanted

    def _cancel(self, references: Sequence[Any]) -> None:
        """End what is under way: first so that unfinished files are removed, then at once."""
        ray = self._ray
        for force, seconds in ((False, CANCEL_SECONDS), (True, GRACE_SECONDS)):
            for reference in references:
                ray.cancel(reference, force=force)
            if references:
                _, references = ray.wait(
                    list(references), num_returns=len(references), timeout=seconds
                )


def _run(function: Callable[[Any], Any], item: Any) -> tuple[Any, int]:
    """Run one unit in a worker of Ray; return its result and the bytes of input it was through."""
    limit_threads()
    slot = [0] * SLOT_SIZE
    use_slot(slot)
    try:
        return function(item), slot[BYTES]
    finally:
        use_slot(None)
