"""The one decorator: where compiled code is kept, and what happens where none can be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.kernels import jit

PROGRAM = """
import logging
logging.basicConfig(format="%(message)s")
import numpy as np
from gristmill import kernels
data, offsets = np.frombuffer(b"some text", np.uint8), np.array([0, 9])
print(kernels.hash_documents(data, offsets)[0, 0])
"""


@jit.inner_kernel
def twice(number):
    return 2 * number


@jit.borrowing_kernel
def twice_and_one(number):
    return twice(number) + 1


def run_program(**environment):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_compiled_code_lies_in_a_folder_named_by_the_sources(tmp_path):
    result = run_program(GRISTMILL_CACHE_DIR=str(tmp_path))

    assert result.returncode == 0, result.stderr
    folders = list(tmp_path.iterdir())
    sources = Path(jit.__file__).parent
    assert [folder.name for folder in folders] == [f"numba-{jit.source_hash(sources)}"]
    assert list(folders[0].rglob("*.nbi"))


def test_an_edit_in_any_kernel_file_changes_the_folder(tmp_path):
    (tmp_path / "a.py").write_text("x = 1")
    (tmp_path / "b.py").write_text("y = 1")
    before = jit.source_hash(tmp_path)
    (tmp_path / "b.py").write_text("y = 2")

    assert jit.source_hash(tmp_path) != before


def test_a_place_that_cannot_be_written_means_one_notice_and_no_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder is wanted")

    result = run_program(GRISTMILL_CACHE_DIR=str(blocked))
    normal = run_program()

    assert result.returncode == 0, result.stderr
    assert result.stdout == normal.stdout
    assert result.stderr.count("compiled kernels are not cached") == 1
    assert "Set GRISTMILL_CACHE_DIR" in result.stderr


def test_kernels_run_as_plain_python_with_the_same_result():
    plain = run_program(NUMBA_DISABLE_JIT="1")

    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == run_program().stdout


def test_numbas_own_setting_is_left_as_it_was():
    import numba

    before = numba.config.CACHE_DIR
    compiled = jit.kernel(lambda number: number + 1)

    after = numba.config.CACHE_DIR
    assert after == before
    assert compiled(1) == 2


def test_an_inner_kernel_works_in_a_kernel_and_refuses_to_be_called_from_python():
    assert twice_and_one(3) == 7
    if jit.compiles():  # else it is a Python function
        with pytest.raises(TypeError, match="twice is an inner kernel: call it from a kernel"):
            twice(3)
    assert twice_and_one(2.5) == 6.0


def test_an_inner_kernel_that_is_compiled_has_no_machine_code_of_its_own():
    assert twice_and_one(4) == 9
    if jit.compiles():
        assert not twice.stats.cache_path
        assert twice.overloads
        with pytest.raises(TypeError, match="inner kernel"):
            twice(4)


def test_importing_the_package_loads_no_numba():
    code = "import sys, gristmill.kernels; sys.exit('numba' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"GRISTMILL_CACHE_DIR": "/a"}, "/a"),
        ({"XDG_CACHE_HOME": "/b"}, "/b/gristmill"),
        ({"HOME": "/c"}, "/c/.cache/gristmill"),
    ],
)
def test_the_cache_lies_where_the_user_says(monkeypatch, variables, expected):
    for name in ("GRISTMILL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert str(jit.cache_root()) == expected
