"""Settings for the whole suite: hypothesis profiles, one kernel compilation, texts to test on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
