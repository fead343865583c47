"""What is installed: one top-level name, every room, every data file; numpy alone can read."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gristmill.indexed_dataset import IndexedDatasetBuilder

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel without a network, from a copy, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    ).stdout.decode()
    names = [name for name in files.split("\0") if name] or [
        str(path.relative_to(ROOT))  # an unpacked archive: no git
        for path in ROOT.rglob("*")
        if path.is_file() and path.relative_to(ROOT).parts[0] not in {".venv", "runs", "build"}
    ]
    for name in names:
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    output = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "-o",
            str(output),
            str(source),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next(output.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_one_name_and_every_room(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info/" not in name}

    assert top == {"gristmill"}
    for room in ("kernels", "indexed_dataset", "pipeline", "trainer"):
        for path in (ROOT / room).rglob("*.py"):
            assert f"gristmill/{path.relative_to(ROOT).as_posix()}" in names
    assert "gristmill/configs/demo.toml" in names
    assert any(name.startswith("gristmill/pipeline/demo_sample/") for name in names)
    for path in (ROOT / "pipeline" / "templates").iterdir():
        assert f"gristmill/pipeline/templates/{path.name}" in names
    assert not any("tests/" in name or "benchmarks/" in name for name in names)


@pytest.mark.slow
def test_numpy_alone_opens_and_reads_a_prefix(wheel: Path, tmp_path: Path) -> None:
    with IndexedDatasetBuilder(tmp_path / "set", dtype=np.uint16) as builder:
        builder.add_document(np.array([5, 6, 7], np.uint16))
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    site = next(environment.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    numpy_home = Path(np.__file__).parent  # linked: nothing else of this environment comes along
    (site / "numpy").symlink_to(numpy_home)
    if (numpy_home.parent / "numpy.libs").exists():
        (site / "numpy.libs").symlink_to(numpy_home.parent / "numpy.libs")
    program = (
        "import sys\n"
        "from gristmill.indexed_dataset import IndexedDataset, SampleDataset\n"
        f"dataset = IndexedDataset({str(tmp_path / 'set')!r})\n"
        "assert dataset[0].tolist() == [5, 6, 7], dataset[0]\n"
        "foreign = {'torch', 'numba', 'pyarrow', 'tokenizers'} & set(sys.modules)\n"
        "assert not foreign, foreign\n"
        "print('read')\n"
    )

    done = subprocess.run(
        [str(environment / "bin" / "python"), "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )

    assert done.stdout == "read\n", done.stderr
