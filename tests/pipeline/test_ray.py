"""A Ray cluster of several nodes: the bytes of a local run, also when nodes are lost and join."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gristmill.indexed_dataset.atomic import atomic_path
from gristmill.pipeline.config import PreprocessConfig
from gristmill.pipeline.executors import UnitError
from gristmill.pipeline.ray_executor import RayExecutor

from .small_runs import content, run, write_corpus

pytest.importorskip("ray", reason="needs Ray: pip install 'gristmill[ray]'")

pytestmark = pytest.mark.slow

ROOM = {"memory": 1_500_000_000, "object_store_memory": 80_000_000}
NODE = {"num_cpus": 1, **ROOM}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster whose head runs no units, and one node."""
    import ray
    from ray.cluster_utils import Cluster

    try:
        cluster = start(Cluster)
    except Exception as error:  # Ray raises nothing narrower
        if "timed out during startup" not in str(error):
            raise
        pytest.skip(f"a node of Ray did not start within its 30 s on this busy machine: {error}")
    ray.init(address=cluster.address, logging_level="WARNING")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def start(kind: Any) -> Any:
    """Start a head and one node."""
    cluster = kind(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "_system_config": {
                "health_check_period_ms": 1_000,
                "health_check_failure_threshold": 5,
            },
            **ROOM,
        },
    )
    cluster.add_node(**NODE)
    return cluster


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PreprocessConfig:
    return write_corpus(tmp_path_factory.mktemp("texts") / "in", num_files=4)


@pytest.fixture(scope="module")
def whole(config: PreprocessConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    run(config, output)
    return output


def test_two_nodes_write_the_bytes_of_a_local_run_and_one_may_die_while_another_joins(
    cluster: Any, config: PreprocessConfig, whole: Path, tmp_path: Path
) -> None:
    doomed = cluster.add_node(**NODE)
    failures: list[BaseException] = []

    def run_all() -> None:
        try:
            run(config, tmp_path, executor="ray")
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run_all)  # nodes can be started in the main thread only
    thread.start()
    while thread.is_alive() and len(list((tmp_path / "work" / "clean").glob("*.json"))) < 3:
        time.sleep(0.01)
    assert thread.is_alive(), failures or "the run was over before the node was lost"
    cluster.remove_node(doomed, allow_graceful=False)
    cluster.add_node(**NODE)
    thread.join()

    assert not failures, failures
    assert content(tmp_path) == content(whole)
    assert not list(tmp_path.rglob("*.tmp-*"))


def test_what_a_unit_raises_is_what_the_user_reads(cluster: Any, tmp_path: Path) -> None:
    config = write_corpus(tmp_path / "in", num_files=2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "documents").write_text("a file in the way")

    with pytest.raises(UnitError, match=r"stage clean, unit .*: .*Error: .*documents"):
        run(config, tmp_path / "out", executor="ray")


@dataclass(frozen=True)
class Sleep:
    path: Path
    memory_bytes: int = 100_000_000


def sleep(item: Sleep) -> None:
    """Write for a minute (in a worker)."""
    with atomic_path(item.path) as temporary:
        temporary.touch()
        for _ in range(600):  # an interrupt of Ray is seen between two steps of Python
            time.sleep(0.1)


def test_an_interrupt_cancels_the_units_and_their_unfinished_files_go(
    cluster: Any, tmp_path: Path
) -> None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this file
    items = [Sleep(tmp_path / str(number)) for number in range(4)]

    def interrupt(num_bytes: int, running: Any) -> None:
        if list(tmp_path.iterdir()):
            raise KeyboardInterrupt

    started = time.monotonic()
    with RayExecutor() as executor, pytest.raises(KeyboardInterrupt):
        for _ in executor.map(sleep, items, interrupt):
            pass

    assert time.monotonic() - started < 50
    assert list(tmp_path.iterdir()) == []


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ValueError, match=r"pip install 'gristmill\[ray\]'"), RayExecutor():
        pass
