"""Settings for the whole suite: hypothesis profiles, one kernel compilation, texts to test on."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# A test that starts Python must not import the checkout's folders as top-level modules.
os.environ["PYTHONSAFEPATH"] = "1"

DEEP = bool(os.environ.get("GRISTMILL_TEST_DEEP"))

# Compilation and busy machines make single examples slow; a deadline would only measure that.
settings.register_profile(
    "gristmill",
    max_examples=1000 if DEEP else 50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gristmill")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the parent of the xdist workers, or a run without
        from gristmill.kernels import warm_kernels

        # The largest kernels in a process of their own; here they are then read from the cache.
        program = "from gristmill.kernels import warm_kernels as warm\n" + "\n".join(
            f"warm({kind!r})" for kind in ("byte_level", "sentencepiece", "unigram", "wordpiece")
        )
        with subprocess.Popen([sys.executable, "-c", program]):
            warm_kernels()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The collection of real corpora beside the checkout, where there is one."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not (path / "corpora").is_dir():
        pytest.skip("needs the corpora in ../shared, which are not here")
    return path


@pytest.fixture(scope="session")
def sample_texts() -> list[tuple[str, str]]:
    """(language, text) of the sample that ships with the pipeline: many scripts, all distinct."""
    folder = Path(__file__).resolve().parents[1] / "pipeline" / "demo_sample"
    rows = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append((row["language"], row["text"]))
    assert len(rows) >= 100
    return rows


@pytest.fixture
def write_jsonl() -> Callable[[Path, list[dict[str, object]]], Path]:
    """Return a function that writes rows as JSON lines and returns the path."""

    def write(path: Path, rows: list[dict[str, object]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def object_servers() -> ModuleType:
    """`object_servers.py`: a local S3 server and a proxy that breaks connections."""
    path = Path(__file__).with_name("object_servers.py")
    spec = importlib.util.spec_from_file_location("object_servers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["object_servers"] = module  # its dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def s3_address(object_servers: ModuleType) -> Iterator[str]:
    """Address of an S3 server that lives as long as the tests."""
    pytest.importorskip("moto", reason="needs moto, a local S3 server")
    pytest.importorskip("s3fs", reason="needs s3fs, which reads from it")
    with object_servers.s3_server() as address:
        yield address


@pytest.fixture
def s3(
    s3_address: str,
    object_servers: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Store]:
    """A bucket of this test's own, a cache of copies too, and pauses that cost no time."""
    from gristmill.indexed_dataset import object_store, store_cache

    for name, value in object_servers.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(store_cache, "cache_folder", lambda: tmp_path / "object-cache")
    monkeypatch.setattr(object_store, "PAUSES", (0.01,) * 6)
    store = Store(f"bucket-{abs(hash(request.node.nodeid))}", s3_address, monkeypatch)
    store.use(s3_address)
    yield store
    object_store.forget_file_systems()


class Store:
    """A bucket of the local S3 server."""

    def __init__(self, bucket: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        import s3fs

        self.url = f"s3://{bucket}"
        self._monkeypatch = monkeypatch
        self.direct = s3fs.S3FileSystem(
            endpoint_url=address,
            key="test",
            secret="test",
            skip_instance_cache=True,
            use_listings_cache=False,
        )
        """A way to it past the code under test and past any proxy."""
        self.direct.mkdir(bucket)

    def use(self, address: str) -> None:
        """Let everything under test ask this address."""
        from gristmill.indexed_dataset import object_store

        self._monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        object_store.forget_file_systems()

    def put(self, path: Path, name: str) -> str:
        """Copy a file, or a folder with all that is in it; return its URL."""
        url = f"{self.url}/{name}"
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        for file in files:
            relative = "" if path.is_file() else f"/{file.relative_to(path).as_posix()}"
            self.direct.pipe_file(url + relative, file.read_bytes())
        return url
