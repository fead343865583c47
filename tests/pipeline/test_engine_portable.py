"""The engine compiled for any x86-64, without the vectors and hashes of newer processors."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.deep
@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks numba for a plain x86-64")
def test_kernels_compiled_for_any_x86_64_give_the_same_ids(tmp_path: Path) -> None:
    portable = {
        "NUMBA_CPU_NAME": "x86-64",
        "NUMBA_CPU_FEATURES": "",
        "GRISTMILL_CACHE_DIR": str(tmp_path),
        "PYTHONSAFEPATH": "1",
    }
    chosen = ["test_engine.py", "test_engine_models.py"]
    command = [sys.executable, "-m", "pytest", "--import-mode=importlib", "-x", "-q"]
    done = subprocess.run(
        [*command, "-m", "not deep", *(str(HERE / name) for name in chosen)],
        env=os.environ | portable,
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
